"""Installed images are read again by themselves, when nothing else wants their host."""

from __future__ import annotations

import os
import uuid
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from providers_app.drivers.directory.driver import Directory
from providers_app.models import Provider
from templates_app import scrub, tasks, verification
from templates_app.models import DistributionTarget, Event, Template, TemplateVersion
from templates_app.models.work import process_name
from templates_app.states import Phase, TemplatePhase
from tests.templates_app.conftest import Drain, Hosts, target_on, words


def verified(target: DistributionTarget, days: float) -> DistributionTarget:
    DistributionTarget.objects.filter(pk=target.pk).update(verified_at=timezone.now() - timedelta(days=days))
    return target


@pytest.fixture
def old(template: Template, three: list[Provider]) -> DistributionTarget:
    """A target that was verified longest ago, beside one that is due too and one that is not."""
    verified(target_on(template, three[2]), 31)
    return verified(target_on(template, three[1]), 40)


@pytest.fixture
def rows(hosts: Hosts) -> DistributionTarget:
    """The same as rows alone: no image is behind them."""
    source, left = hosts.add("source"), hosts.add("left")
    template = Template.objects.create(
        name="win11", source_provider=source, source_vm="golden", phase=TemplatePhase.CREATING
    )
    version = TemplateVersion.objects.create(template=template, number=1)
    Template.objects.update(phase=TemplatePhase.READY, current_version=version)
    for provider in (source, left):
        DistributionTarget.objects.create(
            template=template,
            provider=provider,
            phase=Phase.INSTALLED,
            wanted_version=version,
            installed_version=version,
            verified_at=timezone.now(),
        )
    return verified(target_on(template, left), 40)


def due() -> list[int]:
    return [pk for _, pk in scrub.due()]


def test_each_image_is_read_again_in_time_the_oldest_first(
    old: DistributionTarget, three: list[Provider], drain: Drain
) -> None:
    assert due() == [old.pk]
    drain()
    assert due() == []
    ages = [timezone.now() - target.verified_at for target in old.template.targets.all()]
    assert max(ages) < timedelta(days=1)
    notes = Event.objects.filter(note="Verified.").values_list("provider__name", flat=True)
    assert list(notes) == ["right", "left"]  # the newest first


def test_what_rotted_needs_an_update_and_history_says_so(
    hosts: Hosts, old: DistributionTarget, three: list[Provider], drain: Drain
) -> None:
    image = hosts.path(three[1]) / "images" / old.images.get().name
    with image.open("r+b") as file:
        file.seek(800_000)
        file.write(b"rot")
    other = hosts.path(three[2]) / "images" / target_on(old.template, three[2]).images.get().name
    with other.open("r+b") as file:
        file.write(b"QFI\xfb")  # a raw image that claims to be another kind is not even opened
    drain()
    target = target_on(old.template, three[1])
    assert (target.phase, target.error_code) == (Phase.FAILED, "CONTENT_CHANGED")
    assert words(old.template)["left"] == ("Needs update", "Failed to distribute")
    assert "1 of 16 blocks are wrong" in target.error_text
    assert Event.objects.filter(code="CONTENT_CHANGED", provider=three[1]).exists()
    assert target_on(old.template, three[2]).error_code == "CONTENT_CHANGED"


def at_work(target: DistributionTarget, phase: str = Phase.COPYING, **fields: object) -> None:
    DistributionTarget.objects.filter(pk=target.pk).update(
        phase=phase, claim=uuid.uuid4(), owner=process_name(), **fields
    )


def never(old: DistributionTarget, settings: object) -> None:
    settings.SCRUB_DAYS = 0  # type: ignore[attr-defined]  # pytest-django's settings are dynamic


def maintenance(old: DistributionTarget, settings: object) -> None:
    Template.objects.update(phase=TemplatePhase.MAINTENANCE)


def a_copy_to_its_template(old: DistributionTarget, settings: object) -> None:
    at_work(target_on(old.template, old.template.source_provider))


def a_scrub_elsewhere(old: DistributionTarget, settings: object) -> None:
    at_work(target_on(old.template, old.template.source_provider), Phase.INSTALLED)


def one_worker(old: DistributionTarget, settings: object) -> None:
    settings.WORKERS = 1  # type: ignore[attr-defined]  # pytest-django's settings are dynamic


def silence(old: DistributionTarget, settings: object) -> None:
    Provider.objects.update(enabled=False)


def a_pause(old: DistributionTarget, settings: object) -> None:
    DistributionTarget.objects.update(next_try_at=timezone.now() + timedelta(minutes=1))


OBSTACLES = [
    never, maintenance, a_copy_to_its_template, a_scrub_elsewhere, one_worker, silence, a_pause,
]  # fmt: skip


def test_nothing_is_read_again_while_something_is_in_the_way(
    rows: DistributionTarget, settings: object
) -> None:
    for obstacle in OBSTACLES:
        days, workers = settings.SCRUB_DAYS, settings.WORKERS  # type: ignore[attr-defined]  # they are dynamic
        with transaction.atomic():
            assert due() == [rows.pk]
            obstacle(rows, settings)
            assert due() == [], obstacle.__name__
            tasks.scrub(rows.pk)
            assert not Event.objects.exists(), obstacle.__name__
            transaction.set_rollback(True)
        settings.SCRUB_DAYS, settings.WORKERS = days, workers  # type: ignore[attr-defined]  # they are dynamic


def test_a_copy_from_its_host_is_not_disturbed(hosts: Hosts, rows: DistributionTarget) -> None:
    source = rows.template.source_provider
    verified(target_on(rows.template, source), 50)
    other = Template.objects.create(
        name="other", source_provider=source, source_vm="golden", phase=TemplatePhase.CREATING
    )
    copy = DistributionTarget.objects.create(template=other, provider=hosts.add("late"))
    assert due() == [target_on(rows.template, source).pk]
    at_work(copy, reading_from=source)
    assert due() == [rows.pk]


