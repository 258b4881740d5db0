"""What the commands answer: stable JSON, exit status 0 or 1, one sentence when they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from providers_app.models import Provider
from templates_app import distribution
from templates_app.models import DistributionTarget, GuestVM, Template
from templates_app.states import GuestPhase
from tests.commands.conftest import Order
from tests.templates_app.conftest import Hosts

TEMPLATE = {
    "template", "status", "distribution", "version", "counts", "guests", "outdated_guests", "recreation",
    "working_copy", "error", "targets",
}  # fmt: skip
COUNTS = {
    "total", "ok", "distributing", "adding", "removing", "failed", "not_available", "running", "waiting",
}  # fmt: skip
TARGET = {
    "provider", "state", "progress", "percent", "bytes_done", "bytes_total", "rate", "timing",
    "installed_version", "image", "digest", "images", "error",
}  # fmt: skip
PROVIDER = {
    "name", "kind", "state", "enabled", "last_seen", "free_bytes", "total_bytes", "capabilities", "networks",
    "bandwidth_limit", "max_copies", "error",
}  # fmt: skip
GUEST = {"name", "template", "provider", "version", "outdated", "state", "power", "ref", "error"}

ON_A_TEMPLATE = [
    "status NAME", "add-provider NAME left", "remove-provider NAME left", "retry NAME", "cancel NAME left",
    "verify NAME", "maintenance NAME enter", "maintenance NAME leave --discard", "recreate NAME",
    "recreate NAME --later", "delete NAME",
]  # fmt: skip


WRONG = {
    "provider add left --kind directory --set path={root}/left": "SAME_HOST",
    "provider add x --kind nope": "BAD_INPUT",
    "provider add x --kind directory": "BAD_INPUT",
    "provider add x --kind directory --set path": "BAD_INPUT",
    "provider add x --kind directory --set colour=red": "BAD_INPUT",
    "provider add x --kind directory --set path=/etc": "PREREQUISITE",
    "provider check left nobody": "MISSING",
    "provider remove nobody": "MISSING",
    "provider remove left": "IN_USE",
    "template create t --source golden": "BAD_INPUT",
    "template create t --source nobody:golden": "MISSING",
    "template create t --source source:nothing": "SOURCE_MISSING",
    "template create t --source source:golden --target nobody": "MISSING",
    "template create win11 --source source:golden": "BAD_INPUT",
    "template create bad/name --source source:golden": "BAD_INPUT",
    "template create t --source source:golden --concurrent 0": "BAD_INPUT",
    "template add-provider win11 nobody": "MISSING",
    "template remove-provider win11 source": "SOURCE",
    "template retry win11 left": "NOT_FAILED",
    "template retry win11 nobody": "MISSING",
    "template cancel win11 left": "NOT_RUNNING",
    "template maintenance win11 leave": "BAD_INPUT",
    "template maintenance win11 shut-down": "NOT_IN_MAINTENANCE",
    "template maintenance win11 leave --new-version --discard": "BAD_INPUT",
    "template recreate win11": "NOTHING_TO_DO",
    "guest create win11 --provider nobody": "MISSING",
    "guest create win11 --provider left --count 0": "BAD_INPUT",
    "guest create win11 --provider left --prefix ../up": "BAD_INPUT",
    "guest delete nobody": "MISSING",
}


def test_a_templates_status_has_these_keys_and_no_other(template: Template, order: Order) -> None:
    answer = order("template", "status", "win11", "--json").json
    assert set(answer) == TEMPLATE
    assert set(answer["counts"]) == COUNTS
    assert [set(target) for target in answer["targets"]] == [TARGET] * 3
    assert set(answer["targets"][0]["images"][0]) == {"disk", "image", "digest", "size"}
    assert order("template", "status", "--json").json == [answer]


def test_the_words_and_figures_are_those_of_the_rows(
    template: Template, hosts: Hosts, three: list[Provider], order: Order
) -> None:
    answer = order("template", "status", "win11", "--json").json
    left = {target["provider"]: target for target in answer["targets"]}["left"]
    assert (answer["status"], answer["distribution"], answer["version"]) == ("Ready", "OK", 1)
    assert (left["state"], left["progress"], left["percent"], left["error"]) == ("Ready", "OK", 100.0, None)
    assert left["image"] == str(next((hosts.path(three[1]) / "images").glob("win11-v1-*.raw")))
    assert left["image"].endswith(f"{left['digest'][:12]}.raw")


def test_a_failure_is_a_code_a_text_and_an_action(template: Template, order: Order) -> None:
    DistributionTarget.objects.filter(provider__name="left").update(
        phase="failed", error_code="NO_SPACE", error_text="Full.", error_action="Free some."
    )
    answer = order("template", "status", "win11", "--json").json
    [left] = [target for target in answer["targets"] if target["provider"] == "left"]
    assert left["error"] == {"code": "NO_SPACE", "text": "Full.", "action": "Free some."}
    assert (left["state"], left["progress"]) == ("Needs update", "Failed to distribute")
    assert (answer["distribution"], answer["counts"]["failed"]) == ("Failed to distribute", 1)


def test_people_get_a_table(template: Template, order: Order) -> None:
    heading, row, _, columns, *targets = order("template", "status", "win11").out.splitlines()
    assert heading.split()[:3] == ["TEMPLATE", "STATUS", "DISTRIBUTION"]
    assert row.split()[:3] == ["win11", "Ready", "OK"]
    assert columns.split()[:3] == ["PROVIDER", "STATE", "PROGRESS"]
    assert len(targets) == 3
    assert "3 of 3" in order("template", "status").out


@pytest.mark.usefixtures("db")
def test_an_empty_list_says_so(order: Order) -> None:
    assert order("template", "status").out == order("guest", "list").out == "None.\n"
    assert order("template", "status", "--json").json == []


def test_providers_and_guests_have_these_keys_and_no_other(template: Template, order: Order) -> None:
    assert [set(row) for row in order("provider", "list", "--json").json] == [PROVIDER] * 3
    order("guest", "create", "win11", "--provider", "left", "--count", 2)
    assert [set(row) for row in order("guest", "list", "--json").json] == [GUEST] * 2
    assert len(order("guest", "list", "--template", "win11", "--provider", "right", "--json").json) == 0


def test_a_host_is_added_checked_and_removed(hosts: Hosts, order: Order) -> None:
    folder = hosts.root / "new"
    folder.mkdir()
    added = order("provider", "add", "new", "--kind", "directory", "--set", f"path={folder}", "--json").json
    assert (set(added), added["state"]) == (PROVIDER, "Ready")
    assert order("provider", "disable", "new", "--json").json["state"] == "Disabled"
    assert order("provider", "enable", "new", "--json").json["state"] == "Ready"
    folder.rename(hosts.root / "away")
    for _ in range(3):
        silent = order("provider", "check", "new", "--json")
    assert (silent.status, silent.json[0]["state"]) == (1, "Not available")
    assert silent.json[0]["error"]["code"] == "UNREACHABLE"
    assert order("provider", "remove", "new").out == "new was removed.\n"


def test_forget_names_what_stays_on_the_host(template: Template, order: Order) -> None:
    assert order("provider", "remove", "left", "--json").refused == "IN_USE"
    left = order("provider", "forget", "left", "--json").json
    assert (set(left), left["provider"]) == ({"provider", "left_behind"}, "left")
    assert [ref.startswith("images/win11-v1-") for ref in left["left_behind"]] == [True]
    assert order("provider", "forget", "source", "--json").refused == "SOURCE"


def test_verify_reads_every_image_and_tells_which_differ(
    template: Template, hosts: Hosts, three: list[Provider], order: Order
) -> None:
    distribution.set_concurrent(template, 2, "test")
    rows = order("template", "verify", "win11", "--json").json
    keys = {"provider", "ok", "digest", "code", "text", "bad_leaves", "first_bad"}
    assert [set(row) for row in rows] == [keys] * 3
    assert all(row["ok"] and row["bad_leaves"] == 0 for row in rows)
    left, right = (next((hosts.path(three[at]) / "images").glob("win11-v1-*.raw")) for at in (1, 2))
    with left.open("r+b") as file:
        for offset in (3 * 65536, 15 * 65536 + 7):
            file.seek(offset)
            file.write(b"other")
    right.unlink()
    spoilt = order("template", "verify", "win11", "--json")
    assert spoilt.status == 1
    by_provider = {row["provider"]: row for row in spoilt.json}
    assert {name: row["code"] for name, row in by_provider.items()} == {
        "left": "CONTENT_CHANGED", "right": "CONTENT_LOST", "source": None,
    }  # fmt: skip
    assert by_provider["left"]["bad_leaves"] == 2
    assert by_provider["left"]["first_bad"] == {"disk": 0, "offset": 3 * 65536}
    assert "2 of 16 blocks are wrong, from byte 196608 on" in by_provider["left"]["text"]
    assert set(template.targets.values_list("phase", flat=True)) == {"installed", "failed"}


@pytest.mark.usefixtures("db")
def test_an_unknown_template_is_one_sentence(order: Order) -> None:
    for words in ON_A_TEMPLATE:
        assert order("template", *words.replace("NAME", "nobody").split(), "--json").refused == "MISSING"


def test_nothing_else_goes_on_in_maintenance(template: Template, order: Order) -> None:
    assert order("template", "maintenance", "win11", "enter").status == 0
    codes = {"cancel NAME left": "NOT_RUNNING", "maintenance NAME leave --discard": "NOT_IN_MAINTENANCE"}
    for words in ON_A_TEMPLATE[1:]:
        refused = order("template", *words.replace("NAME", "win11").split(), "--json").refused
        assert refused == codes.get(words, "MAINTENANCE"), words
    assert order("guest", "create", "win11", "--provider", "left", "--json").refused == "MAINTENANCE"


def test_wrong_orders_are_refused_with_a_code_and_change_nothing(
    template: Template, hosts: Hosts, order: Order
) -> None:
    before = (Provider.objects.count(), Template.objects.count(), GuestVM.objects.count())
    for words, code in WRONG.items():
        assert order(*words.format(root=hosts.root).split(), "--json").refused == code, words
    assert (Provider.objects.count(), Template.objects.count(), GuestVM.objects.count()) == before


def test_what_is_wrong_with_an_argument_says_which(template: Template, order: Order) -> None:
    refused = order("template", "create", "t", "--source", "source:golden", "--concurrent", "0")
    assert refused.err.startswith("Max concurrent: ")
    refused = order("template", "create", "bad/name", "--source", "source:golden")
    assert refused.err.startswith("Name: ")


@pytest.mark.parametrize(
    "words",
    [
        "template",
        "provider",
        "guest",
        "template create",
        "template create t",
        "template create t --source a:b --concurrent many",
        "template create t --source a:b --clone half",
        "template create t --source a:b --timeout soon",
        "template add-provider win11",
        "template maintenance win11 sideways",
        "template frobnicate",
        "template status --nonsense",
        "guest create win11",
        "guest create win11 --provider left --count x",
        "provider add x",
    ],
)
def test_wrong_arguments_are_one_sentence(order: Order, words: str) -> None:
    answer = order(*words.split())
    assert (answer.status, answer.out) == (1, "")
    assert answer.err.endswith(". See --help.\n")
    assert answer.err.count("\n") == 1


def test_guests_on_a_provider_are_named_before_it_is_removed(
    template: Template, drain: Callable[[], None], order: Order
) -> None:
    order("guest", "create", "win11", "--provider", "left", "--count", 2, "--prefix", "desk")
    drain()
    assert order("template", "remove-provider", "win11", "left", "--json").refused == "GUESTS"
    assert "desk-001, desk-002" in order("template", "delete", "win11").err
    assert order("template", "remove-provider", "win11", "left", "--delete-guests").status == 0
    drain()
    assert not GuestVM.objects.exists()
    assert len(order("template", "status", "win11", "--json").json["targets"]) == 2


def test_the_same_guest_name_on_two_providers_asks_which(template: Template, order: Order) -> None:
    for provider in Provider.objects.exclude(name="source"):
        GuestVM.objects.create(
            name="desk", template=template, provider=provider, version=template.current_version, phase=GuestPhase.READY
        )  # fmt: skip
    assert order("guest", "delete", "desk", "--json").refused == "AMBIGUOUS"
    [row] = order("guest", "delete", "desk", "--provider", "left", "--json").json
    assert (row["provider"], row["state"]) == ("left", "Deleting")


def test_waiting_ends_in_time_and_says_that_the_work_goes_on(ordered: Template, order: Order) -> None:
    answer = order("template", "retry", "win11", "--wait", "--timeout", "0.1", "--json")
    assert answer.refused == "TIMEOUT"
    assert "the work goes on" in answer.err


def test_a_template_that_was_not_made_says_why(ordered: Template, order: Order) -> None:
    fault = {
        "error_code": "NO_SPACE",
        "error_text": "source is too full.",
        "error_action": "Free some space.",
    }
    Template.objects.filter(pk=ordered.pk).update(phase="create_failed", **fault)
    assert "source is too full. Free some space." in order("template", "status", "win11").out.splitlines()


def test_limits_are_set_for_one_host_and_for_all_copies(hosts: Hosts, order: Order) -> None:
    hosts.add("left")
    limited = order("provider", "limit", "left", "--bandwidth", 1000, "--copies", 3, "--json").json
    assert (limited["bandwidth_limit"], limited["max_copies"]) == (1000, 3)
    assert order("provider", "limit", "left", "--copies", 0, "--json").refused == "BAD_INPUT"
    assert order("provider", "limit", "--bandwidth", 5000, "--json").json == {"bandwidth_limit": 5000}
    assert order("provider", "limit", "--bandwidth", -1, "--json").refused == "BAD_INPUT"
    assert order("provider", "limit", "--copies", 1, "--json").refused == "BAD_INPUT"
    assert order("provider", "limit", "--json").json == {"bandwidth_limit": 5000}
