"""What a click orders, and what comes back: the fresh parts and a sentence, with status 200."""

from __future__ import annotations

import re

from django.test import Client
from django.urls import reverse

from templates_app.models import DistributionTarget, GuestVM, Template
from tests.pages.conftest import World


def post(client: Client, route: str, /, *args: object, query: str = "", **data: object) -> str:
    """The answer to a click in a page."""
    response = client.post(reverse(route, args=args) + query, data, headers={"HX-Request": "true"})
    assert response.status_code == 200, response.status_code
    return response.content.decode()


def failed(template: Template) -> DistributionTarget:
    return template.targets.get(phase="failed")


def test_retry_answers_with_the_row_as_it_is_now(busy: Template, operator: Client) -> None:
    target = failed(busy)
    html = post(operator, "target-retry", target.pk)
    target.refresh_from_db()
    assert target.phase == "waiting"
    assert f'id="target-{target.pk}-progress"' in html
    assert "Distributing" in html
    assert "full is tried again." in html
    assert busy.events.filter(by="a-operator", note="Retry.").exists()


def test_retry_twice_is_a_sentence_and_the_fresh_row_not_an_error(busy: Template, operator: Client) -> None:
    target = failed(busy)
    post(operator, "target-retry", target.pk)
    html = post(operator, "target-retry", target.pk)
    assert "Nothing failed on full." in html
    assert f'id="target-{target.pk}-state"' in html


def test_retry_all_failed_tries_each_and_shows_each(busy: Template, operator: Client) -> None:
    html = post(operator, "template-retry", busy.pk)
    assert not busy.targets.filter(phase="failed").exists()
    assert all(f'id="target-{target.pk}-progress"' in html for target in busy.targets.all())


def test_retry_says_how_many_are_tried_and_who_is_left_out(busy: Template, operator: Client) -> None:
    busy.targets.filter(provider__name="gone").update(phase="failed", desired="present")
    html = post(operator, "template-retry", busy.pk)
    assert "1 task is tried again. Not available: gone. Check these providers, then retry." in html
    again = post(operator, "templates-retry", query=f"?pk={busy.pk}")
    assert "Nothing is tried again. Not available: gone." in again
    assert "data-fades" not in again  # it stays until it was read


def test_cancel_of_a_provider_being_added_takes_it_out_again(busy: Template, operator: Client) -> None:
    target = busy.targets.get(intent="adding")
    html = post(operator, "target-cancel", target.pk)
    target.refresh_from_db()
    assert target.desired == "absent"
    assert "Removing provider" in html


def test_cancel_asks_with_what_goes_with_it(busy: Template, operator: Client) -> None:
    html = operator.get(reverse("template-distribution", args=[busy.pk])).content.decode()
    asked = {
        each.provider.name: html[html.index(f"Stop copying win11 to {each.provider}?") :].partition('"')[0]
        for each in busy.targets.filter(phase__in=("copying", "waiting"), desired="present")
    }
    assert asked["adding"].endswith("deleted there, and the provider is taken off the list again.")
    assert asked["copying"].endswith("deleted there; nothing else is touched.")


def test_apply_adds_and_removes_what_was_ticked(world: World, operator: Client) -> None:
    source, left, right = (world.provider(name) for name in ("source", "left", "right"))
    template = world.template("win11", source)
    world.target(template, left)
    order = {"providers": [right.pk], "max_concurrent": 2, "sure": [left.pk]}
    html = post(operator, "template-properties", template.pk, **order)
    assert {(row.provider.name, row.desired) for row in template.targets.all()} == {
        ("source", "present"), ("left", "absent"), ("right", "present"),
    }  # fmt: skip
    assert "Removing / Adding provider" in html
    template.refresh_from_db()
    assert template.max_concurrent == 2


