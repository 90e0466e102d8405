"""The kernels of our own against PyTorch's functions in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.nets import fused
from lodestar.nets.attention import Layout, Masked, attend
from lodestar.nets.layers import GroupNorm
from lodestar.nets.native import native

pytestmark = pytest.mark.skipif(native().library is None, reason=f"no kernels here: {native().why}")

SHAPES = [(2, 64, 8, 8), (1, 96, 19, 17), (3, 32, 1, 1), (2, 40, 5, 64)]  # places: one chunk, two and a bit, one, two
TOLERANCE = {torch.float32: 5e-7, torch.bfloat16: 4e-3}


def off(actual: Tensor, expected: Tensor) -> float:
    """Relative distance of the whole."""
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def plain(x: Tensor, weight: Tensor, bias: Tensor, lines: tuple[Tensor, Tensor] | None, setting: fused.Norm) -> Tensor:
    y = F.group_norm(x, setting.groups, weight, bias, setting.eps)
    if lines is not None:
        y = y * (1 + lines[0][:, :, None, None]) + lines[1][:, :, None, None]
    return F.silu(y) if setting.silu else y


def inputs(shape: tuple[int, ...], dtype: torch.dtype, scaled: bool) -> list[Tensor]:
    """x far from zero mean, the norm's weight and bias, and scale and shift if `scaled`; all with gradients."""
    torch.manual_seed(sum(shape))
    batch, channels = shape[:2]
    x = (torch.randn(shape) * 3 + 5).to(dtype).contiguous(memory_format=torch.channels_last)
    lines = [torch.randn(batch, channels) * 0.5, torch.randn(batch, channels)] if scaled else []
    return [each.requires_grad_() for each in (x, torch.rand(channels) + 0.5, torch.randn(channels), *lines)]


def call(values: list[Tensor], setting: fused.Norm, grid: fused.Grid | None = None) -> Tensor:
    x, weight, bias, *lines = values
    return fused.group_norm(x, weight, bias, *(lines or (None, None)), setting, grid)


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norm_and_its_gradients(shape: tuple[int, ...], dtype: torch.dtype, scaled: bool, silu: bool) -> None:
    values, setting = inputs(shape, dtype, scaled), fused.Norm(8, 1e-5, silu)
    exact = [each.detach().double().requires_grad_() for each in values]
    y = call(values, setting)
    expected = plain(exact[0], exact[1], exact[2], (exact[3], exact[4]) if scaled else None, setting)
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    assert off(y.detach(), expected.detach()) < TOLERANCE[dtype]
    dy = torch.randn_like(y)
    for ours, theirs in zip(torch.autograd.grad(y, values, dy), torch.autograd.grad(expected, exact, dy.double()), strict=True):
        # In bfloat16 x itself is the one that was rounded: what is left is the rounding of SiLU's gradient and of the result.
        assert off(ours, theirs) < max(2 * TOLERANCE[dtype] if ours.dtype == torch.bfloat16 else 0, 5e-6)


def test_a_norm_in_float32_of_what_is_in_bfloat16_is_that_of_the_same_values() -> None:
    narrow, setting = inputs((2, 64, 8, 8), torch.bfloat16, True), fused.Norm(8, 1e-5, True)
    wide = [each.detach().float().requires_grad_() for each in narrow]
    y, expected = call(narrow, setting._replace(wide=True)), call(wide, setting)
    assert y.dtype == torch.float32 and torch.equal(y, expected)
    dy = torch.randn_like(y)
    ours, theirs = torch.autograd.grad(y, narrow, dy), torch.autograd.grad(expected, wide, dy)
    assert off(ours[0], theirs[0]) < TOLERANCE[torch.bfloat16]
    assert all(torch.equal(each, other) for each, other in zip(ours[1:], theirs[1:], strict=True))


def test_a_picture_is_normalized_alike_in_any_batch_and_by_any_number_of_threads() -> None:
    values, setting, threads = inputs((3, 64, 24, 24), torch.float32, True), fused.Norm(32, 1e-5, True), torch.get_num_threads()
    whole = call(values, setting).detach()
    x, weight, bias, scale, shift = values
    alone = call([x[1:2], weight, bias, scale[1:2], shift[1:2]], setting).detach()
    assert torch.equal(alone, whole[1:2])
    try:
        torch.set_num_threads(3)
        assert torch.equal(call(values, setting).detach(), whole)
    finally:
        torch.set_num_threads(threads)


