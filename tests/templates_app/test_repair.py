"""Images that are not what they should be, and images that are there already."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from providers_app import connections
from providers_app.models import Provider
from rasweb.refusals import Refusal
from templates_app import creation, distribution, guests, maintenance, verification
from templates_app.creation import NewTemplate
from templates_app.models import DistributionTarget, Event, Template
from templates_app.states import Phase
from tests.templates_app.conftest import BY, SIZE, Drain, Hosts, target_on, words


def the_image(hosts: Hosts, target: DistributionTarget) -> Path:
    return hosts.path(target.provider) / "images" / target.images.get(spoilt=False).name


def rot(image: Path, offset: int = 800_000) -> None:
    """Change bytes as a failing disk does: no stamp tells."""
    before = image.stat()
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(b"rot")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_rotted_is_replaced_on_retry_and_then_removed(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    target = target_on(template, template.source_provider)  # the others hold the version too
    image = the_image(hosts, target)
    content = image.read_bytes()
    rot(image)
    rows = {row["provider"]: row for row in verification.verify(template)}
    assert [name for name, row in rows.items() if not row["ok"]] == ["source"]
    assert not guests.holds(template, target.provider, template.sealed_version)
    with pytest.raises(Refusal) as refused:
        maintenance.enter(template, BY)
    assert refused.value.code == "NOT_INSTALLED"
    distribution.retry(target_on(template, target.provider), BY)
    drain()
    assert set(words(template).values()) == {("Ready", "OK")}
    assert hosts.images(target.provider) == {image.name.replace(".raw", "-1.raw"): content}
    note = Event.objects.filter(provider=target.provider, note__contains="sent")[0].note
    assert note.endswith("(65536 bytes) sent, built on the damaged image.")
    assert target.images.get().digest == template.sealed_version.digest
    assert guests.holds(template, target.provider, template.sealed_version)


@pytest.mark.parametrize(("harm", "code"), [(rot, "CONTENT_CHANGED"), (Path.unlink, "CONTENT_LOST")])
def test_another_holder_is_read_where_the_first_turns_out_not_to_be_intact(
    hosts: Hosts,
    three: list[Provider],
    template: Template,
    drain: Drain,
    harm: Callable[[Path], None],
    code: str,
) -> None:
    home, late = target_on(template, three[0]), hosts.add("late")
    harm(the_image(hosts, home))
    distribution.add_providers(template, [late], BY)
    drain()
    assert words(template) == dict.fromkeys(("left", "right", "late"), ("Ready", "OK")) | {
        "source": ("Needs update", "Failed to distribute")
    }
    assert hosts.images(late) == hosts.images(three[1])
    assert target_on(template, three[0]).error_code == code
    assert not home.held(template.sealed_version).exists()
    assert Event.objects.filter(provider=late, note__contains="goes on from another provider").count() == 1
    distribution.retry(target_on(template, three[0]), BY)
    drain()
    assert words(template)["source"] == ("Ready", "OK")


def test_where_nobody_turns_out_to_be_intact_a_target_fails_and_says_so(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    for provider in three:
        rot(the_image(hosts, target_on(template, provider)))
    late = hosts.add("late")
    distribution.add_providers(template, [late], BY)
    drain()
    target = target_on(template, late)
    assert (target.phase, target.error_code) == (Phase.FAILED, "SOURCE_CHANGED")
    assert target.error_text == "No provider holds an intact image of version 1."
    assert {target_on(template, provider).error_code for provider in three} == {"CONTENT_CHANGED"}


def test_an_image_that_was_only_touched_is_used_again(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    target = target_on(template, three[1])
    image = the_image(hosts, target)
    image.touch()
    hosts.check(three[1])
    drain()
    assert target_on(template, three[1]).error_code == "CONTENT_CHANGED"
    distribution.retry(target_on(template, three[1]), BY)
    drain()
    hosts.check(three[1])
    drain()
    assert words(template)["left"] == ("Ready", "OK")
    assert the_image(hosts, target) == image
    assert Event.objects.filter(provider=three[1], note__contains="was there already").exists()


def test_the_only_image_is_used_again_once_it_was_restored(
    hosts: Hosts, three: list[Provider], drain: Drain
) -> None:
    hosts.vm(three[0])
    template = creation.create(NewTemplate("alone", three[0], "golden", multi_provider=False), BY)
    drain()
    image = the_image(hosts, target_on(template, three[0]))
    content = image.read_bytes()
    image.touch()
    hosts.check(three[0])
    drain()
    distribution.retry(target_on(template, three[0]), BY)
    drain()
    assert target_on(template, three[0]).phase == Phase.INSTALLED
    rot(image)
    verification.verify(template)
    distribution.retry(target_on(template, three[0]), BY)
    drain()
    target = target_on(template, three[0])
    assert (target.phase, target.error_code) == (Phase.FAILED, "SOURCE_CHANGED")
    assert target.error_text == "No provider holds an intact image of version 1."
    image.write_bytes(content)
    distribution.retry(target, BY)
    drain()
    assert target_on(template, three[0]).phase == Phase.INSTALLED
    assert content in hosts.images(three[0]).values()
    lost = the_image(hosts, target_on(template, three[0]))
    aside = lost.rename(lost.with_name(".aside"))
    hosts.check(three[0])
    drain()
    assert target_on(template, three[0]).error_code == "CONTENT_LOST"
    distribution.retry(target_on(template, three[0]), BY)
    drain()
    assert target_on(template, three[0]).error_code == "SOURCE_MISSING"
    aside.rename(lost)
    distribution.retry(target_on(template, three[0]), BY)
    drain()
    assert target_on(template, three[0]).phase == Phase.INSTALLED


def test_what_was_left_behind_is_used_if_it_is_right_and_left_alone_if_not(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    for provider in three[1:]:
        distribution.forget(provider, BY)
    damaged = next((hosts.path(three[2]) / "images").glob("win11-*"))
    with damaged.open("r+b") as file:
        file.write(b"changed by hand")
    kept = damaged.read_bytes()
    again = {}
    for name, provider in (("left-again", three[1]), ("right-again", three[2])):
        again[name] = connections.add(name, "directory", provider.settings)
    hosts.check(*again.values())
    distribution.add_providers(template, list(again.values()), BY)
    drain()
    assert words(template)["left-again"] == words(template)["right-again"] == ("Ready", "OK")
    notes = "".join(Event.objects.filter(provider=again["left-again"]).values_list("note", flat=True))
    assert "was there already" in notes
    assert hosts.images(again["right-again"])[damaged.name] == kept
    assert len(hosts.images(again["right-again"])) == 2
    notes = "".join(Event.objects.filter(provider=again["right-again"]).values_list("note", flat=True))
    assert "A new one is put beside it" in notes
    assert "was changed by hand and stays there" in notes


def test_an_image_that_was_carried_there_with_its_note_is_not_sent(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    late = hosts.add("late")
    for file in (hosts.path(three[1]) / "images").iterdir():
        shutil.copy(file, hosts.path(late) / "images")
    distribution.add_providers(template, [late], BY)
    drain()
    assert Event.objects.filter(provider=late, note__contains="was there already").exists()
    assert target_on(template, late).phase == Phase.INSTALLED


def test_of_several_disks_only_the_missing_one_is_sent(
    hosts: Hosts, three: list[Provider], drain: Drain
) -> None:
    contents = hosts.vm(three[0], disks=2)
    template = creation.create(NewTemplate("pair", three[0], "golden", targets=three[1:2]), BY)
    drain()
    target = target_on(template, three[1])
    (hosts.path(three[1]) / "images" / target.images.get(disk=1).name).unlink()
    DistributionTarget.objects.filter(pk=target.pk).update(phase=Phase.WAITING)  # as after a lost row
    target.images.all().delete()
    hosts.check(three[1])
    drain()
    assert sorted(hosts.images(three[1]).values()) == sorted(contents)
    note = Event.objects.filter(provider=three[1], to_phase=Phase.INSTALLED)[0].note
    [sent] = re.findall(r"\((\d+) bytes\) sent", note)
    assert 0 < int(sent) <= SIZE
