"""Pieces of a batch and processes that share one take the step that the whole batch takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from lodestar.core.draws import LossSecondMoment
from lodestar.core.schedule import Cosine
from lodestar.data import Batch, DataFacts
from lodestar.models.clip import ClipModelConfig
from lodestar.nets.clip import ClipConfig, TextTowerConfig
from lodestar.nets.clip_image import ViTConfig
from lodestar.tasks import OptimizerConfig, TrainClip
from lodestar.training.run import Run
from lodestar.training.start import start
from lodestar.training.state import TrainState
from lodestar.training.step import Step
from lodestar.world import World

from .runs import classifying, denoising

SHARED = {"optimizer": OptimizerConfig(rate=1e-9), "batch_size": 7}
"""So slow that weights stay: an optimizer that divides by the gradient's size makes much of its rounding."""


def remembering() -> Run:
    """A run with dropout, dropped labels and levels that follow the losses of four steps of the chain."""
    run = denoising("", **SHARED)
    model = run.task.model.replace(schedule=Cosine(timesteps=4))  # type: ignore[union-attr]
    return run.replace(task=run.task.replace(model=model, levels=LossSecondMoment(history=2)))


def contrasting() -> Run:
    """A run whose loss couples the pictures of a batch."""
    image = ViTConfig(size=(8, 8), patch=4, width=16, layers=1, heads=2, embed=8, time="sinusoid")
    text = TextTowerConfig(vocabulary=257, context=16, width=16, layers=1, heads=2)
    model = ClipModelConfig(network=ClipConfig(image=image, text=text), schedule=Cosine(timesteps=4))
    return denoising("", **SHARED).replace(task=TrainClip(model=model))


RUNS = {
    "denoising": denoising("", **SHARED),
    "remembering": remembering(),
    "classifying": classifying("", noised=True, **SHARED),
    "contrasting": contrasting(),
}


def begin(run: Run, microbatch: int | None, folder: Path) -> tuple[Run, TrainState]:
    """A state whose weights are random, so that no layer is zero and hides what others do."""
    run = run.replace(
        task=run.task.resolve(DataFacts(3, (8, 8), ("a", "b", "c"), True, lambda: "abcdefg")),
        train=run.train.replace(microbatch=microbatch),
    )
    state = start(run, folder)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in state.learner.module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return run, state


def batches(count: int = 3) -> list[Batch]:
    rng = torch.Generator().manual_seed(1)
    return [
        Batch(
            {
                "image": torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8, generator=rng),
                "label": torch.randint(0, 3, (7,), generator=rng),
                "caption": tuple("abcdefg"),
            }
        )
        for _ in range(count)
    ]


class Together(World):
    """One of the processes of a run, played by threads that meet."""

    def __init__(self, rank: int, size: int, meeting: Barrier, table: list[Any]) -> None:
        self.rank, self.size, self.meeting, self.table = rank, size, meeting, table

    def _exchange(self, mine: Any) -> list[Any]:
        self.table[self.rank] = mine
        self.meeting.wait(30)
        all_of_them = list(self.table)
        self.meeting.wait(30)
        return all_of_them

    def sum(self, tensors: Any, sent: Any = None) -> None:
        for tensor, *parts in zip(tensors, *self._exchange([tensor.clone() for tensor in tensors]), strict=True):
            tensor.copy_(sum(parts))

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat(self._exchange(tensor))


def steps(run: Run, state: TrainState, world: World) -> tuple[TrainState, list[dict[str, Tensor]]]:
    """Three steps of a process on its share of three batches."""
    step, share = Step(run, state, world), world.share(run.train.batch_size)
    return state, [step(batch[share]) for batch in batches()]


def assert_alike(found: list[tuple[TrainState, list[dict[str, Tensor]]]]) -> None:
    """The means of the gradients, what is remembered of losses, and what is logged are the same up to rounding."""
    (state, logs), *others = found
    for other, other_logs in others:
        theirs = other.tensors()
        for name, tensor in state.tensors().items():
            if name.endswith("/exp_avg") or name.startswith("memory/"):
                scale = tensor.abs().max().item()
                torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=max(1e-3 * scale, 1e-7), msg=name)
        for log, other_log in zip(logs, other_logs, strict=True):
            assert log.keys() == other_log.keys() and "loss" in log
            for name, values in log.items():
                torch.testing.assert_close(other_log[name], values, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", RUNS)
def test_any_pieces_take_the_step_of_the_whole_batch(name: str, tmp_path: Path) -> None:
    assert_alike([steps(*begin(RUNS[name], size, tmp_path), World()) for size in (None, 1, 3, 6)])


@pytest.mark.parametrize("name", RUNS)
def test_processes_that_share_a_batch_take_the_step_of_one(name: str, tmp_path: Path) -> None:
    """Two of them, three and four pictures each, in pieces of two."""
    meeting, table = Barrier(2), [None, None]
    ours = [(*begin(RUNS[name], 2, tmp_path), Together(rank, 2, meeting, table)) for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda process: steps(*process), ours))
    assert_alike([steps(*begin(RUNS[name], None, tmp_path), World()), *together])


def test_shares_are_the_batch_in_order() -> None:
    worlds = [Together(rank, 3, Barrier(3), []) for rank in range(3)]
    rows = [range(8)[world.share(8)] for world in worlds]
    assert [len(each) for each in rows] == [2, 3, 3]
    assert [row for each in rows for row in each] == list(range(8))
    assert World().share(8) == slice(0, 8)


def test_a_loss_that_is_not_finite_on_one_process_skips_the_step_on_all(tmp_path: Path) -> None:
    meeting, table = Barrier(2), [None, None]

    def process(rank: int) -> tuple[int, list[dict[str, Tensor]]]:
        run, state = begin(RUNS["denoising"], None, tmp_path)
        before = [parameter.clone() for parameter in state.learner.module.parameters()]
        step = Step(run, state, Together(rank, 2, meeting, table))
        if rank == 1:
            (phase,) = step.phases
            loss: Any = phase.loss
            step.phases = (
                replace(phase, loss=lambda batch, rng: replace(made := loss(batch, rng), total=made.total * torch.inf)),
            )
        told = step(batches(1)[0][step.world.share(7)])
        assert all(map(torch.equal, before, state.learner.module.parameters()))
        return state.counters.skipped, [told]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(process, range(2))) == [(1, [{}])] * 2
