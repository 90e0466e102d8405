"""Random kills, as many as are asked for: ``python -m tests.faults --count 100 --seed 0``. A failed one is named by its seed."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from tests.faults.kills import Faults

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        faults = Faults(Path(folder))
        for seed in range(given.seed, given.seed + given.count):
            try:
                done[faults(seed)] += 1
            except AssertionError as error:
                raise SystemExit(f"seed {seed}: {error}") from error
            print(f"\r{done.total()} kills", end="", flush=True)
    kinds = ", ".join(f"{count} in {kind}" for kind, count in sorted(done.items()))
    print(f"\r{done.total()} kills ({kinds}): all ended as if not killed")
