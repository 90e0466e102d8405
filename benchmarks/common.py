"""What all tables share: times taken in turn, targets and whether they are reached, and the processor's name and abilities."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from lodestar.nets.native import processor
from lodestar.nets.precision import PRECISIONS, choose_dtype, name_of

CPU = torch.device("cpu")
FORMATS = tuple(PRECISIONS)
"""Number formats of networks: those of `--precision`."""
ABILITIES = {"AVX2": "avx2", "AVX512": "avx512f", "AVX512_BF16": "avx512_bf16", "VNNI": "avx512_vnni avx_vnni", "AMX": "amx_tile"}
"""Instruction sets that matter for number formats, and the system's words for them, one of which is enough."""


@dataclass(frozen=True)
class Setting:
    """Settings of a run."""

    repeats: int
    guided_diffusion: Path | None = None
    """Checkout of openai/guided-diffusion, or None to leave it out."""
    bsrgan: Path | None = None
    """Checkout of cszn/BSRGAN, or None to leave it out."""


@dataclass(frozen=True)
class Goal:
    """A measured ratio and its target."""

    what: str
    measured: float
    target: float
    """For processors without matrix tiles (AMX)."""
    tiles: float
    """For those with them."""
    most: bool = False
    """True for a ratio that is to be at most the target."""

    @property
    def reached(self) -> bool:
        """True if the target for this processor is reached."""
        target = self.tiles if has("AMX") else self.target
        return self.measured <= target if self.most else self.measured >= target


def has(ability: str) -> bool:
    """True if the processor has the ability."""
    return bool(set(ABILITIES[ability].split()) & set(processor().abilities.split()))


def chosen(training: bool = False) -> str:
    """The format that is chosen by itself here."""
    return name_of(choose_dtype(None, CPU, "training" if training else "sampling", ranged=True))


def head() -> str:
    """The processor, its abilities, and the chosen formats, in a line."""
    abilities = ", ".join(f"{'' if has(each) else 'no '}{each}" for each in ABILITIES)
    return (
        f"{processor().name} ({abilities}), torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"chosen by itself: {chosen()}, in training {chosen(True)}"
    )


def summary(goals: list[Goal]) -> Table:
    """The table of targets."""
    kind = "with AMX" if has("AMX") else "without AMX"
    table = Table("ratio", "measured", f"target, {kind}", "", title=f"targets: {processor().name}")
    for goal in goals:
        sign, target = "≤" if goal.most else "≥", goal.tiles if has("AMX") else goal.target
        table.add_row(goal.what, f"{goal.measured:.2f}", f"{sign} {target:.2f}", "reached" if goal.reached else "not reached")
    return table


def seconds(
    calls: dict[str, Callable[[], object]], repeats: int, pick: Callable[[list[float]], float] = statistics.median
) -> dict[str, float]:
    """The median time of each call (or what `pick` takes), all in turn, so that a drifting machine drifts for all."""
    for call in calls.values():
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: pick(each) for name, each in times.items()}
