"""Orders that meet faults, and faults that meet orders: nothing sticks, nothing goes on for ever, nothing is lost."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from providers_app.drivers.errors import Refused
from providers_app.models import Provider
from rasweb.refusals import Refusal
from templates_app import (
    distribution,
    guests,
    maintenance,
    preflight,
    reconciler,
    removal,
)
from templates_app.copying import Copy
from templates_app.models import (
    DistributionTarget,
    Template,
    TemplateVersion,
)
from templates_app.states import Desired, Phase, TemplatePhase
from tests.templates_app.conftest import BY, Drain, Hosts, target_on, words
from tests.templates_app.test_maintenance import (
    change,
    entered,
    fresh,
    leave,
    peopled,
    working_disk,
)

__all__ = ["entered", "peopled"]  # fixtures


def away(provider: Provider) -> None:
    Provider.objects.filter(pk=provider.pk).update(reachability="not_available")


def at_work(target: DistributionTarget, **fields: Any) -> DistributionTarget:
    """A target in the hands of a worker that is about to die."""
    fields = {"phase": Phase.COPYING, "claim": uuid.uuid4(), "owner": "x", "attempt": 4, **fields}
    DistributionTarget.objects.filter(pk=target.pk).update(**fields)
    target.refresh_from_db()
    return target


def test_changes_made_after_a_failed_end_of_maintenance_make_a_version_of_their_own(
    hosts: Hosts, entered: Template, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(entered)

    def fails(template: Template) -> None:
        raise Refused("The working copy is open.", code="IN_USE")

    with monkeypatch.context() as patched:
        patched.setattr(maintenance, "_remove_copy", fails)
        template = leave(entered, maintenance.NEW_VERSION, drain)
    assert (template.phase, template.sealed_version.number) == (TemplatePhase.MAINTENANCE, 2)
    with working_disk(template).open("r+b") as disk:
        disk.seek(600_000)
        disk.write(b"SECOND CHANGE")
    template = leave(template, maintenance.NEW_VERSION, drain)
    assert (template.phase, template.sealed_version.number) == (TemplatePhase.READY, 3)
    assert any(b"SECOND CHANGE" in content for content in hosts.images(template.source_provider).values())


@pytest.mark.parametrize("choice", ["enter", maintenance.NEW_VERSION, maintenance.DISCARD])
def test_maintenance_goes_back_where_its_source_went_away(
    template: Template, three: list[Provider], drain: Drain, choice: str
) -> None:
    maintenance.enter(template, BY)
    if choice != "enter":
        drain()
        maintenance.leave(fresh(template), choice, BY)
    away(three[0])
    drain()
    after = fresh(template)
    back = TemplatePhase.READY if choice == "enter" else TemplatePhase.MAINTENANCE
    assert (after.phase, after.error_code) == (back, "NOT_AVAILABLE")


@pytest.fixture
def lost(template: Template, monkeypatch: pytest.MonkeyPatch) -> Template:
    """A template whose worker died when it had made the working copy."""

    class Died(BaseException):
        pass

    def dies(*args: object, **fields: object) -> bool:
        raise Died

    maintenance.enter(template, BY)
    OrmQ.objects.all().delete()
    with monkeypatch.context() as patched:
        patched.setattr(Template, "release", dies)
        with pytest.raises(Died):
            maintenance.prepare(template.pk)
    return fresh(template)


def test_entering_maintenance_is_undone_when_its_worker_dies(
    hosts: Hosts, lost: Template, three: list[Provider], drain: Drain
) -> None:
    assert (hosts.path(three[0]) / "vms/win11-maintenance").exists()
    lost.recover()
    assert fresh(lost).phase == TemplatePhase.ENTERING
    drain()
    after = fresh(lost)
    assert (after.phase, after.error_code, after.maintenance) == (TemplatePhase.READY, "WORKER_LOST", {})
    assert not (hosts.path(three[0]) / "vms/win11-maintenance").exists()


def test_maintenance_never_begins_with_what_an_earlier_one_left(
    hosts: Hosts, lost: Template, three: list[Provider], drain: Drain
) -> None:
    with (hosts.path(three[0]) / "vms/win11-maintenance/disk0.raw").open("r+b") as disk:
        disk.write(b"STALE")
    away(three[0])
    lost.recover()
    drain()
    hosts.check(three[0])
    maintenance.enter(fresh(lost), BY)
    drain()
    [image] = hosts.images(three[0]).values()
    assert working_disk(fresh(lost)).read_bytes() == image


def test_what_an_unfinished_maintenance_left_goes_with_the_template(
    hosts: Hosts, lost: Template, three: list[Provider], drain: Drain
) -> None:
    away(three[0])
    lost.recover()
    drain()  # the copy can not be removed yet
    assert (hosts.path(three[0]) / "vms/win11-maintenance").exists()
    hosts.check(three[0])
    distribution.delete(fresh(lost), BY)
    drain()
    assert not Template.objects.exists()
    assert [path.name for path in (hosts.path(three[0]) / "vms").iterdir()] == ["golden"]


def test_nothing_is_added_to_a_template_that_is_being_deleted(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    late = hosts.add("late")
    hosts.take_away(three[2])
    for _ in range(3):
        hosts.check(three[2])
    distribution.delete(template, BY)
    with pytest.raises(Refusal) as refused:
        distribution.add_providers(fresh(template), [late], BY)
    assert refused.value.code == "DELETING"
    DistributionTarget.objects.filter(provider=three[2]).update(desired=Desired.PRESENT)
    distribution.delete(fresh(template), BY)
    assert target_on(template, three[2]).desired == Desired.ABSENT
    drain()


def test_the_number_of_copies_of_a_template_that_failed_to_be_made_can_be_changed(ordered: Template) -> None:
    Template.objects.filter(pk=ordered.pk).update(phase=TemplatePhase.CREATE_FAILED)
    distribution.set_concurrent(fresh(ordered), 2, BY)
    assert fresh(ordered).max_concurrent == 2


def test_what_a_failed_removal_deleted_counts_as_held_no_more(
    hosts: Hosts, template: Template, three: list[Provider], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_on(template, three[1])
    distribution.remove_providers(template, [three[1]], BY)
    looks = iter([removal._ours])

    def ours(target: DistributionTarget) -> object:
        for look in looks:
            return look(target)
        raise Refused("The location is read-only.", code="PERMISSION")

    with monkeypatch.context() as patched:
        patched.setattr(removal, "_ours", ours)
        removal.work(target.pk)
    target.refresh_from_db()
    assert (target.phase, hosts.images(three[1])) == (Phase.FAILED, {})
    distribution.add_providers(fresh(template), [three[1]], BY)
    version = template.sealed_version
    assert not guests.holds(template, three[1], version)
    assert preflight.needed_bytes(template, version, three[1]) == version.allocated


def test_a_cancel_that_comes_too_late_hinders_no_later_version(
    ordered: Template, three: list[Provider], drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Copy._publish

    def late(self: Copy, lane: str) -> None:
        target = self._open[lane]
        publish(self, lane)
        row = DistributionTarget.objects.select_related("template", "provider").get(pk=target.pk)
        if target.provider == three[1]:
            distribution.cancel(row, BY)

    monkeypatch.setattr(Copy, "_publish", late)
    drain()
    target = target_on(ordered, three[1])
    assert (target.phase, target.cancel) == (Phase.INSTALLED, False)


@pytest.mark.parametrize("wish", [{"desired": Desired.ABSENT}, {"cancel": True}])
def test_an_order_to_stop_outlives_the_worker_that_should_have_heard_it(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain, wish: dict[str, Any]
) -> None:
    target = at_work(target_on(template, three[1]), **wish)
    target.recover()
    drain()
    if "cancel" in wish:
        target.refresh_from_db()
        assert (target.phase, target.cancel, target.error_code) == (Phase.FAILED, False, "CANCELLED")
    else:
        assert not template.targets.filter(provider=three[1]).exists()
        assert hosts.images(three[1]) == {}


def test_a_host_that_was_cancelled_before_there_was_a_version_gets_none(
    ordered: Template, three: list[Provider], drain: Drain
) -> None:
    target = target_on(ordered, three[1])
    distribution.cancel(target, BY)
    removal.work(target.pk)
    drain()
    assert words(ordered)["left"][1] == "Failed to distribute"
    assert words(ordered)["right"] == ("Ready", "OK")
    target = target_on(ordered, three[1])
    assert target.error_code == "CANCELLED"
    distribution.retry(target, BY)
    drain()
    assert words(ordered)["left"] == ("Ready", "OK")


def test_copies_go_on_when_the_host_they_come_from_is_back(
    hosts: Hosts, ordered: Template, three: list[Provider], drain: Drain
) -> None:
    drain()
    targets = DistributionTarget.objects.filter(template=ordered)
    targets.filter(provider=three[1]).update(phase=Phase.FAILED, error_code="SOURCE_UNREACHABLE", attempt=5)
    later = timezone.now() + timedelta(minutes=10)
    targets.filter(provider=three[2]).update(
        phase=Phase.WAITING, next_try_at=later, error_code="SOURCE_UNREACHABLE"
    )
    hosts.take_away(three[0])
    for _ in range(3):
        hosts.check(three[0])
    hosts.bring_back(three[0])
    hosts.check(three[0])
    drain()
    assert set(targets.values_list("phase", flat=True)) == {Phase.INSTALLED}


def test_of_two_copies_that_look_at_once_one_gets_the_room(template: Template, three: list[Provider]) -> None:
    host, size = three[1], 10**9
    disk = {"name": "a", "format": "raw", "size": size, "allocated": size, "digest": "d", "manifest": "m"}
    other = Template.objects.create(name="other", source_provider=three[0], source_vm="x")
    versions = {
        each: TemplateVersion.objects.create(template=each, number=9, disks=[disk])
        for each in (template, other)
    }
    DistributionTarget.objects.create(template=other, provider=host)
    for number, each in enumerate((template, other)):
        at_work(
            target_on(each, host),
            phase=Phase.CHECKING,
            bytes_total=size,
            bytes_done=0,
            wanted_version=versions[each],
            started_at=timezone.now() + timedelta(seconds=number),
        )
    Provider.objects.filter(pk=host.pk).update(free_bytes=17 * 10**8, total_bytes=10**10)
    host.refresh_from_db()
    codes = [preflight._space(each, versions[each], host).code for each in (template, other)]
    assert codes == ["", "NO_SPACE"]


def test_kinds_of_work_are_asked_for_in_turn() -> None:
    many, few = [("guest", pk) for pk in range(3)], [("remove", 1)]
    assert list(reconciler._in_turn(many, few)) == [("guest", 0), ("remove", 1), ("guest", 1), ("guest", 2)]
