"""The initial or resumed state of a run."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from lodestar import checkpoint, library
from lodestar.config import Problem
from lodestar.core.noise import generator
from lodestar.data import DataFacts
from lodestar.nets.precision import PRECISIONS, choose_device, choose_dtype, name_of
from lodestar.tasks import Frozen, Learner, Phase
from lodestar.training.ema import Average
from lodestar.training.init import initialize
from lodestar.training.muon import muon
from lodestar.training.names import STATE
from lodestar.training.run import Run
from lodestar.training.saving import kept
from lodestar.training.sharding import Shards
from lodestar.training.state import Counters, TrainState
from lodestar.world import World


def start(
    run: Run, folder: Path, device: str | None = None, console: Console | None = None, facts: DataFacts | None = None
) -> TrainState:
    """A fresh state, or the folder's checkpoint. Raises Problem if a file is not valid."""
    place = choose_device(device)
    path = folder / STATE
    header, tensors = _saved(path) if path.exists() else (None, {})
    counters = Counters() if header is None else Counters(**header.provenance)
    asked = run.train.precision if counters.precision is None else counters.precision
    dtype = choose_dtype(asked, place, "training")
    counters.precision = name_of(dtype)
    _seed_torch(run.train.seed)
    learner = run.task.build(place, dtype)
    for name, frozen in learner.frozen.items():
        _fill(frozen, name)
    learner.begin(facts)
    if run.train.init is not None and not path.exists():
        told = initialize(learner, run.train.init)
        if console is not None:
            console.print(Text(told), soft_wrap=True)
    state = TrainState(learner, {phase.name: _optimizer(run, learner, phase) for phase in learner.phases()}, [], counters)
    state.averages += [Average(profile, list(state.averaged().values())) for profile in run.train.ema]
    if path.exists():
        state.restore(tensors, path)
    return state


def _saved(path: Path) -> tuple[checkpoint.Header, dict[str, Tensor]]:
    """A run's state. Raises Problem if it is damaged, naming the state before."""
    try:
        return checkpoint.load(path, "state")
    except Problem as problem:
        if not (earlier := kept(path.parent)):
            raise
        raise Problem(f"{problem}; the state before is {earlier[-1]}: move it there, and the run goes on from it") from None


def divide(state: TrainState, run: Run, world: World) -> None:
    """Divide a state, the same on all processes, among them: each keeps its shards of weights, optimizer and averages alone."""
    learner = state.learner
    slots = {name: optimizer.state_dict()["state"] for name, optimizer in state.optimizers.items()}
    device = next(learner.module.parameters()).device
    state.shards = shards = Shards(learner.module, world, device, PRECISIONS[run.train.reduce])
    for average in state.averages:
        average.values = [shards.part(value) for value in average.values]
    state.optimizers = {phase.name: _optimizer(run, learner, phase) for phase in learner.phases()}
    for name, optimizer in state.optimizers.items():
        parts = {
            index: {slot: shards.part(value) if value.ndim else value for slot, value in saved.items()}
            for index, saved in slots[name].items()
        }
        optimizer.load_state_dict({**optimizer.state_dict(), "state": parts})


def _seed_torch(seed: int) -> None:
    """Seed torch's own generators, used for the initial weights of layers, by all 64 bits of a seed; see `generator`."""
    torch.manual_seed(seed)
    torch.set_rng_state(generator(seed).get_state())


def _fill(frozen: Frozen, name: str) -> None:
    """Load the named model's weights into a frozen module. Raises Problem if its SHA-256 is not the required one."""
    path = library.find(name)
    header, tensors = checkpoint.load(path, frozen.kind)
    if frozen.digest is not None and header.digest != frozen.digest:
        raise Problem(f"{path} is not the model that this run needs: its SHA-256 is {header.digest}, not {frozen.digest}")
    checkpoint.fill(frozen.module, tensors, path)


def _optimizer(run: Run, learner: Learner, phase: Phase) -> torch.optim.Optimizer:
    settings = phase.optimizer or run.train.optimizer
    if settings.method == "muon":
        return muon(learner.module, phase.parameters, settings)
    return torch.optim.AdamW(
        phase.parameters, lr=settings.rate, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )
