"""Which pages are told of what."""

from providers_app.models import Provider
from templates_app.models import Template


def test_a_provider_that_goes_away_is_told_to_the_pages_of_its_templates(
    template: Template, three: list[Provider]
) -> None:
    source, *_ = three
    assert {"templates", f"template:{template.pk}", "providers", f"provider:{source.pk}"} <= set(
        source.topics()
    )
