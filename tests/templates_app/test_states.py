"""The words of the Distribution, State and Progress columns, exhaustively."""

from __future__ import annotations

from itertools import product

import pytest
from django.db.models import TextChoices

from templates_app import states
from templates_app.states import Desired, Facts, Intent, Phase, State, Word

ALL_FACTS = [Facts(*row) for row in product(Desired, Intent, Phase, (True, False), (True, False))]


def expected_state(facts: Facts) -> str:
    """behaviour in words: silent, then work under way, then what needs a person, then ready."""
    if not facts.available:
        return "Not available"
    needs = facts.phase == "failed" or (facts.phase == "installed" and not facts.current)
    return "Needs update" if needs else "Ready"


@pytest.mark.parametrize("facts", ALL_FACTS, ids=str)
def test_the_state_word_follows_the_table(facts: Facts) -> None:
    assert states.state(facts) == expected_state(facts)


@pytest.mark.parametrize("facts", ALL_FACTS, ids=str)
def test_the_progress_word_follows_the_table(facts: Facts) -> None:
    word = states.progress(facts)
    working = facts.phase in {"waiting", "checking", "copying", "verifying", "publishing"}
    if facts.phase == "failed" or (
        facts.phase == "installed" and facts.desired == "present" and not facts.current
    ):
        assert word == "Failed to distribute"
    elif facts.desired == "absent" or facts.phase == "removing":
        assert word == "Removing provider"
    elif working:
        assert word == ("Adding provider" if facts.intent == "adding" else "Distributing")
    else:
        assert word == "OK"


@pytest.mark.parametrize("available", [True, False])
def test_ok_is_said_only_of_what_is_installed_and_current(available: bool) -> None:
    said = {
        facts.phase
        for facts in ALL_FACTS
        if facts.available == available and states.progress(facts) == Word.OK
    }
    assert said == {Phase.INSTALLED}


def test_a_silent_provider_is_never_shown_as_ready() -> None:
    assert {states.state(facts) for facts in ALL_FACTS if not facts.available} == {State.NOT_AVAILABLE}


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], "OK"),
        ([Word.OK, Word.OK], "OK"),
        ([Word.OK, Word.DISTRIBUTING], "Distributing"),
        ([Word.OK, Word.FAILED], "Failed to distribute"),
        ([Word.FAILED, Word.DISTRIBUTING], "Distributing"),
        ([Word.ADDING, Word.DISTRIBUTING, Word.FAILED], "Adding provider"),
        ([Word.REMOVING, Word.DISTRIBUTING, Word.OK], "Removing provider"),
        ([Word.REMOVING, Word.ADDING, Word.FAILED], "Removing / Adding provider"),
    ],
)
def test_the_distribution_word_is_the_most_telling_of_all_targets(words: list[Word], shown: str) -> None:
    assert states.distribution(words) == shown


@pytest.mark.parametrize(
    ("phases", "moves"),
    [
        (states.Phase, states.TARGET_MOVES),
        (states.TemplatePhase, states.TEMPLATE_MOVES),
        (states.GuestPhase, states.GUEST_MOVES),
        (states.RunPhase, states.RUN_MOVES),
    ],
)
def test_every_phase_has_moves_to_known_phases_only(phases: type[TextChoices], moves: states.Moves) -> None:
    assert set(moves) == set(phases.values)
    assert set().union(*moves.values()) <= set(phases.values)


def test_an_image_is_published_only_after_it_was_verified_or_found() -> None:
    before = {phase for phase, targets in states.TARGET_MOVES.items() if Phase.PUBLISHING in targets}
    assert before == {Phase.CHECKING, Phase.COPYING, Phase.VERIFYING}
