"""New versions on hosts that hold an older one: the hosts make the copies, and are sent what changed."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from providers_app.models import Provider
from templates_app import lanes, maintenance
from templates_app.models import (
    DiskVersion,
    DistributionTarget,
    Event,
    PublishedImage,
    Template,
    TemplateVersion,
)
from templates_app.transfer.job import LEAF_SIZE, Base
from tests.templates_app.conftest import BY, OK, SIZE, Drain, Hosts, target_on, words


def renew(template: Template, drain: Drain, *offsets: int) -> Template:
    """Make a new version in which a few bytes at these offsets are others."""
    maintenance.enter(Template.objects.get(pk=template.pk), BY)
    drain()
    entered = Template.objects.get(pk=template.pk)
    folder = Path(entered.source_provider.settings["path"]) / "vms" / f"{entered.name}-maintenance"
    with (folder / "disk0.raw").open("r+b") as disk:
        for offset in offsets:
            disk.seek(offset)
            disk.write(os.urandom(16))
    maintenance.leave(entered, maintenance.NEW_VERSION, BY)
    drain()
    return Template.objects.get(pk=template.pk)


def story(template: Template, provider: Provider) -> list[str]:
    """The sentences of a target's history that tell of bytes, the newest first."""
    about = Event.objects.filter(template=template, provider=provider, note__contains="bytes")
    return [event.note for event in about.order_by("-pk")]


def sent(note: str) -> int:
    found = re.search(r"\((\d+) bytes\) sent", note)
    assert found, note
    return int(found[1])


def current_images(hosts: Hosts, template: Template) -> list[bytes]:
    return [
        hosts.images(target.provider)[target.images.get(version=template.sealed_version).name]
        for target in template.targets.select_related("provider")
    ]


def test_hosts_make_versions_by_themselves_and_are_sent_only_changes_unless_they_were_tampered_with(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    assert story(template, three[0]) == [
        "Version 1 was sealed here: copied by the host itself, 0 B (0 bytes) sent."
    ]
    template = renew(template, drain, 10, 900_000)
    assert set(words(template).values()) == {OK}
    assert len(set(current_images(hosts, template))) == 1
    assert sent(story(template, three[0])[0]) == 0
    for host in three[1:]:
        note = story(template, host)[0]
        assert sent(note) == 2 * LEAF_SIZE
        assert note.startswith("Version 2:")
        assert note.endswith("sent, built on version 1.")

    (hosts.path(three[1]) / target_on(template, three[1]).images.get(version__number=2).ref).write_bytes(
        b"by hand"
    )
    template = renew(template, drain, 20)
    assert set(words(template).values()) == {OK}
    assert len(set(current_images(hosts, template))) == 1
    note = story(template, three[1])[0]
    assert sent(note) > 500_000
    assert note.endswith(
        "It could not be built on version 2 there: The image was changed since it was published."
    )
    assert sent(story(template, three[2])[0]) == LEAF_SIZE


def test_a_host_two_versions_behind_gets_the_difference_in_one_step(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    hosts.take_away(three[2])
    hosts.check(*[three[2]] * 3)
    template = renew(template, drain, 10)
    template = renew(template, drain, 20, 900_000)
    hosts.bring_back(three[2])
    hosts.check(three[2])
    drain()
    assert set(words(template).values()) == {OK}
    assert len(set(current_images(hosts, template))) == 1
    assert sent(story(template, three[2])[0]) == 2 * LEAF_SIZE
    assert story(template, three[2])[0].endswith("built on version 1.")

    for path in lanes.folder("manifests").iterdir():
        os.utime(path, (0, 0))
    (lanes.folder("manifests") / "of-nothing.manifest").touch()
    os.utime(lanes.folder("manifests") / "of-nothing.manifest", (0, 0))
    lanes.sweep_manifests()
    kept = {path.name for path in lanes.folder("manifests").iterdir()}
    assert kept == {disk["manifest"] for version in template.versions.all() for disk in version.disks}


# What to begin with


def held(target: DistributionTarget, number: int, **about: object) -> TemplateVersion:
    """A version of which the target's host holds an image."""
    disk = DiskVersion("disk0.raw", "raw", SIZE, SIZE, f"{number:064}", f"{number}.manifest")
    disks = [asdict(disk) | about]
    version = TemplateVersion.objects.create(template=target.template, number=number, disks=disks)
    image = {
        "name": f"v{number}",
        "ref": f"images/v{number}",
        "stamp": "s",
        "size": SIZE,
        "digest": disk.digest,
    }
    PublishedImage.objects.create(target=target, version=version, disk=0, **image)
    return version


@pytest.fixture
def target(ordered: Template, three: list[Provider]) -> DistributionTarget:
    return target_on(ordered, three[1])


@pytest.mark.parametrize(
    ("numbers", "wanted", "nearest"), [([1, 2], 3, 2), ([1, 3], 2, 3), ([2], 1, 2), ([1, 4], 2, 1)]
)
def test_the_nearest_version_is_what_to_begin_with(
    target: DistributionTarget, numbers: list[int], wanted: int, nearest: int
) -> None:
    for number in numbers:
        held(target, number)
    target.wanted_version = held(target, wanted)
    found = lanes.basis(target)
    assert found
    assert found.label == f"version {nearest}"
    assert found.disks == {0: Base(f"images/v{nearest}", lanes.manifest_path(_disk(target, nearest)), "s")}


def _disk(target: DistributionTarget, number: int) -> DiskVersion:
    return target.template.versions.get(number=number).disk_versions[0]


@pytest.mark.parametrize("about", [{"size": 7}, {"format": "qcow2"}])
def test_a_disk_of_another_size_or_format_is_nothing_to_begin_with(
    target: DistributionTarget, about: dict[str, object]
) -> None:
    held(target, 1, **about)
    target.wanted_version = held(target, 2)
    assert lanes.basis(target) is None


def test_an_image_in_doubt_is_nothing_to_begin_with(target: DistributionTarget) -> None:
    target.spoil(held(target, 1))
    target.wanted_version = held(target, 2)
    assert lanes.basis(target) is None
