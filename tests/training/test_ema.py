"""Averages against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem, kinds
from lodestar.training.ema import AnyProfile, Average, Decay, HalfLife, Power, Profile
from lodestar.training.run import TrainConfig

PROFILES: list[Profile] = [HalfLife(images=40), Decay(decay=0.9), Power(width=0.1)]


def weights(profile: Profile, steps: int, batch_size: int) -> Tensor:
    """The weight [steps + 1] of the initial parameters and of those after each step in the average, which is linear in them."""
    average = Average(profile, [torch.eye(steps + 1, dtype=torch.float64)[0]])
    for step in range(1, steps + 1):
        average.toward([torch.eye(steps + 1, dtype=torch.float64)[step]], average.share(step * batch_size, batch_size))
    return average.values[0]


def test_every_kind_is_tested() -> None:
    assert set(kinds(AnyProfile).values()) == {type(profile) for profile in PROFILES}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
def test_constant_parameters_stay_exactly(profile: Profile) -> None:
    value = torch.randn(100)
    average = Average(profile, [value])
    for step in range(1, 30):
        average.toward([value], average.share(8 * step, 8))
    assert torch.equal(average.values[0], value)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
def test_weights_sum_to_one(profile: Profile) -> None:
    assert weights(profile, 50, 8).sum().item() == pytest.approx(1, abs=1e-12)


def test_decay_is_geometric() -> None:
    expected = [0.9**20, *(0.1 * 0.9 ** (20 - step) for step in range(1, 21))]
    assert weights(Decay(decay=0.9), 20, 8).tolist() == pytest.approx(expected, abs=1e-12)


def test_half_life_halves_and_rises_to_it() -> None:
    late = weights(HalfLife(images=40, ramp=1e9), 20, 8)
    # 40 images are five batches.
    assert (late[10] / late[15]).item() == pytest.approx(0.5)
    assert (late[3] / late[13]).item() == pytest.approx(0.25)
    # With a ramp of a half, the half-life at image 16 is 8 images, one batch.
    assert HalfLife(images=40, ramp=0.5).keep(16, 8) == pytest.approx(0.5)
    assert HalfLife(images=40, ramp=0.5).keep(800, 8) == pytest.approx(0.5 ** (8 / 40))


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_power_is_a_normalised_power_function_of_that_width(width: float) -> None:
    steps = 400
    found = weights(Power(width=width), steps, 8)
    assert found[0].item() == 0
    # γ from the weights alone: those of t^γ over one step are ∫ (γ + 1)·t^γ/T^(γ + 1), so the last one is 1 − (1 − 1/T)^(γ + 1).
    gamma = math.log1p(-found[-1].item()) / math.log1p(-1 / steps) - 1
    edges = (torch.arange(steps + 1, dtype=torch.float64) / steps) ** (gamma + 1)
    assert torch.allclose(found[1:], edges.diff(), atol=1e-12, rtol=0)
    times = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    mean = (found[1:] * times).sum()
    spread = (found[1:] * (times - mean) ** 2).sum().sqrt().item()
    assert spread == pytest.approx(width, rel=1e-2)


def test_an_average_does_not_share_memory_with_the_parameters() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    average = Average(Decay(decay=0.5), [parameter])
    with torch.no_grad():
        parameter += 1
    average.toward([parameter], average.share(8, 8))
    assert average.values[0].tolist() == [0.5] * 3
    assert not average.values[0].requires_grad


def test_averages_of_one_run_have_labels_of_their_own() -> None:
    close = TrainConfig(ema=(Decay(decay=0.9999), Decay(decay=0.99990001), Power(width=0.1), Power(width=0.1000000001)))
    assert len({profile.label for profile in close.ema}) == 4
    with pytest.raises(Problem, match=r"^ema has 2 averages called 'half_life40', .*: keep one of them$"):
        TrainConfig(ema=(Power(), HalfLife(images=40), HalfLife(images=40, ramp=0.1)))
