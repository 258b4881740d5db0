"""What parent and engine say to each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.transfer import events, job
from templates_app.transfer.events import (
    Differs,
    End,
    Event,
    Failed,
    LaneProgress,
    Phase,
    Progress,
    Published,
    PublishedImage,
    Sealed,
    SealedDisk,
    Unbased,
    Verified,
)
from templates_app.transfer.job import (
    Address,
    BadJob,
    Base,
    Cancel,
    Command,
    Job,
    Join,
    LaneDisk,
    LaneJob,
    Limit,
    Publish,
    SourceDisk,
    SourceJob,
    Stop,
)

from .drive import make_job

GOLDEN = Path(__file__).parent / "golden" / "protocol.jsonl"
EVENTS: list[Event] = [
    Progress({"12": LaneProgress("copying", 1, 2, 3.5, {"write": 0.5})}, 7),
    Phase("12", "verifying"),
    Unbased("12", 0, "CONTENT_CHANGED", "It changed."),
    Sealed([SealedDisk(10, 5, "ab", "/m/ab.manifest", 65536)]),
    Differs("12", 0, 3, 65536),
    Verified("12"),
    Published("12", [PublishedImage("r", "n", 1, "s", "d")], 5, adopted=False),
    Failed(None, "SOURCE_CHANGED", "It changed.", "Retry.", permanent=True, kept=False),
    End(),
]
LANE = LaneJob("1", Address("x", {"a": 1}, {"password": "hunter2"}), [LaneDisk("n", {"m": 1}, "/j")], 7)
BASED: dict[str, Any] = {
    "id": "a",
    "host": {"kind": "memory", "settings": {"place": "source"}, "secrets": {}},
    "disks": [{"name": "n", "mark": {}, "journal": "/j", "base": {"ref": "disk0"}}],
}
COMMANDS: list[Command] = [
    Publish("1"),
    Cancel("1"),
    Stop(),
    Stop("1"),
    Limit(5),
    Limit(5, "1"),
    Join(LANE),
]


JOB = Job(
    SourceJob(Address("x", {"a": 1}, {"password": "p"}), [SourceDisk("disk0", "/m/ab.manifest", "ab")]),
    [
        LANE,
        LaneJob(
            "2",
            Address("x"),
            [LaneDisk("n", {"m": 1}, "/j", base=Base("r", "/m/ab.manifest", "s", proven=False))],
        ),
        LaneJob("3", Address("x"), [LaneDisk("n", {"m": 1}, "/j", have="r")]),
    ],
    "/m",
)


def test_every_line_is_written_as_it_always_was() -> None:
    """A line that changes here speaks another format, unless it only gained a field that may be missing."""
    lines = [JOB.to_line(), *map(job.encode_command, COMMANDS), *map(events.encode, EVENTS)]
    assert b"".join(lines).decode().splitlines() == GOLDEN.read_text().splitlines()


def test_every_old_line_can_be_read() -> None:
    first, *others = GOLDEN.read_bytes().splitlines(keepends=True)
    commands, told = others[: len(COMMANDS)], others[len(COMMANDS) :]
    assert Job.from_line(first) == JOB
    assert [job.decode_command(line) for line in commands] == COMMANDS
    assert [events.decode(line) for line in told] == EVENTS


def test_each_kind_of_line_is_in_the_golden_file() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    assert {type(command) for command in COMMANDS} == set(get_args(Command))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_arrives_as_it_was_sent(event: Event) -> None:
    line = events.encode(event)
    assert line.count(b"\n") == 1
    assert events.decode(line) == event


@pytest.mark.parametrize("command", COMMANDS, ids=repr)
def test_a_command_arrives_as_it_was_sent(command: Command) -> None:
    assert job.decode_command(job.encode_command(command)) == command


@given(
    st.one_of(
        st.binary(), st.recursive(st.none() | st.text(), st.lists).map(lambda it: json.dumps(it).encode())
    )
)
def test_what_is_no_command_is_passed_over(line: bytes) -> None:
    assert job.decode_command(line) is None


def test_a_lane_that_can_not_be_read_is_no_command() -> None:
    assert job.decode_command(b'{"join": {"id": "1", "host": {}, "disks": [{}]}}') is None


@given(st.binary())
def test_what_is_no_event_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="not an event"):
        events.decode(line)


def test_a_job_arrives_as_it_was_sent(tmp_path_factory: pytest.TempPathFactory) -> None:
    sent = make_job(tmp_path_factory.mktemp("job"), ["a", "b"], ["disk0", "disk1"], have=["b"])
    assert Job.from_line(sent.to_line()) == sent


def test_a_lane_on_the_source_host_may_begin_with_the_source_disk(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    sent = json.loads(make_job(tmp_path_factory.mktemp("job"), [], ["disk0"]).to_line())
    (lane,) = Job.from_line(json.dumps(sent | {"lanes": [BASED]}).encode()).lanes
    assert lane.disks[0].base == Base("disk0")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"leaf_size": 65537},
        {"leaf_size": 1 << 30},
        {"stall_seconds": 0},
        {"source": {"host": {"kind": "x"}, "disks": []}},
        {"lanes": [{"id": "a", "host": {"kind": "x"}, "disks": []}]},
        {"lanes": "nonsense"},
        {"lanes": [BASED | {"host": {"kind": "y"}}]},
        {"lanes": [BASED | {"disks": [BASED["disks"][0] | {"base": {"ref": "other"}}]}]},
        {"lanes": [BASED | {"disks": [BASED["disks"][0] | {"base": {"ref": "disk0", "manifest": "/m"}}]}]},
        {"source": None},
        {"source": {"host": None, "disks": [{"ref": "", "manifest": "/m/x", "digest": "x"}]}},
    ],
    ids=repr,
)
def test_a_job_that_makes_no_sense_is_refused(
    tmp_path_factory: pytest.TempPathFactory, change: dict[str, object]
) -> None:
    sent = json.loads(make_job(tmp_path_factory.mktemp("job"), ["a"], ["disk0"]).to_line())
    with pytest.raises(BadJob):
        Job.from_line(json.dumps(sent | change).encode())


def test_two_lanes_never_share_an_id(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(BadJob):
        Job.from_line(make_job(tmp_path_factory.mktemp("job"), ["a", "a"], ["disk0"]).to_line())


def test_secrets_never_show() -> None:
    assert "hunter2" not in repr(Join(LANE))
