"""Tasks of several phases, shown by a small generator and its critic."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from lodestar import checkpoint
from lodestar.config import Problem
from lodestar.data import Batch, DataFacts, Source
from lodestar.data.arrays import ArrayRows
from lodestar.objectives import Losses
from lodestar.tasks import Export, Frozen, Learner, OptimizerConfig, Phase, Rng, Task
from lodestar.training.ema import Decay, HalfLife
from lodestar.training.loop import Loop
from lodestar.training.names import MODEL
from lodestar.training.run import DataConfig, Run, TrainConfig
from lodestar.training.start import start
from lodestar.training.state import TrainState
from lodestar.training.step import Step

from .runs import logged, saved


class Adversarial(Task):
    """A generator of pictures of 2×2 and a critic of them."""

    kind: Literal["adversarial"] = "adversarial"
    every: int = 1
    """Steps for one of the critic's."""
    frozen: tuple[str, str, str | None] | None = None

    def resolve(self, facts: DataFacts) -> Adversarial:
        return self

    def build(self, device: torch.device, dtype: torch.dtype) -> AdversarialLearner:
        return AdversarialLearner(self)


class AdversarialLearner(Learner):
    """See Adversarial."""

    def __init__(self, task: Adversarial) -> None:
        self.task = task
        self.generator = nn.Linear(4, 12)
        self.critic = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.module = nn.ModuleDict({"generator": self.generator, "critic": self.critic})
        self.spoiled = math.nan, ""
        self.steps: list[tuple[str, Tensor]] = []
        """The generator's bias as each phase saw it."""
        if task.frozen is not None:
            name, kind, digest = task.frozen
            self.frozen = {name: Frozen(nn.Linear(2, 3), kind, digest)}

    def phases(self) -> list[Phase]:
        return [
            Phase("generator", list(self.generator.parameters()), self.fool),
            Phase(
                "critic",
                list(self.critic.parameters()),
                self.tell,
                optimizer=OptimizerConfig(rate=3e-3, clip=None),
                every=self.task.every,
            ),
        ]

    def fool(self, batch: Batch, rng: Rng) -> Losses:
        """The generator's loss: what the critic thinks of what it makes."""
        return self._losses("generator", -self.critic(self.generator(rng.normal(4)))[:, 0])

    def tell(self, batch: Batch, rng: Rng) -> Losses:
        """The critic's: real pictures from made ones. It leads back to the generator, which this phase must leave alone."""
        real, made = batch.image.flatten(1) / 255, self.generator(rng.normal(4))
        return self._losses("critic", (self.critic(made) - self.critic(real))[:, 0].tanh())

    def _losses(self, name: str, total: Tensor) -> Losses:
        self.steps.append((name, self.generator.bias.detach().clone()))
        value, where = self.spoiled
        return Losses(total + value if where == name else total, {"mean": total.detach()})

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.generator, "toy", "{}")}

    def compile(self) -> None:
        raise NotImplementedError


def begin(folder: Path, images: int = 32, **task: Any) -> tuple[Run, TrainState, Step]:
    """Runs are of the kinds that the package has; this one is put together unchecked."""
    settings = TrainConfig(
        images=images,
        batch_size=4,
        microbatch=2,
        optimizer=OptimizerConfig(rate=1e-2),
        ema=(HalfLife(images=20), Decay(decay=0.5)),
        log_every=8,
        save_every=8,
        preview_every=1000,
    )
    run = Run.model_construct(task=Adversarial(**task), data=DataConfig(source="toy"), train=settings)  # type: ignore[arg-type]
    state = start(run, folder)
    return run, state, Step(run, state)


def batch() -> Batch:
    rng = torch.Generator().manual_seed(1)
    return Batch({"image": torch.randint(0, 256, (4, 3, 2, 2), dtype=torch.uint8, generator=rng)})


def copied(state: TrainState) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


def learner(state: TrainState) -> AdversarialLearner:
    assert isinstance(state.learner, AdversarialLearner)
    return state.learner


def test_phases_run_in_turn_and_each_moves_its_own(tmp_path: Path) -> None:
    _, state, step = begin(tmp_path)
    before = copied(state)
    logs = step(batch())
    seen = learner(state).steps
    assert [name for name, _ in seen] == ["generator", "generator", "critic", "critic"], "in two pieces each"
    start_bias = before["weights/generator.bias"]
    assert torch.equal(seen[1][1], start_bias)
    assert not torch.equal(seen[2][1], start_bias), "the critic sees the generator that has moved"
    assert torch.equal(seen[2][1], state.tensors()["weights/generator.bias"]), "and leaves it alone"
    # At their first step AdamW's weights move by about the rate: the critic's is its own.
    moved = {name: (value - before[name]).abs().max().item() for name, value in state.tensors().items() if name in before}
    assert moved["weights/generator.weight"] == pytest.approx(1e-2, rel=0.05)
    assert moved["weights/critic.2.weight"] == pytest.approx(3e-3, rel=0.05)
    gradients = [parameter.grad for parameter in learner(state).generator.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).item()
    assert norm == pytest.approx(min(logs["generator/gradient"].item(), 1.0), rel=1e-4), "the critic has added nothing"


