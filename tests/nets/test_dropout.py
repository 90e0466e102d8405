"""Masks belong to pictures: the same in every batch, and as random as those of a generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lodestar.nets.dropout import Dropout, hashed, number

CPU = torch.device("cpu")


def layers(count: int = 1, p: float = 0.1, key: int = 5) -> tuple[torch.nn.Sequential, Tensor]:
    made = torch.nn.Sequential(*(Dropout(p) for _ in range(count)))
    whose = number(made, CPU)
    whose[0] = key
    return made, whose


def masks(count: int = 1, batch: int = 64, key: int = 5, first: int = 0, p: float = 0.5) -> list[Tensor]:
    """What each of so many layers keeps of ones [B, 8, 6, 5], which is no multiple of four values a channel."""
    made, whose = layers(count, p, key)
    whose[1] = first
    return [layer(torch.ones(batch, 8, 6, 5)) != 0 for layer in made]


def agreement(a: Tensor, b: Tensor) -> float:
    return (a == b).double().mean().item()


def test_the_hash_is_splitmix64() -> None:
    """The first numbers of the published generator seeded with 1234567, whose state grows by the golden ratio."""
    states = 1234567 + torch.arange(1, 6) * (0x9E3779B97F4A7C15 - 2**64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [value % 2**64 for value in hashed(states).tolist()] == expected


@pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_so_many_are_dropped_and_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    (layer,), _ = layers(p=p)
    y = layer(torch.ones(64, 32, 16, 16, dtype=dtype).to(memory_format=torch.channels_last))
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    error = (p * (1 - p) / y.numel()) ** 0.5
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=5 * error)
    assert y.double().mean().item() == pytest.approx(1, abs=5 * error / (1 - p) + (0.005 if dtype == torch.bfloat16 else 0))


def test_layers_pictures_runs_and_places_are_independent() -> None:
    first, second = masks(2, 256)
    (other,) = masks(1, 256, key=6)
    assert first.double().var() > 0.2
    pairs = [(first, second), (first, other), (first[1:], first[:-1]), (first[1:], second[:-1])]
    pairs += [(first.roll(1, dim), first) for dim in (1, 2, 3)]
    for a, b in pairs:
        assert agreement(a, b) == pytest.approx(0.5, abs=5 * 0.5 / a.numel() ** 0.5)


def test_a_picture_drops_the_same_in_any_piece() -> None:
    (whole,) = masks(first=100)
    for begin, end in ((0, 1), (3, 10), (10, 64)):
        assert torch.equal(masks(batch=end - begin, first=100 + begin)[0], whole[begin:end])


def test_a_pass_that_is_made_again_drops_the_same() -> None:
    made, _ = layers(3)
    gradients = []
    for call in (made, lambda x: checkpoint(made, x, use_reentrant=False)):
        x = torch.ones(4, 8, 6, 5, requires_grad=True)
        call(x).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)  # type: ignore[arg-type]
    assert (gradients[0] == 0).any()  # type: ignore[union-attr]


def test_outside_of_training_nothing_is_dropped_and_outside_of_a_run_torch_draws() -> None:
    layer, x = Dropout(0.3), torch.randn(4, 3, 5, 5)
    torch.manual_seed(1)
    ours = layer(x)
    torch.manual_seed(1)
    assert torch.equal(ours, torch.nn.Dropout(0.3)(x))
    assert torch.equal(layer.eval()(x), x)
    made, _ = layers(p=0.0)
    assert torch.equal(made(x), x)