def test_it_gives_way_to_work_and_begins_again_later(
    old: DistributionTarget, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SCRUB_BANDWIDTH = 100_000  # type: ignore[attr-defined]  # it would take ten seconds
    monkeypatch.setattr(verification.lanes, "BEAT_SECONDS", 0.01)
    others = DistributionTarget.objects.filter(template=old.template).exclude(pk=old.pk)
    claims = []

    def work_comes_up() -> bool:
        claims.append(DistributionTarget.objects.get(pk=old.pk).claim)
        at_work(others[0])
        return False

    monkeypatch.setattr(scrub, "stopping", work_comes_up)
    tasks.scrub(old.pk)
    assert claims[0] is not None
    after = DistributionTarget.objects.get(pk=old.pk)
    assert (after.phase, after.claim) == (Phase.INSTALLED, None)
    assert after.verified_at < timezone.now() - timedelta(days=39)
    assert after.next_try_at > timezone.now()
    assert "gave way" in Event.objects.filter(provider=old.provider)[0].note


def test_it_goes_on_from_where_it_gave_way(old: DistributionTarget, settings: object) -> None:
    """At a byte a second nothing that was compared before can have been read again."""
    settings.SCRUB_BANDWIDTH = 1  # type: ignore[attr-defined]
    DistributionTarget.objects.filter(pk=old.pk).update(compared=old.installed_version.allocated)
    tasks.scrub(old.pk)
    after = DistributionTarget.objects.get(pk=old.pk)
    assert (after.phase, after.compared) == (Phase.INSTALLED, 0)
    assert after.verified_at > timezone.now() - timedelta(hours=1)


def test_its_time_ends_and_what_it_compared_is_kept(
    old: DistributionTarget, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SCRUB_SECONDS, settings.SCRUB_BANDWIDTH = 0, 1  # type: ignore[attr-defined]
    monkeypatch.setattr(verification.lanes, "BEAT_SECONDS", 0.01)
    DistributionTarget.objects.filter(pk=old.pk).update(compared=1)
    tasks.scrub(old.pk)
    after = DistributionTarget.objects.get(pk=old.pk)
    assert (after.claim, after.compared) == (None, 1)
    assert after.verified_at < timezone.now() - timedelta(days=39)
    assert "goes on later" in Event.objects.filter(provider=old.provider)[0].note


def test_an_order_takes_the_target_out_of_its_hands(
    old: DistributionTarget, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SCRUB_BANDWIDTH = 100_000  # type: ignore[attr-defined]  # it would take ten seconds
    monkeypatch.setattr(verification.lanes, "BEAT_SECONDS", 0.01)

    def ordered() -> bool:
        DistributionTarget.objects.filter(pk=old.pk).update(phase=Phase.WAITING, claim=None)
        return False

    monkeypatch.setattr(scrub, "stopping", ordered)
    tasks.scrub(old.pk)
    assert DistributionTarget.objects.get(pk=old.pk).phase == Phase.WAITING


def test_a_host_that_falls_silent_is_not_blamed_for_its_image(
    hosts: Hosts, old: DistributionTarget, three: list[Provider]
) -> None:
    hosts.take_away(three[1])
    tasks.scrub(old.pk)
    after = target_on(old.template, three[1])
    assert (after.phase, str(after.state)) == (Phase.INSTALLED, "Not available")


@pytest.fixture
def unwritten(
    template: Template, three: list[Provider], monkeypatch: pytest.MonkeyPatch
) -> DistributionTarget:
    """An image that was published shortly before its host fell silent; the host does not write through."""
    monkeypatch.setattr(Directory, "flushes", False)
    return target_on(template, three[1])


def silence(hosts: Hosts, provider: Provider) -> None:
    """The host does not answer once, and then it does again."""
    hosts.take_away(provider)
    hosts.check(provider)
    hosts.bring_back(provider)
    hosts.check(provider)


def test_what_a_host_may_have_lost_with_its_power_is_read_again_at_once(
    hosts: Hosts, unwritten: DistributionTarget, three: list[Provider], drain: Drain
) -> None:
    assert due() == []
    silence(hosts, three[1])
    assert due() == [unwritten.pk]
    image = hosts.path(three[1]) / "images" / unwritten.images.get().name
    with image.open("r+b") as file:
        file.seek(800_000)
        file.write(bytes(4096))
    drain()
    assert words(unwritten.template)["left"] == ("Needs update", "Failed to distribute")
    assert due() == []


def test_what_was_read_again_after_a_silence_is_in_doubt_no_more(
    hosts: Hosts, unwritten: DistributionTarget, three: list[Provider], drain: Drain
) -> None:
    silence(hosts, three[1])
    drain()
    unwritten.refresh_from_db()
    assert words(unwritten.template)["left"] == ("Ready", "OK")
    assert due() == []


def test_what_was_on_the_disks_long_before_a_silence_is_not_in_doubt(
    hosts: Hosts, unwritten: DistributionTarget, three: list[Provider]
) -> None:
    verified(unwritten, days=1)
    silence(hosts, three[1])
    assert due() == []


def test_a_second_silence_does_not_take_the_doubt_of_the_first(
    hosts: Hosts, unwritten: DistributionTarget, three: list[Provider]
) -> None:
    silence(hosts, three[1])
    began = Provider.objects.get(pk=three[1].pk).silence_began_at
    silence(hosts, three[1])
    assert Provider.objects.get(pk=three[1].pk).silence_began_at == began
    assert due() == [unwritten.pk]


def test_hosts_that_write_through_lose_nothing(
    hosts: Hosts, template: Template, three: list[Provider]
) -> None:
    silence(hosts, three[1])
    assert due() == []


def test_a_part_that_was_right_before_the_silence_is_read_again_too(
    hosts: Hosts, unwritten: DistributionTarget, three: list[Provider], drain: Drain
) -> None:
    silence(hosts, three[1])
    DistributionTarget.objects.filter(pk=unwritten.pk).update(compared=1 << 40)
    image = hosts.path(three[1]) / "images" / unwritten.images.get().name
    written = image.stat()
    with image.open("r+b") as file:
        file.seek(800_000)
        file.write(bytes(4096))
    os.utime(image, ns=(written.st_atime_ns, written.st_mtime_ns))
    drain()
    assert words(unwritten.template)["left"] == ("Needs update", "Failed to distribute")


def test_verifying_waits_for_who_holds_an_image_and_in_the_end_says_so(
    template: Template, three: list[Provider], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = target_on(template, three[1])
    assert held.take(Phase.INSTALLED)
    monkeypatch.setattr(verification, "BUSY_SECONDS", 0.3)
    rows = verification.verify(template)
    assert {row["provider"]: row["code"] for row in rows} == {"source": None, "left": "BUSY", "right": None}
    listed = template.targets.values_list("provider__name", flat=True)
    assert [row["provider"] for row in rows] == list(listed)  # who had to wait stays in its place

    monkeypatch.setattr(verification, "BUSY_SECONDS", 60)
    looked: list[str] = []
    take = verification._take

    def look(key: int) -> object:
        target, row = take(key)
        if row and not looked:
            looked.append(row["code"])
            held.release(Phase.INSTALLED, "Tidied.")
        return target, row

    monkeypatch.setattr(verification, "_take", look)
    assert all(row["ok"] for row in verification.verify(template))
    assert looked == ["BUSY"]
