"""Each page and dialog, with every state on it and with hostile names, stays within the policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from django.test import Client
from django.urls import reverse

from providers_app.models import Inventory, Provider
from rasweb import access
from templates_app.models import GuestVM, Template
from tests.pages.conftest import HOSTILE, World

PAGES = [
    "overview",
    "search",
    "activity",
    "templates",
    "guests",
    "providers",
    "template-new",
    "provider-new",
    "dock",
]
DIALOGS = [
    "template", "template-properties", "template-distribution", "template-delete", "template-enter",
    "template-leave", "template-recreate", "guest-new",
]  # fmt: skip


class Reader(HTMLParser):
    """Notes what a strict policy forbids, orders that would never be sent, and every id."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self._open: list[tuple[str, bool]] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.ids += [known["id"]] if known.get("id") else []
        self.faults += [
            f"<{tag} {name}>" for name in known if name == "style" or name.startswith(("on", "hx-on"))
        ]
        if tag in ("script", "link", "img", "iframe"):
            source = known.get("src") or known.get("href") or ""
            self.faults += [] if source.startswith("/static/") else [f"<{tag}> {source}"]
        if tag == "style":
            self.faults.append("<style>")
        if any(disabled for _, disabled in self._open) and {"hx-get", "hx-post"} & known.keys():
            self.faults.append(f"<{tag}> inside hx-disable")
        self._open.append((tag, "hx-disable" in known))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def addresses(template: Template) -> list[str]:
    found = [reverse(name) for name in PAGES]
    found += [reverse(name, args=[template.pk]) for name in DIALOGS]
    provider = template.source_provider_id
    found += [
        reverse(name, args=[provider])
        for name in ("provider", "provider-edit", "provider-delete", "provider-forget")
    ]
    pks = "&".join(f"pk={pk}" for pk in GuestVM.objects.values_list("pk", flat=True))
    found += [f"{reverse('templates-menu')}?pk={template.pk}", f"{reverse('providers-menu')}?pk={provider}"]
    found += [
        f"{reverse('templates-maintenance')}?pk={template.pk}",
        f"{reverse('templates-recreate')}?pk={template.pk}",
    ]
    found += [
        f"{reverse('guests-menu')}?{pks}",
        f"{reverse('guests-selected', args=['delete'])}?{pks}",
        "/shortcuts/",
    ]
    return [*found, "/search/?q=win", "/no/such/page/"]


@pytest.fixture
def hostile(world: World) -> Template:
    """Names and texts that came from hosts and people, as bad as they may be."""
    source = world.provider("source", error_text=HOSTILE)
    template = world.template("safe-name", source, source_vm=HOSTILE)
    Template.objects.filter(pk=template.pk).update(
        name=HOSTILE[:63], error_text=HOSTILE, error_action=HOSTILE
    )
    error = {"error_code": "X", "error_text": HOSTILE, "error_action": HOSTILE}
    world.target(template, world.provider("other"), "failed", **error)
    world.guest(template, source, name=HOSTILE[:63], phase="create_failed", **error)
    disk = {"name": HOSTILE, "virtual_size": 1, "format": HOSTILE}
    vm = {
        "name": HOSTILE,
        "disks": [disk],
        "vcpus": 1,
        "memory_mib": 1,
        "mark": None,
        "power": "off",
        "problem": "",
    }
    Inventory.objects.filter(provider=source).update(vms=[vm, {**vm, "problem": HOSTILE}])
    Provider.objects.filter(pk=source.pk).update(networks=[HOSTILE], settings={"path": HOSTILE})
    template.refresh_from_db()
    return template


@pytest.mark.parametrize("htmx", [True, False], ids=["as part", "as page"])
def test_hostile_names_are_shown_as_text_everywhere(
    hostile: Template, administrator: Client, htmx: bool
) -> None:
    for url in addresses(hostile):
        html = administrator.get(url, headers={"HX-Request": "true"} if htmx else {}).content.decode()
        assert "<img" not in html, url
        assert "49" not in re.findall(r"\{\{7\*7\}\}|49(?=\u202e)", html), url
        assert not read(html).faults, url


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000, "1x", "٣", ""])
def test_whatever_stands_for_a_number_in_an_address_is_answered(
    busy: Template, administrator: Client, number: str
) -> None:
    for name, field in (
        ("guests", "template"),
        ("providers-menu", "pk"),
        ("guests-menu", "pk"),
        ("template-new", "source"),
    ):
        assert administrator.get(reverse(name), {field: number}).status_code in (200, 404)
    wizard = {"step": "distribution", "go": "add", "source": number, "available": number, "targets": number}
    assert administrator.post(reverse("template-new"), wizard).status_code == 200
    tried = {"kind": "directory", "provider": number, "set-path": "/nowhere"}
    assert administrator.post(reverse("provider-test"), tried).status_code == 200
    listed = {"providers": number, "max_concurrent": 4}
    assert administrator.post(reverse("template-properties", args=[busy.pk]), listed).status_code == 200


