"""Every prediction × variance × objective × draw of the level: it trains, or is refused with the reason before it is built."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from lodestar.config import Problem, decode, kinds
from lodestar.core.draws import AnyLevels, Levels
from lodestar.core.prediction import AnyPrediction
from lodestar.core.schedule import Cosine
from lodestar.data import Batch, DataFacts
from lodestar.denoiser import DenoiserConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import L1, P2, AnyObjective, Bound, Huber, Hybrid, MinSNR, Objective, Simple
from lodestar.tasks import Rng, TrainDenoiser

SCHEDULE = Cosine(timesteps=20)
PREDICTIONS = kinds(AnyPrediction)
LEVELS: list[Levels] = [member() for member in kinds(AnyLevels).values()]
OBJECTIVES: list[Objective] = [
    *(member() for member in kinds(AnyObjective).values()),
    Simple(weighting=MinSNR()),
    L1(weighting=P2()),
    Hybrid(rescaled=True, mean=L1()),
    Hybrid(mean=Huber(weighting=MinSNR())),
    Bound(rescaled=True),
    Bound(fixed="large"),
]


def task(prediction: str, variance: str, objective: Objective, levels: Levels) -> TrainDenoiser:
    network = UNetConfig(width=8, multipliers=(1,), blocks=1, attention=(), head_channels=8, norm_groups=4)
    settings: dict[str, Any] = {"schedule": SCHEDULE} if prediction == "previous" else {}
    denoiser = DenoiserConfig(
        network=network.replace(out_channels=3 if variance == "fixed" else 6),
        prediction=PREDICTIONS[prediction](**settings),
        variance=variance,  # type: ignore[arg-type]
    )
    model = DiffusionConfig(denoiser=denoiser, schedule=SCHEDULE)
    return decode(
        TrainDenoiser, {"kind": "denoise", "model": model, "objective": objective, "levels": levels, "conditional": False}
    )


def reason(prediction: str, variance: str, objective: Objective, levels: Levels) -> str | None:
    """What a combination is refused for."""
    if objective.kind in ("simple", "l1", "huber") and variance != "fixed":  # type: ignore[attr-defined]
        return "teaches nothing to the variance"
    if isinstance(objective, Hybrid) and variance == "fixed":
        return "trains a learned variance"
    if isinstance(objective, Bound) and objective.fixed == "large" and variance != "fixed":
        return "has no effect"
    if levels.continuous and (isinstance(objective, Hybrid | Bound) or prediction == "previous"):
        return "lie between those of the chain"
    return None


@pytest.mark.parametrize(("prediction", "variance"), list(product(PREDICTIONS, ("fixed", "learned", "learned_range"))))
def test_every_combination_trains_or_says_why_not(prediction: str, variance: str) -> None:
    rng = torch.Generator().manual_seed(0)
    batch = Batch({"image": torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8, generator=rng)})
    for objective, levels in product(OBJECTIVES, LEVELS):
        wanted = task(prediction, variance, objective, levels)
        why = reason(prediction, variance, objective, levels)
        if why is not None:
            with pytest.raises(Problem, match=why):
                wanted.resolve(DataFacts(3, (4, 4), None))
            continue
        made = wanted.resolve(DataFacts(3, (4, 4), None)).build(torch.device("cpu"), torch.float32)
        with torch.no_grad():
            for parameter in made.module.parameters():  # as built, the last layer is zero and lets no gradient through
                parameter += 0.05 * torch.randn(parameter.shape, generator=rng)
        (phase,) = made.phases()
        losses = phase.loss(batch, Rng(rng, 6))
        losses.total.mean().backward()
        gradients = [parameter.grad for parameter in phase.parameters if parameter.grad is not None]
        assert losses.total.shape == (6,), (objective, levels)
        assert losses.total.isfinite().all(), (objective, levels)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients), (objective, levels)
        head = phase.parameters[-1]  # the bias of the last layer: every output has something to learn
        assert head.shape == (3 if variance == "fixed" else 6,)
        assert head.grad is not None and bool(head.grad.ne(0).all()), (objective, levels)


def test_another_schedules_previous_is_refused() -> None:
    model = task("previous", "fixed", Simple(), LEVELS[0]).model
    with pytest.raises(Problem, match="its schedule and the model's must be the same"):
        model.replace(schedule=Cosine(timesteps=21))
