"""Pictures paired with noise at the least cost, within their classes."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from lodestar.conditions import LabelCondition, LowRes
from lodestar.config import Problem
from lodestar.data import Batch, DataFacts
from lodestar.denoiser import DenoiserConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Draw
from lodestar.tasks import Rng, TrainDenoiser
from lodestar.tasks.denoise import DenoiseLearner
from lodestar.tasks.pairing import optimal
from lodestar.training.run import Run, TrainConfig

NETWORK = UNetConfig(width=8, multipliers=(1,), blocks=1, attention=(), head_channels=8, norm_groups=4)


def drawn(count: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    return torch.randn(count, *shape, generator=rng), torch.randn(count, *shape, generator=rng)


def cost(x0: torch.Tensor, eps: torch.Tensor) -> float:
    return (x0 - eps).square().sum().item()


def test_no_permutation_within_the_classes_costs_less() -> None:
    x0, eps = drawn(6, 2, 3)
    group = torch.tensor([0, 1, 0, 1, 1, 0])
    allowed = [order for order in map(list, permutations(range(6))) if torch.equal(group[order], group)]
    assert len(allowed) == 36
    found = optimal(x0, eps, group)
    assert cost(x0, found) == pytest.approx(min(cost(x0, eps[order]) for order in allowed))
    for number in (0, 1):  # each class keeps its own noise
        ours, theirs = (values[group == number].flatten(1) for values in (found, eps))
        assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_numbers_are_paired_in_their_order() -> None:
    """In one dimension the optimal transport is the monotone map."""
    x0, eps = drawn(50, 1)
    found = optimal(x0, eps, torch.zeros(50, dtype=torch.long))
    assert torch.equal(found[x0.flatten().argsort()].flatten(), eps.flatten().sort().values)


def seen(pairing: str, label_drop: float, conditional: bool = True) -> Draw:
    """What the objective is given of a batch of twelve pictures in three classes."""
    kept: list[Draw] = []

    task = TrainDenoiser(
        model=DiffusionConfig(denoiser=DenoiserConfig(network=NETWORK)),
        pairing=pairing,  # type: ignore[arg-type]
        label_drop=label_drop,
        conditional=conditional,
    ).resolve(DataFacts(3, (4, 4), ("a", "b", "c")))
    learner = DenoiseLearner(task, torch.device("cpu"), torch.float32)
    objective = type(task.objective).__call__

    def watch(self: object, draw: Draw, *args: object) -> object:
        kept.append(draw)
        return objective(self, draw, *args)  # type: ignore[arg-type]

    rng = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (12, 3, 4, 4), dtype=torch.uint8, generator=rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(task.objective), "__call__", watch)
        learner.loss(Batch({"image": image, "label": torch.arange(12) % 3}), Rng(torch.Generator().manual_seed(2), 12))
    (draw,) = kept
    return draw


@pytest.mark.parametrize(("label_drop", "conditional"), [(0.0, True), (1.0, True), (0.0, False)])
def test_the_task_pairs_within_the_classes_that_the_denoiser_is_told(label_drop: float, conditional: bool) -> None:
    plain, paired = (seen(pairing, label_drop, conditional) for pairing in ("independent", "optimal"))
    assert torch.equal(plain.x0, paired.x0)
    group = torch.arange(12) % 3 if conditional and label_drop == 0 else torch.zeros(12, dtype=torch.long)
    assert torch.equal(paired.eps, optimal(plain.x0, plain.eps, group))
    assert cost(paired.x0, paired.eps) < cost(plain.x0, plain.eps)
    assert torch.equal(plain.level.time, paired.level.time), "nothing else is drawn otherwise"  # type: ignore[arg-type]


def test_pairings_that_mean_nothing_are_refused() -> None:
    task = TrainDenoiser(pairing="optimal")
    with pytest.raises(Problem, match=r"task\.pairing is 'optimal', of the whole batch: train\.microbatch must be null"):
        Run(task=task, train=TrainConfig(microbatch=16))
    denoiser = DenoiserConfig(network=NETWORK, channels=3, conditions=(LabelCondition(classes=3), LowRes(size=(2, 2))))
    upsampler = task.replace(model=DiffusionConfig(denoiser=denoiser, size=(4, 4)))
    with pytest.raises(Problem, match=r"within classes, and condition 'low_res' differs from picture to picture"):
        upsampler.resolve(DataFacts(3, (4, 4), ("a", "b", "c")))
