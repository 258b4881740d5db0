"""The working copy of a template in maintenance: seen running, shut down, and only then sealed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from providers_app import connections
from providers_app.drivers import open_driver
from providers_app.models import Provider
from rasweb.refusals import Refusal
from templates_app import maintenance, workingcopy
from templates_app.creation import NewTemplate, create
from templates_app.models import Template
from templates_app.reconciler import Reconciler
from templates_app.states import TemplatePhase
from templates_app.status import template_status
from tests.templates_app.conftest import BY, Drain, Hosts


@pytest.fixture
def entered(hosts: Hosts, drain: Drain) -> Template:
    """A template in maintenance on a host that can switch VMs, which was not checked since."""
    values = {"path": str(hosts.root / "sim"), "vms": 1, "size_mib": 1}
    source = connections.add("sim", "simulator", values)
    hosts.check(source)
    template = create(NewTemplate("win11", source, "sample-1"), BY)
    drain()
    maintenance.enter(Template.objects.get(pk=template.pk), BY)
    drain()
    return Template.objects.select_related("source_provider").get(pk=template.pk)


@pytest.fixture
def maintained(hosts: Hosts, entered: Template) -> Template:
    """The same, and its host was checked."""
    return see(hosts, entered)


def see(hosts: Hosts, template: Template) -> Template:
    """Check the host, and take note of what was found."""
    hosts.check(Provider.objects.get(name="sim"))
    Reconciler().run()
    return Template.objects.select_related("source_provider").get(pk=template.pk)


def start(template: Template) -> None:
    """What an administrator does with the host's own tools."""
    address = template.source_provider.address()
    with open_driver(address.kind, address.settings) as host:
        host.power(template.maintenance["vm"], template.mark("working-copy"), True)


def power(template: Template) -> str:
    copy = template_status(template)["working_copy"]
    assert copy is not None
    return str(copy["power"])


def test_a_copy_that_its_host_made_with_a_network_of_its_own_is_unchanged(
    entered: Template, drain: Drain
) -> None:
    """Its version came from a host with another network."""
    version = entered.sealed_version
    version.definition = {**version.definition, "network": "elsewhere"}
    version.save()
    maintenance.leave(entered, maintenance.NEW_VERSION, BY)
    drain()
    assert Template.objects.get(pk=entered.pk).versions.count() == 1


def test_a_copy_is_known_to_be_off_before_its_host_is_checked_again(entered: Template) -> None:
    assert power(entered) == "off"


def test_a_running_copy_is_shut_down_before_it_is_sealed(
    hosts: Hosts, maintained: Template, drain: Drain
) -> None:
    assert power(maintained) == "off"
    start(maintained)
    template = see(hosts, maintained)
    assert power(template) == "on"
    assert template.events.first().note == "“win11-maintenance” is running."
    with pytest.raises(Refusal) as running:
        maintenance.leave(template, maintenance.NEW_VERSION, BY)
    assert running.value.code == "VM_RUNNING"

    workingcopy.shut_down(template, BY)
    assert workingcopy.order_of(template) is not None
    drain()
    template = see(hosts, template)
    assert (power(template), workingcopy.order_of(template)) == ("off", None)
    maintenance.leave(template, maintenance.NEW_VERSION, BY)
    drain()
    assert Template.objects.get(pk=template.pk).phase == TemplatePhase.READY


def test_after_the_clock_was_set_back_a_copy_is_still_seen(hosts: Hosts, maintained: Template) -> None:
    start(maintained)
    Template.objects.update(changed_at=timezone.now() + timedelta(hours=3))
    assert power(see(hosts, maintained)) == "on"


def test_a_copy_that_can_not_be_sealed_is_refused_with_the_reason(hosts: Hosts, maintained: Template) -> None:
    disk = hosts.root / "sim" / "blobs" / maintained.maintenance["disks"][0]
    kept = disk.rename(disk.with_suffix(".aside"))
    template = see(hosts, maintained)
    with pytest.raises(Refusal, match="can not be read") as refused:
        maintenance.leave(template, maintenance.NEW_VERSION, BY)
    assert refused.value.code == "PREREQUISITE"
    kept.rename(disk)
    maintenance.leave(template, maintenance.NEW_VERSION, BY)  # it is looked at again


def test_an_order_that_the_host_refuses_is_told_and_may_be_repeated(
    hosts: Hosts, maintained: Template, drain: Drain
) -> None:
    start(maintained)
    template = see(hosts, maintained)
    (hosts.root / "sim" / "faults").write_text("refuse=shut_down")
    workingcopy.shut_down(template, BY)
    drain()
    template = see(hosts, template)
    assert template.phase == TemplatePhase.MAINTENANCE
    assert template.error_text
    assert (power(template), workingcopy.order_of(template)) == ("on", None)
    (hosts.root / "sim" / "faults").unlink()
    workingcopy.shut_down(template, BY, force=True)
    drain()
    assert (power(see(hosts, template)), template.error_text) == ("off", "")


def test_a_host_on_which_a_copy_shuts_down_is_looked_at_soon(
    hosts: Hosts, maintained: Template, drain: Drain
) -> None:
    start(maintained)
    template = see(hosts, maintained)
    workingcopy.shut_down(template, BY)
    workingcopy.carry_out(template.pk)
    later = timezone.now() + timedelta(hours=1)
    Provider.objects.update(next_check_at=later)
    workingcopy.watch()
    due = Provider.objects.get(name="sim").next_check_at
    assert due is not None
    assert due < later


def test_a_host_without_a_power_switch_says_what_to_do(
    hosts: Hosts, template: Template, drain: Drain
) -> None:
    maintenance.enter(template, BY)
    drain()
    template.refresh_from_db()
    assert power(template) == "unknown"
    with pytest.raises(Refusal) as refused:
        workingcopy.shut_down(template, BY)
    assert refused.value.code == "PREREQUISITE"
    assert "host's own tools" in refused.value.action
