"""Training by two processes on two cores against one on one core, and the share of a step that goes into sums over processes.

    python benchmarks/processes.py [--rounds 3] [--cores 0,1]

Runs of one and of two processes take turns; each process has a core and a thread of its own, and the batch is the same. Nothing
else may run on these cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import Goal, head, summary
from rich.console import Console

STEPS = 8


def main() -> None:
    """Print the figures, or, started by torchrun, time the steps of a process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", default="0,1", help="cores of the processes")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", action="store_true", help="time steps: what torchrun starts")
    given = parser.parse_args()
    cores = [int(core) for core in given.cores.split(",")]
    if given.steps:
        return steps(cores, given.batch_size)
    paces: dict[int, list[float]] = {1: [], 2: []}
    sums: list[float] = []
    for _ in range(given.rounds):
        for processes, found in paces.items():
            pace, share = started(processes, given.cores, given.batch_size)
            found.append(pace)
            sums += [share] if processes == 2 else []
    gain, share = statistics.median(paces[2]) / statistics.median(paces[1]), statistics.median(sums)
    print(head())
    goals = [Goal("training by two processes against one", gain, 1.7, 1.7), Goal("share of sums", share, 0.05, 0.05, most=True)]
    Console().print(summary(goals))


def started(processes: int, cores: str, batch: int) -> tuple[float, float]:
    """Images a second of so many processes, and the share of their time in sums."""
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    command = (*launch, __file__, "--steps", "--cores", cores, "--batch-size", str(batch))
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(told[0]), float(told[1])


def steps(cores: list[int], batch: int) -> None:
    """Time steps of a process on its core; the first tells."""
    from lodestar.config import edit
    from lodestar.data import Shuffled
    from lodestar.presets import RUNS
    from lodestar.training.fit import Noise
    from lodestar.training.inputs import Given
    from lodestar.training.pace import prepared
    from lodestar.training.start import start
    from lodestar.training.step import Step
    from lodestar.world import here

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores[int(os.environ["LOCAL_RANK"]) % len(cores)]})
    torch.set_num_threads(1)
    world, run = here(), edit(RUNS["cifar10"](), [{"train.batch_size": batch}])
    run, source, facts = prepared(run, "cpu", Given(Noise(run)))
    step = Step(run, start(run, Path(os.devnull), "cpu", facts=facts), world)
    batches = Shuffled(source, batch, run.data.transforms).batches(0, 0, world.rank, world.size)
    step(next(batches))
    spent, total = 0.0, world.sum

    def timed(*summed: Any) -> None:
        nonlocal spent
        world.any(False)  # who is ready first waits here, which is no cost of the sum
        began = time.perf_counter()
        total(*summed)
        spent += time.perf_counter() - began

    step.world.sum = timed  # type: ignore[method-assign, assignment]
    world.any = lambda flag: flag if world.size == 1 else bool(torch.distributed.barrier())  # type: ignore[method-assign]
    began = time.perf_counter()
    for _ in range(STEPS):
        step(next(batches))
    seconds = time.perf_counter() - began
    if world.rank == 0:
        print(STEPS * batch / seconds, spent / seconds)


if __name__ == "__main__":
    main()
