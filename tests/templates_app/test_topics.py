"""Which pages are told of what."""

import pytest

from providers_app.models import Provider
from rasweb import live
from templates_app.models import Template
from tests.templates_app.conftest import Hosts


def test_a_provider_that_goes_away_is_told_to_the_pages_of_its_templates(
    template: Template, three: list[Provider]
) -> None:
    source, *_ = three
    assert {"templates", f"template:{template.pk}", "providers", f"provider:{source.pk}"} <= set(
        source.topics()
    )


def test_a_check_that_finds_nothing_new_is_told_to_the_pages_of_providers_alone(
    hosts: Hosts, template: Template, three: list[Provider], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = three[1]
    told: list[set[str]] = []
    monkeypatch.setattr(live, "changed", lambda kind, pk, *topics: told.append(set(topics)))
    hosts.check(left)
    assert told == [{"providers", f"provider:{left.pk}"}]
    hosts.take_away(left)
    for _ in range(3):
        hosts.check(left)
    hosts.bring_back(left)
    hosts.check(left)
    heard = [f"template:{template.pk}" in topics for topics in told[1:]]
    assert heard == [True, False, True, True]  # its first error, nothing new, silent, back