def test_who_is_taken_out_of_the_list_is_named_and_asked_about_once(world: World, operator: Client) -> None:
    template = world.template("win11", world.provider("source"))
    left, right = (world.target(template, world.provider(name)) for name in ("left", "right"))
    order = {"providers": [right.provider_id], "max_concurrent": 2}
    html = post(operator, "template-properties", template.pk, **order)
    assert "1 provider is taken out of the list" in html
    assert "the images of win11 there are deleted: left." in html
    assert template.targets.filter(desired="present").count() == 3
    more = post(operator, "template-properties", template.pk, max_concurrent=2, sure=[left.provider_id])
    assert "2 providers are taken out of the list" in more
    assert "there are deleted: left, right." in more
    post(operator, "template-properties", template.pk, **order, sure=[left.provider_id])
    assert [each.provider.name for each in template.targets.filter(desired="absent")] == ["left"]


def test_a_list_that_changed_before_the_question_is_still_refused(world: World, operator: Client) -> None:
    template = world.template("win11", world.provider("source"))
    left = world.target(template, world.provider("left"))
    was = list(template.targets.values_list("provider_id", flat=True))
    other = world.target(template, world.provider("other"))
    asked = post(operator, "template-properties", template.pk, max_concurrent=2, was=was)
    shown = [int(pk) for pk in re.findall(r'name="was" value="(\d+)"', asked)]
    sure = [left.provider_id, other.provider_id]
    html = post(operator, "template-properties", template.pk, max_concurrent=2, was=shown, sure=sure)
    assert "was changed by somebody else just now." in html
    assert not template.targets.filter(desired="absent").exists()


def test_a_provider_with_guests_is_taken_out_only_with_their_number_typed(
    world: World, operator: Client
) -> None:
    source, left = world.provider("source"), world.provider("left")
    template = world.template("win11", source)
    target = world.target(template, left)
    world.guest(template, left)
    world.guest(template, left)
    ask = post(operator, "template-properties", template.pk, max_concurrent=4)
    assert "Type their number to delete them too" in ask
    assert ask.index("Type their number") < ask.index("checklist")
    wrong = post(operator, "template-properties", template.pk, max_concurrent=4, delete_guests="3")
    assert "That is not their number" in wrong
    target.refresh_from_db()
    assert target.desired == "present"
    post(operator, "template-properties", template.pk, max_concurrent=4, delete_guests="2")
    target.refresh_from_db()
    assert (target.desired, target.delete_guests) == ("absent", True)


def test_the_checklist_says_before_apply_what_is_wrong_and_what_to_do(world: World, viewer: Client) -> None:
    template = world.template("win11", world.provider("source"))
    world.provider("small", free_bytes=1 << 20)
    world.silent("gone")
    html = viewer.get(reverse("template-properties", args=[template.pk])).content.decode()
    assert "small is too full" in html
    assert "Free some space there, then retry." in html
    assert "It did not answer within 10 seconds." in html


def test_maintenance_is_entered_by_many_and_refused_by_name(world: World, operator: Client) -> None:
    source = world.provider("source")
    ready, other = world.template("ready", source), world.template("creating", source, phase="creating")
    html = post(operator, "templates-maintenance", query=f"?pk={ready.pk}&pk={other.pk}")
    ready.refresh_from_db()
    assert ready.phase == "entering"
    assert "creating is not ready" in html


def test_leaving_maintenance_needs_a_choice(world: World, operator: Client) -> None:
    template = world.template("win11", world.provider("source"), phase="maintenance")
    assert "Choose to create a new version" in post(operator, "template-leave", template.pk)
    post(operator, "template-leave", template.pk, choice="new_version", note="Patches")
    template.refresh_from_db()
    assert (template.phase, template.maintenance["note"]) == ("exiting", "Patches")


def test_a_refused_leave_keeps_the_choice_and_the_note(world: World, operator: Client) -> None:
    source = world.silent("source")
    template = world.template("win11", source, phase="maintenance")
    html = post(operator, "template-leave", template.pk, choice="discard", note="Left as it was")
    assert "not available" in html
    assert 'value="discard" checked' in html
    assert 'value="new_version" checked' not in html
    assert 'value="Left as it was"' in html


