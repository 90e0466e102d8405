"""What `lodestar fit` forecasts, beside what training takes: the most resident memory, and pictures a second, in fresh processes.

    python benchmarks/fit.py [--tiny]

A forecast is made from small pieces alone (at most a quarter of the piece it is for), and is to be within 15 %.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from common import head
from rich.console import Console
from rich.table import Table

from lodestar.config import edit
from lodestar.nets.precision import choose_device
from lodestar.presets import RUNS
from lodestar.training import fit
from lodestar.training.inputs import Given
from lodestar.training.pace import prepared
from lodestar.training.run import Run

WITHIN = 0.15
BIG = {"task.model.denoiser.network.width": 128}
TRIALS: tuple[tuple[str, dict[str, object], int], ...] = (
    ("cifar10", {}, 128),
    ("cifar10", BIG, 64),
    ("cifar10", {"train.precision": "float32"}, 128),
    ("shapes.up2", {}, 64),
    ("cifar10_classifier", {}, 128),
    ("cifar10.gan", {}, 64),
    ("cifar10", {**BIG, "train.microbatch": 16}, 64),
    ("cifar10", {**BIG, "task.model.denoiser.network.checkpointing": True}, 64),
)
"""Preset, settings, and the batch whose memory is foretold."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="one small run alone, to see that it runs")
    tiny = parser.parse_args().tiny
    torch.set_num_threads(1)
    table = Table("run", "batch", "forecast, MiB", "peak, MiB", "ratio", "forecast images/s", "measured", title=head())
    worst = 0.0
    for name, settings, batch in (("digits", {}, 64),) if tiny else TRIALS:
        told, got = (child(f"{each}({name!r}, {settings!r}, {batch})") for each in ("foretold", "taken"))
        ratio = told["bytes"] / got["bytes"]
        worst = max(worst, abs(ratio - 1))
        shown = ", ".join([name, *(f"{path.rpartition('.')[2]} {value}" for path, value in settings.items())])
        sizes = (f"{each['bytes'] / 2**20:,.0f}" for each in (told, got))
        table.add_row(shown, str(batch), *sizes, f"{ratio:.3f}", f"{told['pace']:.1f}", f"{got['pace']:.1f}")
    Console(width=160).print(table)
    print(
        f"largest deviation of memory {worst:.1%}, to be within {WITHIN:.0%}: {'reached' if worst <= WITHIN else 'not reached'}"
    )


def child(code: str) -> dict[str, float]:
    """What a fresh process that runs `code` among the names of this file tells; see `memory.peak`."""
    code = f"import torch; torch.set_num_threads(1); from fit import *; print(json.dumps({code}))"
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}; exit $?"
    told = subprocess.run(["sh", "-c", shell], check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent).stdout
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found


def configured(name: str, settings: dict[str, object], batch: int) -> Run:
    """A preset with settings and this batch."""
    return edit(RUNS[name](), [{"train.batch_size": batch, **settings}])


def foretold(name: str, settings: dict[str, object], batch: int) -> dict[str, float]:
    """The forecast, of steps on a quarter of the batch at most."""
    run = configured(name, settings, batch)
    found = fit.forecast(run, noise=True, most=max((run.train.microbatch or batch) // 4, 1))
    return {"bytes": found.peak(found.piece), "pace": found.images_per_second}


def taken(name: str, settings: dict[str, object], batch: int) -> dict[str, float]:
    """The most resident memory of a process that trains, and its pace."""
    import resource
    import time

    from lodestar.data import Shuffled
    from lodestar.training.start import start
    from lodestar.training.step import Step

    run = configured(name, settings, batch)
    run, source, facts = prepared(run, None, Given(fit.Noise(run)))
    step = Step(run, start(run, Path("/dev/null"), facts=facts))
    batches = Shuffled(source, batch, run.data.transforms, workers=0).batches(0)
    given, times = [next(batches) for _ in range(4)], []
    for each in given:
        began = time.perf_counter()
        step(each)
        times.append(time.perf_counter() - began)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    assert choose_device().type == "cpu", "memory of a GPU is not the process's"
    return {"bytes": most, "pace": batch / sorted(times[1:])[1]}


if __name__ == "__main__":
    main()