def test_phases_log_under_their_names(tmp_path: Path) -> None:
    _, _, step = begin(tmp_path)
    logs = step(batch())
    assert logs.keys() == {f"{phase}/{what}" for phase in ("generator", "critic") for what in ("loss", "mean", "gradient")}
    assert torch.equal(logs["generator/loss"], logs["generator/mean"])
    assert not torch.equal(logs["generator/loss"], logs["critic/loss"])
    assert step.rates == {"generator/rate": 1e-2, "critic/rate": 3e-3}


@pytest.mark.parametrize("phase", ["generator", "critic"])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_step_that_is_not_finite_in_any_phase_moves_nothing(phase: str, steps: int, tmp_path: Path) -> None:
    _, state, step = begin(tmp_path)
    for _ in range(steps):
        step(batch())
    before = copied(state)
    learner(state).spoiled = math.nan, phase
    assert step(batch()) == {}
    assert not step.finite
    after = copied(state)
    assert after.keys() == before.keys(), "an optimizer that has not moved knows nothing"
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in state.learner.module.parameters())
    assert (state.counters.steps, state.counters.skipped) == (steps + 1, 1)
    learner(state).spoiled = math.nan, ""
    assert step(batch()) and step.finite
    assert not any(torch.equal(state.tensors()[name], before[name]) for name in before if name.endswith("running_mean"))


def test_a_phase_may_have_its_turn_in_every_other_step(tmp_path: Path) -> None:
    _, state, step = begin(tmp_path, every=2)
    turns = [{name.partition("/")[0] for name in step(batch())} for _ in range(4)]
    assert turns == [{"generator", "critic"}, {"generator"}] * 2
    assert state.tensors()["optimizer/critic/0/step"] == 2
    assert state.tensors()["optimizer/generator/0/step"] == 4


def test_a_run_is_gone_on_with_before_a_phase_has_moved(tmp_path: Path) -> None:
    _, state, step = begin(tmp_path, every=2)
    learner(state).spoiled = math.nan, "critic"
    step(batch())
    learner(state).spoiled = math.nan, ""
    step(batch())
    _, other, _ = begin(tmp_path, every=2)
    other.counters = state.counters
    other.restore(copied(state), Path("there"))
    assert not any(name.startswith("optimizer/critic") for name in other.tensors())
    assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in state.tensors().items())


def test_the_model_is_what_is_exported_and_averages_are_its_alone(tmp_path: Path) -> None:
    _, state, step = begin(tmp_path)
    step(batch())
    names = {name.removeprefix("ema/half_life20/") for name in state.tensors() if name.startswith("ema/half_life20/")}
    assert names == {"generator.weight", "generator.bias"}


def source() -> Source:
    return Source(ArrayRows(np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3), dtype=np.uint8)), "toy")


def run_to(folder: Path, images: int, told: io.StringIO | None = None) -> TrainState:
    run, state, _ = begin(folder, images)
    Loop(run, state, folder, Console(file=told or io.StringIO(), width=200))(source(), None)
    return state


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_run_of_several_phases_resumes_to_the_same_bits_and_saves_its_models(tmp_path: Path) -> None:
    whole, told = tmp_path / "whole", io.StringIO()
    run_to(whole, 32, told)
    run_to(tmp_path / "run", 16)
    run_to(tmp_path / "run", 32)
    (counters, tensors), (others, other_tensors) = saved(whole), saved(tmp_path / "run")
    assert counters == others and tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())
    line = logged(whole)[-1]
    assert {"generator/loss", "critic/loss", "generator/rate", "critic/rate"} <= line.keys() and "loss" not in line
    assert f"generator/loss {logged(whole)[-2]['generator/loss']:.4f} critic/loss" in told.getvalue()
    for file, label in ((MODEL, "half_life20"), ("model-decay0.5.safetensors", "decay0.5")):
        header, model = checkpoint.load(whole / file, "toy")
        assert header.config == "{}" and model.keys() == {"weight", "bias"}
        assert all(torch.equal(value, tensors[f"ema/{label}/generator.{name}"]) for name, value in model.items())


def test_frozen_modules_of_any_kind_are_filled_and_pinned(tmp_path: Path) -> None:
    path, theirs = tmp_path / "thing.safetensors", nn.Linear(2, 3)
    checkpoint.save(path, "thing", "{}", theirs.state_dict(), {})
    digest = checkpoint.peek(path).digest
    for pinned in (digest, None):
        _, state, _ = begin(tmp_path / "run", frozen=(str(path), "thing", pinned))
        (frozen,) = state.learner.frozen.values()
        assert torch.equal(frozen.module.weight, theirs.weight)  # type: ignore[arg-type]
    with pytest.raises(Problem, match="holds a thing, and a classifier is needed here"):
        begin(tmp_path / "run", frozen=(str(path), "classifier", None))
    checkpoint.save(path, "thing", "{}", nn.Linear(2, 3).state_dict(), {})
    with pytest.raises(Problem, match=rf"is not the model that this run needs: its SHA-256 is .*, not {digest}"):
        begin(tmp_path / "run", frozen=(str(path), "thing", digest))