def test_a_running_working_copy_can_be_shut_down_then_switched_off(world: World, operator: Client) -> None:
    kept = {"vm": "win11-maintenance", "power": "on"}
    template = world.template("win11", world.provider("source"), phase="maintenance", maintenance=kept)
    dialog = operator.get(reverse("template-leave", args=[template.pk]), headers={"HX-Request": "1"})
    assert "“win11-maintenance” is running on source." in dialog.content.decode()
    assert "Shut down" in dialog.content.decode()
    assert "Switch off" not in dialog.content.decode()

    post(operator, "template-shut-down", template.pk)
    template.refresh_from_db()
    assert (template.phase, template.maintenance["stop"]["force"]) == ("maintenance", False)
    asked = operator.get(reverse("template-leave", args=[template.pk]), headers={"HX-Request": "1"})
    assert "Switch off" in asked.content.decode()
    post(operator, "template-power-off", template.pk)
    template.refresh_from_db()
    assert template.maintenance["stop"]["force"] is True


def test_a_host_without_a_power_switch_is_shut_down_by_hand(world: World, operator: Client) -> None:
    source = world.provider("source", capabilities=["full_clone"])
    kept = {"vm": "win11-maintenance"}
    template = world.template("win11", source, phase="maintenance", maintenance=kept)
    dialog = operator.get(reverse("template-leave", args=[template.pk]), headers={"HX-Request": "1"})
    assert "source does not tell whether a VM runs" in dialog.content.decode()
    assert "with the host&#x27;s own tools" in post(operator, "template-shut-down", template.pk)


def test_check_again_verifies_again_and_later_defers(busy: Template, operator: Client) -> None:
    assert "Every provider is being checked" in post(operator, "template-recreate", busy.pk, scope="all")
    run = busy.runs.get()
    assert (run.phase, run.only_responding) == ("verifying", False)
    busy.runs.update(phase="blocked")
    post(operator, "template-recreate", busy.pk, scope="responding")
    assert busy.runs.get().only_responding
    busy.runs.update(phase="blocked")
    assert "Recreate them later from the Tasks menu." in post(operator, "template-later", busy.pk)
    assert busy.runs.get().phase == "deferred"


def test_a_template_with_guests_is_not_deleted_and_says_so(busy: Template, operator: Client) -> None:
    assert "Guest VMs of win11 exist" in post(operator, "template-delete", busy.pk)
    busy.refresh_from_db()
    assert busy.phase == "ready"


def test_a_template_that_is_kept_by_many_guests_says_how_many_and_where_they_are(
    world: World, operator: Client
) -> None:
    source = world.provider("source")
    template = world.template("win11", source)
    for _ in range(60):
        world.guest(template, source)
    html = operator.get(reverse("template-delete", args=[template.pk])).content.decode()
    assert "60 guest VMs of this template exist. Delete them first." in html
    assert f'href="/guests/?template={template.pk}"' in html
    assert "and 40 more" in html


def test_a_refused_deletion_of_a_template_offers_no_button(world: World, operator: Client) -> None:
    template = world.template("win11", world.provider("source"), phase="maintenance")
    html = post(operator, "template-delete", template.pk)
    assert "are deleted from 1 provider." in html
    assert "Delete the template" not in html


def test_a_stop_asks_first_and_says_the_number(busy: Template, operator: Client) -> None:
    pks = list(busy.guests.values_list("pk", flat=True))
    query = "?" + "&".join(f"pk={pk}" for pk in pks)
    asked = operator.get(reverse("guests-selected", args=["stop"]) + query, headers={"HX-Request": "1"})
    assert f"Stop {len(pks)} guest VMs" in asked.content.decode()
    assert "switched off after a while" in asked.content.decode()
    assert "HX-Request" not in post(operator, "guests-selected", "stop", query=query)