@pytest.mark.parametrize("role", [access.VIEWER, access.OPERATOR, access.ADMINISTRATOR])
def test_no_page_holds_inline_code_or_style_or_one_id_twice(
    busy: Template, role: str, login: Callable[[str | None], Client]
) -> None:
    client = login(role)
    for url in addresses(busy):
        response = client.get(url)
        reader = read(response.content.decode())
        assert not reader.faults, url
        twice = {each for each in reader.ids if reader.ids.count(each) > 1}
        assert not twice, (url, twice)
        assert "'unsafe" not in response["Content-Security-Policy"]
        assert "script-src 'self'" in response["Content-Security-Policy"]


def test_pages_of_a_signed_in_user_are_kept_by_no_cache(busy: Template, viewer: Client) -> None:
    for url in addresses(busy)[:20]:
        assert "no-store" in viewer.get(url)["Cache-Control"], url


def test_the_pages_of_an_empty_installation_name_the_next_step(administrator: Client) -> None:
    assert "First steps" in administrator.get("/").content.decode()
    assert "No templates yet" in administrator.get("/templates/").content.decode()
    assert "No providers yet" in administrator.get("/providers/").content.decode()
    assert "No guest VMs yet" in administrator.get("/guests/").content.decode()
    assert "No provider is available" in administrator.get("/templates/new/").content.decode()


def test_the_list_counts_and_words_each_template(busy: Template, viewer: Client) -> None:
    html = viewer.get("/templates/").content.decode()
    assert "Removing / Adding provider" in html
    assert "1 failed" in html
    assert "1 not available" in html
    assert "1 outdated" in html


def test_the_list_is_filtered_sorted_and_paged_by_its_address(world: World, viewer: Client) -> None:
    source = world.provider("source")
    for number in range(60):
        world.template(f"t{number:02d}", source)
    first = viewer.get("/templates/?sort=-name").content.decode()
    assert first.index("t59") < first.index("t58")
    assert "1 / 2" in first
    assert "t05" in viewer.get("/templates/?sort=-name&page=2").content.decode()
    only = viewer.get("/templates/?q=t07").content.decode()
    assert re.findall(r"data-row-link>(\w+)<", only) == ["t07"]
    assert (
        "No template matches" in viewer.get("/templates/?distribution=Failed+to+distribute").content.decode()
    )
    assert viewer.get("/templates/?page=x&sort=y&status=z").status_code == 200


def test_an_island_that_asks_after_the_session_ended_reloads_the_page(db: None) -> None:
    response = Client().get("/templates/", headers={"HX-Request": "true"}, follow=True)
    assert response["HX-Refresh"] == "true"


def test_a_user_without_a_role_is_told_what_to_do(login: Callable[[str | None], Client]) -> None:
    response = login(None).get("/templates/")
    assert response.status_code == 403
    assert "You have no role yet" in response.content.decode()


def test_the_blocked_recreation_names_the_silent_provider_and_what_may_be_done(
    busy: Template, operator: Client
) -> None:
    html = operator.get(reverse("template-recreate", args=[busy.pk])).content.decode()
    assert (
        "All guest VMs must be recreated because the template has been modified. "
        "Do you want to recreate them now?"
    ) in html
    assert "gone is not responding" in html
    for button in ("Check again", "Later", "Only on the providers that respond"):
        assert button in html


def test_the_stored_question_offers_yes_with_the_number_no_and_cancel(world: World, operator: Client) -> None:
    source = world.provider("source")
    template = world.template("win11", source)
    old = template.current_version
    world.version(template, 2)
    for _ in range(24):
        world.guest(template, source, version=old)
    world.run(template, "asked")
    html = operator.get(reverse("template-recreate", args=[template.pk])).content.decode()
    for button in ("Yes, recreate 24 guest VMs", "No, recreate later", "Cancel"):
        assert button in html


