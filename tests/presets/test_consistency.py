"""Models under EDM's preconditioning, against the formulas of openai/consistency_models written out anew."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lodestar.core.plan import parse_plan
from lodestar.core.prediction import EDM, Consistency
from lodestar.core.schedule import EDMSigma
from lodestar.denoiser import Denoiser, DenoiserConfig
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.request import request
from lodestar.models.diffusion import DiffusionConfig
from lodestar.presets.consistency import distilled, trained
from lodestar.samplers import Heun, last
from tests.evaluation.tiny import randomized
from tests.nets.networks import normal, unet_config


def denoiser(prediction: EDM) -> Denoiser:
    network = unet_config(multipliers=[1], attention=[])
    return randomized(DenoiserConfig(network=network, prediction=prediction).build(), 0)


def published(model: Denoiser, x: Tensor, sigma: float, distillation: bool) -> Tensor:
    """KarrasDenoiser.denoise: x has noise of standard deviation sigma beside data of variance 1/4."""
    data, least = 0.5, 0.002
    c_in = 1 / (sigma**2 + data**2) ** 0.5
    if distillation:
        c_skip = data**2 / ((sigma - least) ** 2 + data**2)
        c_out = (sigma - least) * data / (sigma**2 + data**2) ** 0.5
    else:
        c_skip, c_out = data**2 / (sigma**2 + data**2), sigma * data / (sigma**2 + data**2) ** 0.5
    time = torch.full((len(x),), 1000 * 0.25 * math.log(sigma))
    return c_out * model.network(c_in * x, time) + c_skip * x


@pytest.mark.parametrize("prediction", [EDM(), Consistency()], ids=lambda prediction: prediction.kind)
@pytest.mark.parametrize("index", [1, 20, 40])
def test_a_denoiser_believes_what_the_published_one_does(prediction: EDM, index: int) -> None:
    model, level = denoiser(prediction), EDMSigma(timesteps=40).table[index]
    x = normal(2, 3, 8, 8)
    believed = model(level.alpha * x, level, model.encode({})).x0
    torch.testing.assert_close(believed, published(model, x, level.ratio, prediction.kind == "consistency"), rtol=1e-4, atol=1e-5)


def test_sampling_with_heun_on_karras_levels_is_the_published_loop() -> None:
    model, schedule = denoiser(EDM()), EDMSigma()
    noise = normal(2, 3, 8, 8)
    sigmas = [(80 ** (1 / 7) + k / 7 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for k in range(8)] + [0.0]
    x = 80 * noise
    for sigma, ahead in pairwise(sigmas):
        slope = (x - published(model, x, sigma, False)) / sigma
        moved = x + slope * (ahead - sigma)
        if ahead > 0:
            slope = (slope + (moved - published(model, moved, ahead, False)) / ahead) / 2
            moved = x + slope * (ahead - sigma)
        x = moved
    steps = parse_plan("karras:8").steps(schedule)
    made = last(Heun()(model.bind({}), schedule.start_sigma * noise, steps, lambda x: x))
    torch.testing.assert_close(made, x, rtol=1e-3, atol=1e-3)


def test_the_published_pairs_of_steps_are_steps_of_the_chain() -> None:
    for config, plan, index in (
        (distilled(64), "at:39,17", 22),
        (trained(64, 201), "at:200,94", 106),
        (trained(256, 151), "at:150,88", 62),
    ):
        high, low = parse_plan(plan).steps(config.schedule)[0].t, parse_plan(plan).steps(config.schedule)[1].t
        assert high.ratio == pytest.approx(80)
        count = config.schedule.timesteps
        assert low.ratio == pytest.approx((80 ** (1 / 7) + index / (count - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)


def test_a_model_makes_its_picture_in_one_step() -> None:
    network = unet_config(multipliers=[1], attention=[])
    config = DiffusionConfig(
        denoiser=DenoiserConfig(network=network, prediction=Consistency()), schedule=EDMSigma(timesteps=40), size=(8, 8)
    )
    model = randomized(Diffusion(config.replace(sampler=distilled(64).sampler, steps=distilled(64).steps)), 0)
    frames = list(model.stream(request([None, None])))
    assert len(frames) == 1
    assert not torch.equal(frames[0].x[0], frames[0].x[1])
