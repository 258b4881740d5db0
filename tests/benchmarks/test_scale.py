"""The measurement of a controller, once, small, for real."""

from __future__ import annotations

from .scale import apart, table


def test_a_controller_is_measured_in_a_process_of_its_own() -> None:
    found = apart("SQLite", (4, 5), 0.1)
    assert found["work"]["reconciler pass"]["queries"] < 40
    assert found["progress"]["beats that met a lock"] == 0
    assert "page: overview" in table([found])