def test_guests_are_deleted_only_with_their_number_typed(busy: Template, operator: Client) -> None:
    pks = list(busy.guests.values_list("pk", flat=True))
    query = "?" + "&".join(f"pk={pk}" for pk in pks)
    assert "Nothing was deleted" in post(operator, "guests-selected", "delete", query=query, number="1")
    assert not GuestVM.objects.filter(phase="deleting").exists()
    post(operator, "guests-selected", "delete", query=query, number=str(len(pks)))
    assert GuestVM.objects.filter(phase="deleting").count() == len(pks)


def test_guests_are_created_where_the_image_is(world: World, operator: Client) -> None:
    source = world.provider("source")
    template = world.template("win11", source)
    version = template.current_version
    template.targets.get().images.create(
        version=version, disk=0, name="win11.raw", ref="r", size=1, digest="ab", stamp="s"
    )
    html = post(operator, "guest-new", template.pk, provider=source.pk, count=3, stem="desk")
    assert list(template.guests.values_list("name", flat=True)) == ["desk-001", "desk-002", "desk-003"]
    assert "3 guest VMs are being created." in html


def test_the_name_that_guests_are_offered_can_be_used(world: World, operator: Client) -> None:
    source = world.provider("source")
    template = world.template("t" * 63, source)
    template.targets.get().images.create(
        version=template.current_version, disk=0, name="t.raw", ref="r", size=1, digest="ab", stamp="s"
    )
    html = operator.get(reverse("guest-new", args=[template.pk])).content.decode()
    offered = re.search(r'name="stem" value="([^"]*)"', html)
    assert offered
    post(operator, "guest-new", template.pk, provider=source.pk, count=1, stem=offered[1])
    assert template.guests.get().name == "t" * 59 + "-001"


def test_a_guest_is_switched_where_the_host_can(world: World, operator: Client) -> None:
    source = world.provider("source")
    guest = world.guest(world.template("win11", source), source, power="off")
    post(operator, "guests-selected", "start", query=f"?pk={guest.pk}")
    guest.refresh_from_db()
    assert guest.wanted_power == "on"


def test_a_provider_is_forgotten_only_with_its_name_typed(world: World, administrator: Client) -> None:
    source, gone = world.provider("source"), world.silent("gone")
    world.target(world.template("win11", source), gone)
    assert "That is not its name" in post(administrator, "provider-forget", gone.pk, name="source")
    assert type(gone).objects.filter(pk=gone.pk).exists()
    post(administrator, "provider-forget", gone.pk, name="gone")
    assert not type(gone).objects.filter(pk=gone.pk).exists()


def test_a_source_may_be_forgotten_when_only_it_owes_the_deletion_of_its_templates(
    world: World, administrator: Client
) -> None:
    source = world.provider("source")
    template = world.template("win11", source)
    form = administrator.get(reverse("provider-forget", args=[source.pk])).content.decode()
    assert "It is the source of:" in form
    type(template).objects.filter(pk=template.pk).update(phase="deleting")
    form = administrator.get(reverse("provider-forget", args=[source.pk])).content.decode()
    assert "It is the source of:" not in form
    post(administrator, "provider-forget", source.pk, name="source")
    assert not type(template).objects.filter(pk=template.pk).exists()


def test_a_provider_in_use_is_not_deleted_and_says_by_what(busy: Template, administrator: Client) -> None:
    assert "source is still used" in post(administrator, "provider-delete", busy.source_provider_id)


def test_disable_and_enable_show_the_provider_as_it_is(world: World, administrator: Client) -> None:
    row = world.provider("source")
    assert "Disabled" in post(administrator, "provider-disable", row.pk)
    post(administrator, "provider-enable", row.pk)
    row.refresh_from_db()
    assert (row.enabled, row.reachability) == (True, "unknown")
