"""Providers and templates that are taken away: what goes, what stays, and what is owed."""

from __future__ import annotations

import pytest
from django.db.models.signals import post_delete

from providers_app.drivers import open_driver
from providers_app.models import Provider
from rasweb.refusals import Refusal
from templates_app import distribution, guests, maintenance, removal
from templates_app.models import DistributionTarget, Event, PublishedImage, Template
from templates_app.states import TemplatePhase
from tests.templates_app.conftest import BY, OK, Drain, Hosts, target_on, words


def test_removing_a_provider_deletes_our_files_and_nothing_else(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    folder = hosts.path(three[1]) / "images"
    (folder / "foreign.raw").write_bytes(b"not ours")
    (folder / ".hidden").write_bytes(b"not ours either")
    distribution.remove_providers(template, [three[1]], BY)
    assert words(template)["left"] == ("Ready", "Removing provider")
    drain()
    assert "left" not in words(template)
    assert sorted(file.name for file in folder.iterdir()) == [".hidden", "foreign.raw"]
    assert words(template)["right"] == OK


def test_nothing_is_left_of_an_image_that_was_deleted_by_hand(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    folder = hosts.path(three[1]) / "images"
    [image] = folder.glob("win11*")
    image.unlink()
    hosts.check(three[1])
    distribution.remove_providers(template, [three[1]], BY)
    drain()
    assert not template.targets.filter(provider=three[1]).exists()
    assert list(folder.iterdir()) == []


def test_a_removal_is_owed_to_a_provider_that_is_away(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    hosts.take_away(three[2])
    for _ in range(3):
        hosts.check(three[2])
    distribution.remove_providers(template, [three[2]], BY)
    drain()
    assert words(template)["right"] == ("Not available", "Removing provider")
    assert target_on(template, three[2]).owed
    hosts.bring_back(three[2])
    hosts.check(three[2])
    drain()
    assert "right" not in words(template)
    assert hosts.images(three[2]) == {}


def test_adding_again_takes_a_removal_back(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    distribution.remove_providers(template, [three[1]], BY)
    distribution.add_providers(template, [three[1]], BY)
    assert words(template)["left"] == ("Ready", "Adding provider")
    drain()
    assert words(template)["left"] == OK
    assert Event.objects.filter(provider=three[1], note__contains="there already").exists()


def test_an_image_changed_by_hand_is_not_deleted_without_asking(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    [name] = hosts.images(three[1])
    with (hosts.path(three[1]) / "images" / name).open("r+b") as image:
        image.write(b"changed by hand")
    hosts.check(three[1])
    drain()
    distribution.remove_providers(template, [three[1]], BY)
    drain()
    target = target_on(template, three[1])
    assert target.error_code == "CONTENT_CHANGED"
    assert name in hosts.images(three[1])
    distribution.force_removal(target, BY)
    drain()
    assert hosts.images(three[1]) == {}
    assert "left" not in words(template)


def test_deleting_a_template_takes_its_images_everywhere(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    distribution.delete(template, BY)
    drain()
    assert not Template.objects.exists()
    for provider in three:
        assert hosts.images(provider) == {}
        assert hosts.hidden(provider) == []
    assert Event.objects.filter(to_phase="deleted").exists()


def test_a_deleted_template_stays_listed_while_a_removal_is_owed(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    hosts.take_away(three[2])
    for _ in range(3):
        hosts.check(three[2])
    distribution.delete(template, BY)
    drain()
    assert Template.objects.get().phase == TemplatePhase.DELETING
    hosts.bring_back(three[2])
    hosts.check(three[2])
    drain()
    assert not Template.objects.exists()


def old_image(target: DistributionTarget, digest: str) -> PublishedImage:
    """An image that a new one was put beside."""
    name, version = f"win11-v1-{digest}.raw", target.template.current_version
    known = {"name": name, "ref": f"images/{name}", "size": 1, "digest": digest, "spoilt": True}
    return target.images.create(version=version, disk=0, **known)


def test_nothing_is_retired_in_maintenance(three: list[Provider], template: Template, drain: Drain) -> None:
    """The order to do it was given before."""
    target = target_on(template, three[1])
    old_image(target, "0123456789ab")
    maintenance.enter(template, BY)
    for _ in range(2):
        removal.retire(target.pk)
        assert target.images.count() == 2
        drain()
    maintenance.leave(Template.objects.get(pk=template.pk), maintenance.DISCARD, BY)
    drain()
    removal.retire(target.pk)
    assert target.images.count() == 1


def test_retiring_ends_where_maintenance_begins(three: list[Provider], template: Template) -> None:
    target = target_on(template, three[1])
    old_image(target, "0123456789ab")
    old_image(target, "ba9876543210")

    def enter(**_: object) -> None:
        maintenance.enter(template, BY)

    post_delete.connect(enter, sender=PublishedImage)
    removal.retire(target.pk)
    post_delete.disconnect(enter, sender=PublishedImage)
    assert target.images.filter(spoilt=True).count() == 1
    assert target_on(template, three[1]).claim is None


def test_a_source_that_will_not_come_back_is_forgotten_with_the_templates_it_owes(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    hosts.take_away(three[0])
    for _ in range(3):
        hosts.check(three[0])
    with pytest.raises(Refusal, match="is the source of win11"):
        distribution.forget(three[0], BY)
    distribution.delete(template, BY)
    with pytest.raises(Refusal, match="is the source of win11"):
        distribution.forget(three[0], BY)  # others can still delete what they hold
    drain()
    assert list(words(template)) == ["source"]
    assert distribution.forget(three[0], BY)
    assert not Template.objects.exists()
    assert not Provider.objects.filter(name="source").exists()
    assert Event.objects.filter(to_phase="deleted", template_name="win11").exists()


def test_forgetting_a_provider_leaves_its_files_and_names_them(
    hosts: Hosts, three: list[Provider], template: Template, drain: Drain
) -> None:
    [name] = hosts.images(three[1])
    guests.create(template, three[1], 1, BY)
    drain()
    with open_driver("directory", three[1].address().settings) as host:
        host.stage("win11-v2-{digest12}.raw", 4096, template.mark(version=2)).close()
    hosts.check(three[1])
    left = distribution.forget(three[1], BY)
    assert any(ref.endswith(name) for ref in left)
    assert name in hosts.images(three[1])
    assert not Provider.objects.filter(name="left").exists()
    told = Event.objects.filter(to_phase="forgotten", provider_name="left").values_list("note", flat=True)
    assert len(left) == 3
    assert all(any(ref in note for note in told) for ref in left)