def test_a_norm_of_eight_bits_is_the_norm_rounded_to_its_grid() -> None:
    grid, setting = fused.Grid(0.025, 12), fused.Norm(8, 1e-5, True)
    for dtype in TOLERANCE:
        values = [each.detach() for each in inputs((2, 64, 8, 8), dtype, True)]
        expected = ((call(values, setting).float() if dtype == torch.float32 else plain(
            values[0].float(), values[1], values[2], (values[3], values[4]), setting
        )) / grid.step).round() + grid.zero  # fmt: skip
        coded = call(values, setting, grid)
        assert coded.dtype == torch.uint8
        assert (coded.float() - expected.clamp(0, 255)).abs().max() <= 1  # halves may be rounded either way
        assert (coded.float() != expected.clamp(0, 255)).float().mean() < 1e-3


def test_layers_use_the_kernel_where_it_is_and_agree_with_what_they_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = GroupNorm(64, 32)
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 64, 8, 8).contiguous(memory_format=torch.channels_last)
    scale, shift = torch.randn(2, 128, 1, 1).chunk(2, dim=1)
    called = []
    monkeypatch.setattr(fused, "_call", lambda name, *given, call=fused._call: (called.append(name), call(name, *given)))
    with_kernel = layer(x, scale, shift, silu=True)
    assert called == ["norm_f32_f32"]
    monkeypatch.setattr(fused, "norms", lambda x: False)
    assert off(with_kernel.detach(), layer(x, scale, shift, silu=True).detach()) < 1e-6
    assert called == ["norm_f32_f32"]


