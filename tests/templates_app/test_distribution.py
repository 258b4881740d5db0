"""Distribution as administrators order it, on real bytes in folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from providers_app.drivers import open_driver
from providers_app.models import Inventory, Provider
from rasweb.refusals import Refusal
from templates_app import distribution, preflight, settling
from templates_app.creation import NewTemplate, create
from templates_app.models import DistributionTarget, Template, TemplateVersion
from templates_app.reconciler import Reconciler
from templates_app.states import Phase
from templates_app.status import template_status
from tests.templates_app.conftest import BY, OK, SIZE, Drain, Hosts, target_on, words


def test_a_new_template_reaches_every_host_byte_for_byte(
    hosts: Hosts, three: list[Provider], drain: Drain
) -> None:
    [content] = hosts.vm(three[0])
    template = create(NewTemplate("win11", three[0], "golden", targets=three[1:]), BY)
    drain()
    assert words(template) == {"source": OK, "left": OK, "right": OK}
    for provider in three:
        [image] = hosts.images(provider).values()
        assert image == content


def test_published_images_are_sparse(hosts: Hosts, three: list[Provider], template: Template) -> None:
    for provider in three:
        [file] = (file for file in (hosts.path(provider) / "images").glob("win11*"))
        assert file.stat().st_blocks * 512 < file.stat().st_size


def test_the_source_vm_is_never_altered(hosts: Hosts, three: list[Provider], drain: Drain) -> None:
    [content] = hosts.vm(three[0])
    disk = hosts.path(three[0]) / "vms/golden/disk0.raw"
    before = disk.stat()
    create(NewTemplate("win11", three[0], "golden"), BY)
    drain()
    assert disk.read_bytes() == content
    assert (disk.stat().st_mtime_ns, disk.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_several_disks_are_published_together(hosts: Hosts, three: list[Provider], drain: Drain) -> None:
    contents = hosts.vm(three[0], disks=3)
    template = create(NewTemplate("win11", three[0], "golden", targets=three[1:]), BY)
    drain()
    assert set(words(template).values()) == {OK}
    for provider in three:
        assert sorted(hosts.images(provider).values()) == sorted(contents)
    assert len(template_status(template)["targets"][0]["images"]) == 3


def test_before_any_byte_moved_nothing_is_called_ok(ordered: Template) -> None:
    assert set(words(ordered).values()) == {("Ready", "Distributing")}


def test_a_provider_can_be_added_later(hosts: Hosts, template: Template, drain: Drain) -> None:
    late = hosts.add("late")
    distribution.add_providers(template, [late], BY)
    assert words(template)["late"] == ("Ready", "Adding provider")
    drain()
    assert words(template)["late"] == OK
    assert hosts.images(late) == hosts.images(template.source_provider)


def test_a_foreign_file_with_our_exact_name_is_a_conflict_and_stays(
    hosts: Hosts, template: Template, drain: Drain
) -> None:
    late = hosts.add("late")
    [name] = hosts.images(template.source_provider)
    (hosts.path(late) / "images" / name).write_bytes(b"somebody else's")
    distribution.add_providers(template, [late], BY)
    drain()
    target = target_on(template, late)
    assert (target.error_code, words(template)["late"]) == (
        "PATH_CONFLICT",
        ("Needs update", "Failed to distribute"),
    )
    assert hosts.images(late) == {name: b"somebody else's"}


def test_a_failed_host_is_retried_alone(hosts: Hosts, template: Template, drain: Drain) -> None:
    late = hosts.add("late")
    [name] = hosts.images(template.source_provider)
    blocker = hosts.path(late) / "images" / name
    blocker.write_bytes(b"in the way")
    distribution.add_providers(template, [late], BY)
    drain()
    blocker.unlink()
    distribution.retry(target_on(template, late), BY)
    drain()
    assert set(words(template).values()) == {OK}


def test_a_lost_image_needs_an_update_and_retry_brings_it_back(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    [name] = hosts.images(three[1])
    (hosts.path(three[1]) / "images" / name).unlink()
    hosts.check(three[1])
    drain()
    assert words(template)["left"] == ("Needs update", "Failed to distribute")
    assert target_on(template, three[1]).error_code == "CONTENT_LOST"
    distribution.retry(target_on(template, three[1]), BY)
    drain()
    assert set(words(template).values()) == {OK}


def test_an_image_changed_by_hand_gets_a_new_one_beside_it(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    [(name, content)] = hosts.images(three[1]).items()
    with (hosts.path(three[1]) / "images" / name).open("r+b") as image:
        image.write(b"changed by hand")
    hosts.check(three[1])
    drain()
    target = target_on(template, three[1])
    assert (target.error_code, words(template)["left"]) == (
        "CONTENT_CHANGED",
        ("Needs update", "Failed to distribute"),
    )
    distribution.retry(target, BY)
    drain()
    images = hosts.images(three[1])
    assert set(words(template).values()) == {OK}
    assert len(images) == 2
    assert images[name].startswith(b"changed by hand")
    assert images[target_on(template, three[1]).images.get().name] == content


def test_cancelling_an_addition_removes_the_provider_again(
    hosts: Hosts, template: Template, drain: Drain
) -> None:
    late = hosts.add("late")
    distribution.add_providers(template, [late], BY)
    distribution.cancel(target_on(template, late), BY)
    drain()
    assert "late" not in words(template)
    assert hosts.images(late) == {}
    assert hosts.hidden(late) == []


def test_a_cancelled_copy_is_not_called_so_before_what_was_copied_is_gone(
    hosts: Hosts, three: list[Provider], ordered: Template, drain: Drain
) -> None:
    """The host could not delete it at once."""
    target = target_on(ordered, three[1])
    assert target.take(Phase.CHECKING)
    with open_driver("directory", three[1].address().settings) as host:
        host.stage("win11-v1-{digest12}.raw", 4096, ordered.mark(version=1)).close()
    hosts.check(three[1])
    settling.settle_cancelled(target, kept=True)
    assert (target.phase, target.cancel) == (Phase.WAITING, True)
    drain()
    target.refresh_from_db()
    assert (target.phase, target.error_code, hosts.hidden(three[1])) == (Phase.FAILED, "CANCELLED", [])


def test_a_cancelled_copy_leaves_the_images_that_are_there_already(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    """What an attempt for version 1 left behind is called like the image that another one published."""
    target = target_on(template, three[1])
    [image] = target.images.all()
    before = hosts.images(three[1])
    with open_driver("directory", three[1].address().settings) as host:
        host.stage(image.name, SIZE, template.mark(version=1, digest=image.digest)).close()
    assert target.advance(Phase.WAITING, cancel=True)
    drain()
    target.refresh_from_db()
    assert (target.error_code, hosts.images(three[1])) == ("CANCELLED", before)
    assert not [name for name in hosts.hidden(three[1]) if ".part" in name]


def test_cancelling_a_first_distribution_leaves_a_target_to_retry(
    hosts: Hosts, three: list[Provider], ordered: Template, drain: Drain
) -> None:
    distribution.cancel(target_on(ordered, three[1]), BY)
    drain()
    assert target_on(ordered, three[1]).error_code == "CANCELLED"
    assert words(ordered)["left"] == ("Needs update", "Failed to distribute")
    distribution.retry(target_on(ordered, three[1]), BY)
    drain()
    assert set(words(ordered).values()) == {OK}


def test_the_source_stays_in_the_list(template: Template) -> None:
    with pytest.raises(Refusal, match="is the source"):
        distribution.remove_providers(template, [template.source_provider], BY)


def test_properties_apply_adds_and_removes_in_one_order(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    late = hosts.add("late")
    distribution.apply(template, [three[0], three[2], late], 2, BY)
    drain()
    assert words(template) == {"source": OK, "right": OK, "late": OK}
    assert Template.objects.get(pk=template.pk).max_concurrent == 2


def test_the_second_of_two_administrators_sees_a_sentence(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    [name] = hosts.images(three[1])
    (hosts.path(three[1]) / "images" / name).unlink()
    hosts.check(three[1])
    drain()
    first, second = target_on(template, three[1]), target_on(template, three[1])
    distribution.retry(first, BY)
    with pytest.raises(Refusal, match="changed by somebody else"):
        distribution.retry(second, BY)


def test_retry_says_when_the_provider_is_away(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    DistributionTarget.objects.filter(provider=three[1]).update(phase=Phase.FAILED, error_code="NO_SPACE")
    hosts.take_away(three[1])
    for _ in range(3):
        hosts.check(three[1])
    with pytest.raises(Refusal, match="not available"):
        distribution.retry(target_on(template, three[1]), BY)


def test_a_full_host_is_refused_before_a_byte_moves(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain, tmp_path: Path
) -> None:
    Provider.objects.filter(pk=three[1].pk).update(free_bytes=1000)
    three[1].refresh_from_db()
    late = hosts.add("late")
    late.touch(free_bytes=1000)
    finding = preflight.first_obstacle(preflight.findings(template, template.sealed_version, late))
    assert finding is not None
    assert finding.code == "NO_SPACE"
    assert "needs" in finding.text


def test_a_host_without_the_virtual_hardware_is_told_before_a_byte_moves(
    three: list[Provider], template: Template
) -> None:
    """On rows alone: what libvirt hosts said at their last check."""
    Provider.objects.update(kind="libvirt")
    template, late = Template.objects.get(pk=template.pk), Provider.objects.get(pk=three[1].pk)
    version = template.sealed_version
    version.definition = {**version.definition, "memory_mib": 4096}
    assert _finding(template, version, late).ok
    Inventory.objects.filter(provider=late).update(hardware=json.dumps({"memory_mib": 1024, "ways": []}))
    found = _finding(template, version, late)
    assert (found.ok, found.code) == (False, "PREREQUISITE")
    assert found.text.startswith("left has 1024 MiB of memory, the VM 4096 MiB.")
    assert "Choose a larger provider." in found.action


def _finding(template: Template, version: TemplateVersion, provider: Provider) -> preflight.Finding:
    found = {each.check: each for each in preflight.findings(template, version, provider)}
    return found["Virtual hardware"]


@pytest.mark.parametrize(("name", "said"), [("", "blank"), ("a/b", "letters"), ("win11", "exists")])
def test_bad_template_names_are_refused_with_a_sentence(
    hosts: Hosts, template: Template, name: str, said: str
) -> None:
    with pytest.raises(Refusal, match=said):
        create(NewTemplate(name, template.source_provider, "golden"), BY)


def test_a_missing_source_vm_is_refused(three: list[Provider]) -> None:
    with pytest.raises(Refusal, match="no VM"):
        create(NewTemplate("win11", three[0], "nothing"), BY)


def test_properties_made_from_an_older_list_are_refused(
    hosts: Hosts, three: list[Provider], template: Template
) -> None:
    was = [provider.pk for provider in three]
    distribution.remove_providers(template, [three[2]], BY)
    with pytest.raises(Refusal, match="changed by somebody else"):
        distribution.apply(template, three, 4, BY, was=was)


def version_2(template: Template) -> TemplateVersion:
    disks = template.sealed_version.disks
    return TemplateVersion.objects.create(template=template, number=2, disks=disks)


def test_a_target_that_a_worker_moves_during_an_order_wants_the_new_version_too(
    template: Template, three: list[Provider]
) -> None:
    version, waiting, taken = version_2(template), target_on(template, three[1]), []
    waiting.advance(Phase.WAITING)

    def meet(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if sql.startswith("UPDATE") and not taken:
            taken.append(sql)
            taken.append(waiting.take(Phase.CHECKING))
        return execute(sql, *args)

    with connection.execute_wrapper(meet):
        distribution.want_version(template, version, BY)
    met = target_on(template, three[1])
    assert (taken[1:], met.phase, met.wanted_version) == ([True], Phase.CHECKING, version)


def test_a_host_that_was_left_at_an_older_version_is_brought_to_the_current_one(
    template: Template, three: list[Provider], drain: Drain
) -> None:
    Template.objects.filter(pk=template.pk).update(current_version=version_2(template))
    Reconciler().run()
    left = target_on(template, three[1])
    assert left.wanted_version == Template.objects.get(pk=template.pk).current_version
    assert words(template)["left"] == ("Ready", "Distributing")
