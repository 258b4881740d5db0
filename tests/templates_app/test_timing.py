"""Why is it slow: the words."""

from __future__ import annotations

import pytest

from templates_app.timing import RECENT_SECONDS, Timing, concluded, held_up_by, outcome, sentence, summary


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_counts_is_what_happened_lately() -> None:
    clock = Clock()
    timing = Timing(clock)
    clock.now += 60
    timing.note({"source": 55.0, "write": 5.0})
    clock.now += RECENT_SECONDS
    kept = timing.note({"source": 56.0, "write": 14.0})
    assert kept == {"seconds": {"source": 56.0, "write": 14.0}, "lately": {"source": 1.0, "write": 9.0}}
    assert held_up_by(kept) == "write"


@pytest.mark.parametrize(
    ("lately", "cause"),
    [
        ({}, ""),
        ({"limit": 7.0, "write": 2.0, "verify": 9.0}, "limit"),
        ({"verify": 8.0, "flush": 1.0}, "verify"),
        ({"prepare": 3.0}, "prepare"),
    ],
    ids=repr,
)
def test_proving_counts_only_where_nothing_is_sent(lately: dict[str, float], cause: str) -> None:
    assert held_up_by({"lately": lately}) == cause


def test_the_sentence_names_the_cause_and_the_figures() -> None:
    kept = {"lately": {"limit": 7.5, "write": 2.0, "source": 0.4, "hash": 0.1}, "seconds": {"limit": 7.5}}
    assert sentence(kept) == "Held up by: the bandwidth limit 75 %, writing to the provider 20 %"
    assert summary(kept) == {"held_up_by": "limit", "seconds": {"limit": 7.5}}


def test_before_the_first_copy_nothing_is_said() -> None:
    assert (sentence({}), summary({})) == ("", None)


def test_a_published_copy_tells_what_it_took_and_at_which_rate() -> None:
    kept = concluded({"seconds": {"write": 150.0}}, 150.4, 46 << 30)
    assert outcome(kept) == "46.0 GiB in 2 min 31 s · 313 MiB/s"
    assert summary(kept) == {"held_up_by": None, "seconds": {"write": 150.0}}


def test_a_copy_that_sent_nothing_boasts_of_no_rate() -> None:
    assert outcome(concluded({}, 3.0, 0)) == outcome({}) == ""