def parts(qkv: Tensor, heads: int, queries: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """q (of the first so many places), k and v of [B, N, 3·C]."""
    q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q[:, :, :queries], k, v


@pytest.mark.parametrize("layout", ["qkv_first", "heads_first"])
@pytest.mark.parametrize("size", [(2, 2, 64, 32), (1, 3, 7, 8), (2, 1, 133, 80), (1, 2, 31, 17), (1, 2, 1, 4)], ids=str)
def test_attention_and_its_gradient(size: tuple[int, int, int, int], layout: Layout) -> None:
    batch, heads, places, channels = size
    torch.manual_seed(0)
    qkv = (2 * torch.randn(batch, places, 3 * heads * channels)).bfloat16().requires_grad_()
    exact = qkv.detach().double().requires_grad_()
    assert fused.attends(qkv) and not fused.attends(exact)
    y, expected = (attend(each, heads, layout) for each in (qkv, exact))
    assert off(y.detach(), expected.detach()) < 5e-3
    dy = torch.randn_like(y)
    (ours,), (theirs,) = torch.autograd.grad(y, qkv, dy), torch.autograd.grad(expected, exact, dy.double())
    assert off(ours, theirs) < 1e-2  # of differences of what was rounded
    with torch.no_grad():
        assert torch.equal(attend(qkv, heads, layout), y)


@pytest.mark.parametrize("queries", [1, 9])
def test_attention_of_few_queries(queries: int) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(2, 33, 3 * 2 * 16).bfloat16()
    y = fused.attention(qkv, lambda each: parts(each, 2, queries))
    expected = F.scaled_dot_product_attention(*parts(qkv.double(), 2, queries))
    assert off(y, expected.transpose(1, 2).flatten(2)) < 5e-3


def test_attention_of_a_picture_is_the_same_in_any_batch_by_any_number_of_threads_and_does_not_overflow() -> None:
    torch.manual_seed(0)
    qkv = (torch.randn(3, 20, 3 * 2 * 16) * torch.tensor([100, 100, 1]).repeat_interleave(32)).bfloat16()
    dy, threads = torch.randn(3, 20, 32).bfloat16(), torch.get_num_threads()

    def both(rows: slice) -> list[Tensor]:
        given = qkv[rows].clone().requires_grad_()
        y = attend(given, 2, "qkv_first")
        return [y.detach(), *torch.autograd.grad(y, given, dy[rows])]

    whole = both(slice(3))
    assert all(each.isfinite().all() for each in whole)
    assert all(torch.equal(each, every[2:]) for each, every in zip(both(slice(2, 3)), whole, strict=True))
    try:
        torch.set_num_threads(3)
        assert all(torch.equal(each, every) for each, every in zip(both(slice(3)), whole, strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_in_its_picture_alone(bad: float, dtype: torch.dtype) -> None:
    values, setting = inputs((2, 64, 8, 8), dtype, True), fused.Norm(8, 1e-5, True)
    with torch.no_grad():
        values[0][1, 3, 2, 2] = bad
    y = call(values, setting)
    assert y[0].isfinite().all() and not y[1, :8].isfinite().any()
    (dx,) = torch.autograd.grad(y.float().sum(), values[:1])
    assert dx[0].isfinite().all() and not dx[1, :8].isfinite().any()


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_attention_of_the_first_place_alone_is_that_place_of_all(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(2, 65, 3 * 32).to(dtype).requires_grad_()
    dy = torch.randn(2, 1, 32).to(dtype)
    for _ in range(3):  # memory that is used again is not what it was
        alone, place = attend(qkv, 2, "qkv_first", first=True), attend(qkv, 2, "qkv_first")[:, :1]
        assert alone.shape == place.shape == (2, 1, 32) and off(alone.detach(), place.detach()) < TOLERANCE[dtype]
        ours, whole = (torch.autograd.grad(each, qkv, dy)[0] for each in (alone, place))
        assert off(ours, whole) < 2 * TOLERANCE[dtype] and not ours[:, 1:, :32].any()


def test_what_is_no_number_stays_so_in_attention() -> None:
    qkv = torch.randn(2, 40, 3 * 16).bfloat16()
    qkv[1, 35, 16] = float("nan")  # of a key
    given = qkv.requires_grad_()
    y = attend(given, 1, "qkv_first")
    (gradient,) = torch.autograd.grad(y.float().sum(), given)
    for each in (y, gradient):
        assert each[0].isfinite().all() and not each[1].isfinite().all()


@pytest.mark.parametrize("layout", ["qkv_first", "heads_first"])
@pytest.mark.parametrize("size", [(3, 2, 64, 32, 9), (2, 1, 33, 17, 40), (2, 2, 1, 8, 5)], ids=str)
def test_attention_to_a_masked_text_and_its_gradient(
    size: tuple[int, int, int, int, int], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, heads, places, channels, length = size
    torch.manual_seed(0)
    width = heads * channels
    inputs = [(2 * torch.randn(batch, places, 3 * width)).bfloat16(), (2 * torch.randn(batch, length, 2 * width)).bfloat16()]
    mask = torch.rand(batch, length) < 0.5
    mask[0] = False  # a picture without a text

    def both(dtype: torch.dtype) -> list[Tensor]:
        qkv, text = (each.to(dtype).requires_grad_() for each in inputs)
        y = attend(qkv, heads, layout, Masked(mask), text)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(dtype)
        return [y.detach(), *torch.autograd.grad(y, (qkv, text), dy)]

    ours, exact = both(torch.bfloat16), both(torch.float64)
    for each, expected, limit in zip(ours, exact, (5e-3, 1e-2, 1e-2), strict=True):
        assert off(each, expected) < limit
    assert not ours[2][~mask].any() and ours[2][mask].any()
    # What does not count is not read, and a longer text changes no bit.
    inputs[1] = torch.cat(
        [inputs[1].where(mask[..., None], torch.nan), torch.full((batch, 3, 2 * width), torch.inf)], dim=1
    ).bfloat16()
    mask = F.pad(mask, (0, 3))
    longer = both(torch.bfloat16)
    assert all(torch.equal(each, other[:, : each.shape[1]]) for each, other in zip(ours, longer, strict=True))
    # Without the kernel it is PyTorch's functions, and the same.
    inputs[1], mask = inputs[1][:, :length].nan_to_num(), mask[:, :length]
    monkeypatch.setattr(fused, "attends", lambda qkv: False)
    for each, expected in zip(both(torch.bfloat16), exact, strict=True):
        assert off(each, expected) < 2e-2
