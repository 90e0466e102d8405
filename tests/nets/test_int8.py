"""Convolutions in 8 bits against the same numbers in double precision, and U-Nets made of them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.nets import int8, unet
from lodestar.nets.int8 import LOW, Grid, Packed
from lodestar.nets.layers import GroupNorm, ResBlock
from lodestar.nets.unet import UNet
from tests.nets.networks import randomized, unet_config

TIMES = (0.0, 10.0, 30.0)
NETWORKS = {
    "plain choices": {},
    "three resolutions": {"multipliers": [1, 2, 2], "attention": [2, 4]},
    "resampling by convolution": {"resample": "conv"},
    "resampling without parameters": {"resample": "plain"},
    "added embedding": {"adaptive_norm": False},
    "rescaled residuals": {"rescale_residuals": True},
    "old layout": {"layout": "heads_first"},
}


@pytest.fixture(params=["oneDNN", "floats"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of convolving, wherever the processor has both."""
    way = str(request.param)
    if way == "oneDNN" and not int8.supported():
        pytest.skip("this processor does not multiply bytes")
    monkeypatch.setattr(int8, "supported", lambda: way == "oneDNN")
    return way


def ranged(seed: int = 0, **changes: object) -> UNet:
    """A network with ranges that hold its activations at every time."""
    network = randomized(unet_config(ranges=TIMES, **changes).build(), seed).eval().requires_grad_(False)
    largest = torch.zeros(len(network.blocks), 2)

    def watch(number: int, which: int) -> object:
        def see(module: object, given: tuple[Tensor, ...]) -> None:
            largest[number, which] = max(float(largest[number, which]), float(given[0].max()))

        return see

    hooks = [
        conv.register_forward_pre_hook(watch(block.number, which))  # type: ignore[arg-type]
        for block in network.blocks
        for which, conv in enumerate((block.conv1, block.conv2))
    ]
    for time in TIMES:
        network(*inputs(4, time))
    for hook in hooks:
        hook.remove()
    network.get_buffer("ranges").copy_(largest[..., None].expand(-1, -1, len(TIMES)))
    return network


def inputs(count: int, time: float) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(5)), torch.full((count,), time)


def off(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def test_a_grid_holds_zero_exactly_and_every_value_to_half_a_step() -> None:
    grid = Grid.to(3.5)
    values = torch.linspace(LOW, 3.5, 999)
    assert (grid.decode(grid.encode(values)) - values).abs().max() <= grid.step * 0.5001 + abs(LOW - (-grid.zero * grid.step))
    assert grid.decode(grid.encode(torch.zeros(1))).item() == 0.0
    assert grid.encode(torch.tensor([-9.0, 99.0])).tolist() == [0, 255]


def test_a_convolution_of_codes_is_that_of_the_values_they_stand_for(way: str) -> None:
    torch.manual_seed(0)
    codes = torch.randint(0, 256, (2, 24, 9, 7), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    weight, bias, grid = torch.randn(40, 24, 3, 3), torch.randn(40), Grid.to(2.0)
    weight[3] = 0  # a channel without a range
    packed = Packed(weight, bias)
    scales = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-9) / 127
    rounded = (weight / scales).round() * scales
    expected = F.conv2d(grid.decode(codes).double(), rounded.double(), bias.double(), padding=1)
    assert off(packed(codes, grid, torch.float32), expected) < 1e-6
    assert off(packed(codes, grid, torch.bfloat16), expected) < 4e-3
    assert packed(codes, grid, torch.bfloat16).dtype == torch.bfloat16
    assert torch.equal(copy.deepcopy(packed)(codes, grid, torch.float32), packed(codes, grid, torch.float32))


def test_a_norm_gives_the_same_codes_with_and_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    norm, x, grid = (
        randomized(GroupNorm(32, 8)),
        torch.randn(2, 32, 8, 8).contiguous(memory_format=torch.channels_last),
        Grid.to(3.0),
    )
    with torch.no_grad():
        codes = norm.codes(x, grid)
        monkeypatch.setattr("lodestar.nets.fused.norms", lambda x: False)
        plain = norm.codes(x, grid)
    assert codes.dtype == plain.dtype == torch.uint8
    assert (codes.int() - plain.int()).abs().max() <= 1 and (codes != plain).float().mean() < 0.01


@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
def test_a_network_in_8_bits_is_near_itself(changes: dict[str, object], way: str) -> None:
    network = ranged(**changes)
    lowered = copy.deepcopy(network)
    lowered.lower(torch.int8)
    with torch.no_grad():
        exact = network(*inputs(4, 20.0))
        error = off(lowered(*inputs(4, 20.0), dtype=torch.int8), exact)
    assert 1e-5 < error < 0.05
    assert lowered(*inputs(4, 20.0), dtype=torch.int8).dtype == torch.float32


def test_a_picture_is_the_same_in_any_batch_and_beside_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # In bfloat16 what is between would differ by its own rounding.
    monkeypatch.setattr(unet, "between", lambda: torch.float32)
    network = ranged()
    network.lower(torch.int8)
    x, _ = inputs(4, 0.0)
    times = torch.tensor([3.0, 20.0, 3.0, 29.0])
    with torch.no_grad():
        together = network(x, times, dtype=torch.int8)
        for row in range(4):
            alone = network(x[row : row + 1], times[row : row + 1], dtype=torch.int8)
            assert off(alone[0], together[row]) < 1e-4


def test_ranges_are_linear_between_their_times_and_constant_beyond() -> None:
    network = unet_config(ranges=TIMES).build()
    network.get_buffer("ranges").copy_(torch.tensor([1.0, 2.0, 4.0]).expand(len(network.blocks), 2, 3))
    for time, high in ((0.0, 1.0), (5.0, 1.5), (10.0, 2.0), (20.0, 3.0), (30.0, 4.0), (99.0, 4.0)):
        assert network._grids(time)[-1][1] == Grid.to(high)


def test_gradients_are_those_of_the_format_between() -> None:
    network = ranged()
    network.lower(torch.int8)
    x, time = inputs(2, 20.0)
    x.requires_grad_()
    (eight,) = torch.autograd.grad(network(x, time, dtype=torch.int8).square().sum(), x)
    (between,) = torch.autograd.grad(network(x, time, dtype=int8.between()).square().sum(), x)
    assert torch.equal(eight, between) and eight.abs().sum() > 0


def test_the_first_convolution_of_a_halving_block_keeps_its_format() -> None:
    block = ResBlock(16, 16, 32, groups=4, direction="down")
    block.pack()
    assert block.conv1.packed is None and block.conv2.packed is not None


def test_the_processors_without_multiplication_of_bytes_are_told_by_their_abilities(monkeypatch: pytest.MonkeyPatch) -> None:
    for abilities, expected in (("avx2 fma", False), ("avx2 avx_vnni", True), ("avx512f avx512_vnni", True), ("amx_int8", True)):
        monkeypatch.setattr(int8, "processor", lambda abilities=abilities: type("P", (), {"abilities": abilities}))
        assert int8.supported.__wrapped__() is (expected and torch.backends.mkldnn.is_available())
