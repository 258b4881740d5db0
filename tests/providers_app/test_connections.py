"""Adding, changing and removing providers."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from django.utils import timezone

from providers_app import connections, health, secrets
from providers_app.models import Provider, Reachability
from rasweb.refusals import Refusal
from templates_app.models import Template
from tests.templates_app.conftest import Hosts


@pytest.fixture
def provider(hosts: Hosts) -> Provider:
    return hosts.add("one")


def test_a_host_is_added_with_its_identity(hosts: Hosts) -> None:
    (hosts.root / "new").mkdir()
    provider = connections.add("new", "directory", {"path": str(hosts.root / "new")})
    assert provider.host_id
    assert (hosts.root / "new" / ".rasweb-host.json").exists()


def test_the_same_host_is_not_registered_twice(hosts: Hosts, provider: Provider) -> None:
    with pytest.raises(Refusal, match="registered already, as one"):
        connections.add("two", "directory", {"path": provider.settings["path"]})


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("nothing", {}, "no kind of provider"),
        ("directory", {}, "is missing"),
        ("directory", {"path": "", "wheels": "4"}, "no setting"),
        ("directory", {"path": "/proc"}, "allowed"),
    ],
)
def test_wrong_settings_are_refused_with_a_sentence(
    hosts: Hosts, kind: str, values: dict[str, str], said: str
) -> None:
    with pytest.raises(Refusal, match=said):
        connections.add("new", kind, values)


def test_settings_that_lead_to_another_host_are_refused(hosts: Hosts, provider: Provider) -> None:
    other = hosts.add("other")
    with pytest.raises(Refusal, match="another host"):
        connections.change(provider, {"path": other.settings["path"], "networks": "x"})


def test_what_others_wrote_while_a_host_was_asked_stays(hosts: Hosts, provider: Provider) -> None:
    read_before = Provider.objects.get(pk=provider.pk)
    connections.enable(provider, False)
    provider.touch(failures=2, last_seen_at=timezone.now())
    changed = connections.change(read_before, {**provider.settings, "networks": "lab"})
    assert (changed.settings["networks"], changed.enabled, changed.failures) == ("lab", False, 2)
    assert changed.last_seen_at == provider.last_seen_at
    assert changed.revision > provider.revision


def test_of_two_changes_of_one_provider_at_once_one_wins(hosts: Hosts, provider: Provider) -> None:
    read_before = Provider.objects.get(pk=provider.pk)
    connections.limit(provider, {"max_copies": 2})
    with pytest.raises(Refusal, match="changed by somebody else"):
        connections.change(read_before, provider.settings, limits={"max_copies": 5})
    assert Provider.objects.get(pk=provider.pk).max_copies == 2


def test_a_provider_that_was_changed_is_unknown_until_it_is_checked(hosts: Hosts, provider: Provider) -> None:
    assert provider.available
    health.due()
    changed = connections.change(Provider.objects.get(pk=provider.pk), provider.settings)
    assert (changed.reachability, changed.next_check_at) == (Reachability.UNKNOWN, None)


def test_a_provider_in_use_is_not_deleted(hosts: Hosts, provider: Provider) -> None:
    Template.objects.create(name="win11", source_provider=provider, source_vm="golden")
    with pytest.raises(Refusal, match="still used"):
        connections.delete(provider)


Endpoint = dict[str, str]
HERE: Endpoint = {"host": "here"}


def test_secrets_are_ciphertext_and_come_back_whole() -> None:
    sealed = secrets.seal({"password": "hunter2"}, "kind", HERE)
    assert "hunter2" not in sealed
    assert secrets.unseal(sealed, "kind", HERE) == {"password": "hunter2"}


def test_secrets_given_for_another_address_are_not_used() -> None:
    sealed = secrets.seal({"password": "hunter2"}, "kind", HERE)
    with pytest.raises(Refusal, match="another address"):
        secrets.unseal(sealed, "kind", {"host": "elsewhere"})


def test_a_wrong_key_is_loud_and_an_added_one_is_not(settings: object) -> None:
    sealed = secrets.seal({"password": "hunter2"}, "kind", HERE)
    old: list[str] = settings.FIELD_KEYS  # type: ignore[attr-defined]  # pytest-django's settings are dynamic
    new = Fernet.generate_key().decode()
    settings.FIELD_KEYS = [new, *old]  # type: ignore[attr-defined]  # pytest-django's settings are dynamic
    assert secrets.unseal(sealed, "kind", HERE) == {"password": "hunter2"}
    settings.FIELD_KEYS = [new]  # type: ignore[attr-defined]  # pytest-django's settings are dynamic
    with pytest.raises(Refusal, match="can not be read"):
        secrets.unseal(sealed, "kind", HERE)


def test_a_folder_that_was_never_used_passes_the_connection_test(hosts: Hosts) -> None:
    (hosts.root / "new").mkdir()
    assert connections.test("directory", {"path": str(hosts.root / "new")}).free_bytes > 0
    assert not Provider.objects.filter(name="new").exists()
