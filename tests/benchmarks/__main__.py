"""``python -m tests.benchmarks [case …]``: the engine beside other programs, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from .cases import CASES
from .report import report, table, write
from .rounds import MOST_ROUNDS, measure

NEEDED = 7
"""Times the size of the image is what the largest case takes on the disk: 8 copies, half of them holes, and more."""


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    results = []
    with tempfile.TemporaryDirectory(prefix="rasweb-bench-", dir=options.folder) as folder:
        size = options.size << 20
        if shutil.disk_usage(folder).free < NEEDED * size:
            raise SystemExit(f"{folder} has less than {NEEDED * size >> 20} MiB free.")
        makings = [partial(make, Path(folder), size) for name in options.cases for make in CASES[name]]
        results = measure(makings, rounds=options.rounds, seconds=options.seconds, tell=_tell)
    found = report(results, size=size)
    print(json.dumps(found, indent=2) if options.json else table(found))
    if options.write:
        write(options.write, table(found))


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"any of {', '.join(CASES)}; all if none")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the image, half of it holes (1024)")
    parser.add_argument(
        "--rounds", type=int, default=MOST_ROUNDS, help=f"runs of each at most ({MOST_ROUNDS})"
    )
    parser.add_argument("--seconds", type=float, default=660, help="of all cases together, about (660)")
    parser.add_argument("--folder", help="where to work: on the disk to be measured, not in memory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the tables into docs/performance.md too"
    )
    options = parser.parse_args()
    options.cases = options.cases or list(CASES)
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("Interrupted; everything was removed.") from None