def test_what_does_not_apply_in_a_menu_is_disabled_with_its_reason(busy: Template, viewer: Client) -> None:
    url = reverse("templates-menu")
    nothing = viewer.get(url).content.decode()
    assert nothing.count('aria-disabled="true"') == 7
    assert "Select a template first" in nothing
    one = viewer.get(f"{url}?pk={busy.pk}").content.decode()
    assert "Needs the role Operator" in one
    assert one.count('aria-disabled="true"') == 5


def test_the_list_says_how_fast_a_distribution_is_and_how_long_it_takes(
    busy: Template, viewer: Client
) -> None:
    row = viewer.get("/templates/").content.decode()
    assert "1 MiB/s" in row
    assert "left" in row


def test_retry_all_is_offered_only_where_something_failed(
    busy: Template, world: World, operator: Client
) -> None:
    calm = world.template("calm", busy.source_provider)
    assert "Retry all failed" in operator.get(f"/templates/{busy.pk}/").content.decode()
    assert "Retry all failed" not in operator.get(f"/templates/{calm.pk}/").content.decode()


def test_a_creation_that_failed_can_be_retried_from_its_page(world: World, administrator: Client) -> None:
    error = {"error_code": "NO_SPACE", "error_text": "It is full.", "error_action": "Free some."}
    template = world.template("win11", world.provider("source"), "create_failed", **error)
    page = administrator.get(reverse("template", args=[template.pk])).content.decode()
    assert reverse("template-again", args=[template.pk]) in page
    assert not read(page).faults


def test_what_somebody_cancelled_is_not_counted_or_coloured_as_failed(world: World, viewer: Client) -> None:
    template = world.template("win11", world.provider("source"))
    error = {"error_code": "CANCELLED", "error_text": "It was cancelled.", "error_action": "Retry."}
    stopped = world.target(template, world.provider("stopped"), "failed", **error)
    page = viewer.get(reverse("template", args=[template.pk])).content.decode()
    for part in (f"template-{template.pk}-distribution", f"target-{stopped.pk}-progress"):
        cell = page[page.index(f'id="{part}"') :].partition("</div>")[0]
        assert "Failed to distribute" in cell
        assert "#ban" in cell
        assert "danger" not in cell
    assert "1 of 2, 1 cancelled" in page
    assert "It was cancelled. Retry." in page
    assert "Retry all failed" not in page
    assert '"visually-hidden"> failed' not in page

    world.target(template, world.provider("full"), "failed", error_code="NO_SPACE")
    page = viewer.get(reverse("template", args=[template.pk])).content.decode()
    assert "1 of 3, 1 failed, 1 cancelled" in page
    assert '1<span class="visually-hidden"> failed' in page


def test_what_a_page_leaves_out_is_counted_and_one_click_away(
    world: World, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("templates_app.views.overview.SHOWN", 2)
    monkeypatch.setattr("templates_app.pages.GUESTS_SHOWN", 2)
    source = world.provider("source")
    template = world.template("win11 & more", source)
    for number in range(5):
        world.target(template, world.provider(f"host-{number}"), "failed")
        world.guest(template, source, name=f"desk-{number}", phase="create_failed")
    overview = viewer.get(reverse("overview")).content.decode()
    assert '<a href="/activity/">3 more</a>' in overview
    assert '<a href="/guests/?sort=state">3 more</a>' in overview
    page = viewer.get(reverse("template", args=[template.pk])).content.decode()
    assert f'<a href="/guests/?template={template.pk}">3 more</a>' in page
    assert page.count("data-row data-menu") == 2
    page = viewer.get(reverse("provider", args=[source.pk])).content.decode()
    assert '<a href="/guests/?q=source">3 more</a>' in page


def test_a_list_that_is_shown_whole_has_no_more(world: World, viewer: Client) -> None:
    source = world.provider("source")
    template = world.template("win11", source)
    world.guest(template, source)
    assert "more</a>" not in viewer.get(reverse("template", args=[template.pk])).content.decode()


def test_the_tables_of_a_host_and_of_a_template_fit_a_phone(busy: Template, viewer: Client) -> None:
    Inventory.objects.filter(provider=busy.source_provider).update(vms=[])
    for url in (
        reverse("provider", args=[busy.source_provider_id]),
        reverse("template", args=[busy.pk]),
    ):
        tables = re.findall(r'<table class="([^"]+)"', viewer.get(url).content.decode())
        assert len(tables) == 3, url
        assert all("stack" in each.split() for each in tables), url
