"""What was measured, as JSON (format 1, described in docs/performance.md), as a table, and as a part of a page."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .goals import Verdict, verdicts
from .measure import Cost
from .rounds import PEER, Result

FORMAT = 1
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
MIB = 1 << 20
_COLUMNS = (
    "program",
    "time",
    "÷ best copy",
    "÷ best proven",
    "CPU",
    "÷ best copy",
    "memory",
    "read",
    "written",
    "runs",
)


def report(results: Sequence[Result], *, size: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "image_bytes": size,
        "machine": _machine(),
        "cases": [_case(result) for result in results],
        "goals": [vars(verdict) | {"reached": verdict.reached} for verdict in verdicts(list(results))],
    }


def _machine() -> dict[str, Any]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processors": os.cpu_count(),
        "memory_bytes": pages,
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "load": round(os.getloadavg()[2], 1),
    }


def _case(result: Result) -> dict[str, Any]:
    rows = [
        {"name": name, "role": entry.role, "proven": entry.proven, "runs": len(result.costs[name])}
        | vars(Cost.median_of(result.costs[name]))
        | {"fastest": min(cost.wall for cost in result.costs[name])}
        | _ratios(result, name)
        for name, entry in result.entries.items()
        if result.costs[name]
    ]
    return {
        "case": result.case,
        "about": result.about,
        "data": result.data,
        "rows": rows,
        "notes": result.notes,
    }


def _ratios(result: Result, name: str) -> dict[str, float | None]:
    """Against the best other program that copies, and against the best that proves its copies too; None for none."""
    peers = [
        (entry, Cost.median_of(result.costs[other]))
        for other, entry in result.entries.items()
        if entry.role == PEER and result.costs[other]
    ]
    mine = Cost.median_of(result.costs[name])
    proven = [cost for entry, cost in peers if entry.proven]
    return {
        "wall_to_best": _ratio(mine.wall, [cost.wall for _, cost in peers]),
        "wall_to_best_proven": _ratio(mine.wall, [cost.wall for cost in proven]),
        "cpu_to_best": _ratio(mine.cpu, [cost.cpu for _, cost in peers]),
    }


def _ratio(mine: float, others: Sequence[float]) -> float | None:
    best = min(others, default=0.0)
    return mine / best if best else None


def table(found: dict[str, Any]) -> str:
    return "\n\n".join(_blocks(found))


def _blocks(found: dict[str, Any]) -> Iterator[str]:
    machine = found["machine"]
    yield (
        f"Medians of interleaved runs; image {found['image_bytes'] >> 20} MiB; {machine['processors']} processors, "
        f"{machine['memory_bytes'] >> 30} GiB of memory, Linux {machine['kernel']}, Python {machine['python']}; "
        f"load of the last 15 minutes {machine['load']}. ✓ = all was read back and compared."
    )
    for case in found["cases"]:
        rows = [_cells(row) for row in case["rows"]]
        parts = [f"**{case['case']}.** {case['about']}", *([_grid([_COLUMNS, *rows])] if rows else [])]
        parts += [f"- {note}" for note in case["notes"]]
        yield "\n\n".join(parts[:2] + ["\n".join(parts[2:])] * bool(parts[2:]))
    if found["goals"]:
        yield "**Goals**\n\n" + _grid(
            [("goal", "at most", "measured", "reached"), *(_verdict(goal) for goal in found["goals"])]
        )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"] + (" ✓" if row["proven"] else ""),
        f"{row['wall']:.2f} s",
        _times(row["wall_to_best"]),
        _times(row["wall_to_best_proven"]),
        f"{row['cpu']:.2f} s",
        _times(row["cpu_to_best"]),
        f"{row['memory'] / MIB:.0f} MiB",
        f"{row['read'] / MIB:.0f} MiB",
        f"{row['written'] / MIB:.0f} MiB",
        str(row["runs"]),
    )


def _verdict(goal: dict[str, Any]) -> tuple[str, ...]:
    return (
        goal["text"],
        f"{goal['limit']:g}",
        f"{goal['measured']:.2f}",
        "yes" if goal["reached"] else "**no**",
    )


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _grid(rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as text and is one in Markdown."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            _padded(cell, width, at) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = (
        "|" + "|".join("-" * (width + 1) + ("-" if not at else ":") for at, width in enumerate(widths)) + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])


def _padded(cell: str, width: int, at: int) -> str:
    return cell.rjust(width) if at else cell.ljust(width)


def write(path: Path, text: str) -> None:
    """Put ``text`` between the marks of a page; ValueError where the page has none."""
    head, begin, rest = path.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


__all__: Sequence[str] = ["Verdict", "report", "table", "write"]
