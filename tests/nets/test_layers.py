"""Layers against their definitions, written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lodestar.nets.attention import Layout, attend
from lodestar.nets.layers import GroupNorm, Resampler, timestep_embedding

from .networks import normal, randomized


@pytest.mark.parametrize("layout", ["qkv_first", "heads_first"])
@pytest.mark.parametrize("differentiated", [False, True])
def test_attention_is_its_definition_head_by_head(layout: Layout, differentiated: bool) -> None:
    heads, channels, places = 3, 4, 5
    qkv = normal(2, places, 3 * heads * channels)
    rows = qkv.unflatten(-1, (3, heads, channels) if layout == "qkv_first" else (heads, 3, channels))
    expected = []
    for head in range(heads):
        q, k, v = (rows[:, :, part, head] if layout == "qkv_first" else rows[:, :, head, part] for part in range(3))
        expected.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(channels), dim=-1) @ v)
    ours = attend(qkv.requires_grad_(differentiated), heads, layout)
    torch.testing.assert_close(ours, torch.cat(expected, dim=-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_scales_shifts_and_bends(dtype: torch.dtype) -> None:
    norm = randomized(GroupNorm(6, 3))
    x, scale, shift = normal(2, 6, 4, 4), normal(2, 6, 1, 1, seed=2), normal(2, 6, 1, 1, seed=3)
    groups = x.view(2, 3, 2, 4, 4)
    mean = groups.mean(dim=(2, 3, 4), keepdim=True)
    y = ((groups - mean) / (groups.var(dim=(2, 3, 4), keepdim=True, correction=0) + 1e-5).sqrt()).view_as(x)
    y = y * norm.get_parameter("weight")[:, None, None] + norm.get_parameter("bias")[:, None, None]
    expected = F.silu(y * (1 + scale) + shift)
    ours = norm(x.to(dtype), scale.to(dtype), shift.to(dtype), silu=True)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.1)


def test_groups_are_a_common_divisor() -> None:
    assert [GroupNorm(channels, 32).num_groups for channels in (8, 48, 32, 64, 7)] == [8, 16, 32, 32, 1]


def test_times_are_cosines_then_sines_from_fast_to_slow() -> None:
    embedding = timestep_embedding(torch.tensor([0.0, 2.5]), 5)
    assert embedding.shape == (2, 5)
    assert embedding.dtype == torch.float32
    expected = [math.cos(2.5), math.cos(0.025), math.sin(2.5), math.sin(0.025), 0.0]
    torch.testing.assert_close(embedding, torch.tensor([[1.0, 1, 0, 0, 0], expected]))


def test_plain_resampling_up_and_down_again_is_the_identity() -> None:
    x, emb = normal(1, 2, 4, 6), torch.zeros(1)
    up = Resampler(2, "up", conv=False)(x, emb)
    assert up.shape == (1, 2, 8, 12)
    torch.testing.assert_close(Resampler(2, "down", conv=False)(up, emb), x)


def test_closed_frequencies_end_at_the_largest_period() -> None:
    time, half = torch.tensor([9.0]), 4
    open_, closed = (timestep_embedding(time, 2 * half, closed=flag)[0] for flag in (False, True))
    for embedding, count in ((open_, half), (closed, half - 1)):
        angles = [9 * 10000 ** (-k / count) for k in range(half)]
        right = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])
        torch.testing.assert_close(embedding, right, rtol=1e-4, atol=1e-5)


def test_a_one_sided_halving_sees_three_by_three_places_from_each_second_one_on() -> None:
    halving = Resampler(1, "down", conv=True, one_sided=True)
    assert halving.conv is not None and halving.conv.bias is not None
    torch.nn.init.ones_(halving.conv.weight)
    torch.nn.init.zeros_(halving.conv.bias)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    right = [[x[0, 0, i : i + 3, j : j + 3].sum().item() for j in (0, 2)] for i in (0, 2)]
    assert halving(x, torch.zeros(1)).squeeze().tolist() == right
