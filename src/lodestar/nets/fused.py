"""Kernels of our own for CPUs, forward and backward: group normalization with scale, shift and SiLU; attention in bfloat16."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from lodestar.nets.int8 import Grid
from lodestar.nets.native import native

_NAMES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.uint8: "u8"}

_LEFT_OUT: ContextVar[bool] = ContextVar("left_out", default=False)


@contextmanager
def left_out() -> Iterator[None]:
    """A context without fused kernels, ours or PyTorch's: the gradients of their gradients are not known."""
    token = _LEFT_OUT.set(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        _LEFT_OUT.reset(token)


class _NormArguments(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "places", "channels", "groups")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "scale", "shift")),
        ("eps", ctypes.c_float), ("silu", ctypes.c_int32), ("threads", ctypes.c_int32),
    )  # fmt: skip


def norms(x: Tensor) -> bool:
    """True if there is a kernel for x [B, C, H, W]: on a CPU, channels-last, in float32 or bfloat16, and not being compiled."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.ndim == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
        and not _LEFT_OUT.get()
        and native().library is not None
    )


class _HeadsArguments(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "queries", "keys", "channels")),
        *((f"{name}_{stride}", ctypes.c_int64) for name in "qkv" for stride in ("batch", "place", "head")),
        ("mask", ctypes.c_void_p), ("masked", ctypes.c_int64), ("threads", ctypes.c_int32),
    )  # fmt: skip


def attends(qkv: Tensor) -> bool:
    """True if there is a kernel of attention for [B, N, 3·C]: on a CPU, in bfloat16. In float32 PyTorch's is as fast."""
    return (
        qkv.device.type == "cpu"
        and qkv.dtype == torch.bfloat16
        and not torch.compiler.is_compiling()
        and not _LEFT_OUT.get()
        and native().library is not None
    )


Split = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""[B, N, …] to its views q, k and v [B, heads, N, d], their channels contiguous."""


def attention(qkv: Tensor, split: Split, mask: Tensor | None = None) -> Tensor:
    """softmax(q·kᵀ/√d)·v of the parts of qkv, as [B, N, heads·d]; where `attends(qkv)`.

    mask: bool [B, L], True at those of the first L keys that count; all after them do, and there are some.
    """
    out: Tensor = _Attention.apply(qkv, split, None if mask is None else mask.contiguous())  # type: ignore[no-untyped-call]
    return out


def _heads(parts: tuple[Tensor, Tensor, Tensor], mask: Tensor | None) -> Any:
    (batch, heads, queries, channels), keys = parts[0].shape, parts[1].shape[2]
    assert mask is None or (mask.dtype == torch.bool and len(mask) == batch and mask.shape[1] < keys), "a mask of the first keys"
    strides = (each.stride(axis) for each in parts for axis in (0, 2, 1))
    masked = 0 if mask is None else mask.shape[1]
    return ctypes.byref(
        _HeadsArguments(batch, heads, queries, keys, channels, *strides, _pointer(mask), masked, torch.get_num_threads())
    )


def _addresses(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(each.data_ptr()) for each in tensors]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, split: Split, mask: Tensor | None) -> Tensor:
        parts = split(qkv)
        batch, heads, queries, channels = parts[0].shape
        y = torch.empty(batch, queries, heads * channels, dtype=qkv.dtype)
        logs = torch.empty(batch, heads, queries)
        _call("attention_bf16", _heads(parts, mask), *_addresses(*parts, y, logs))
        ctx.save_for_backward(qkv, y, logs, mask)
        ctx.split = split
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        qkv, y, logs, mask = ctx.saved_tensors
        # Places that did not ask have queries without a gradient, and keys that do not count have none.
        parts, given = ctx.split(qkv), torch.zeros_like(qkv)
        dy = gradients[0].contiguous()
        _call("attention_back_bf16", _heads(parts, mask), *_addresses(*parts, y, dy, logs, *ctx.split(given)))
        return given, None, None


class Norm(NamedTuple):
    """Settings of a norm."""

    groups: int
    eps: float
    silu: bool
    wide: bool = False
    """The result is in float32, whatever x is."""


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | None, shift: Tensor | None, setting: Norm,
    grid: Grid | None = None,
) -> Tensor:  # fmt: skip
    """Norm of x [B, C, H, W], times (1 + scale) plus shift [B, C], and SiLU; where `norms(x)`.

    Of x's type or in float32, or with a grid in 8 bits, as they stand there (no gradient then).
    """
    given = (x, weight, bias, scale, shift)
    if grid is None and torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in given):
        out: Tensor = _Fused.apply(x, weight, bias, scale, shift, setting)  # type: ignore[no-untyped-call]
        return out
    return _forward(x, _plain(weight, bias, scale, shift), setting, grid)[0]


Lines = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""The norm's weight and bias [C], and scale and shift [B, C]."""


def _plain(*lines: Tensor | None) -> Lines:
    """As the kernels read them."""
    weight, bias, scale, shift = (None if each is None else each.detach().float().contiguous() for each in lines)
    return weight, bias, scale, shift


def _pointer(each: Tensor | None) -> int | None:
    return None if each is None else each.data_ptr()


def _structure(x: Tensor, lines: Lines, setting: Norm) -> Any:
    batch, channels, height, width = x.shape
    groups, eps, silu, _ = setting
    pointers = map(_pointer, lines)
    return ctypes.byref(_NormArguments(batch, height * width, channels, groups, *pointers, eps, silu, torch.get_num_threads()))


def _call(name: str, *arguments: Any) -> None:
    if getattr(native().library, name)(*arguments):
        raise MemoryError(f"no memory for {name}")


def _forward(x: Tensor, lines: Lines, setting: Norm, grid: Grid | None) -> tuple[Tensor, Tensor]:
    """The result, and means and inverse deviations float32 [2, B, G]."""
    dtype = torch.float32 if setting.wide else x.dtype
    y = torch.empty_like(x, dtype=dtype if grid is None else torch.uint8)
    moments = torch.empty(2, len(x), setting.groups)
    step, zero = grid or (1.0, 0)
    _call(
        f"norm_{_NAMES[x.dtype]}_{_NAMES[y.dtype]}",
        _structure(x, lines, setting),
        *(ctypes.c_void_p(each.data_ptr()) for each in (x, y, moments[0], moments[1])),
        ctypes.c_float(1 / step), ctypes.c_float(zero),
    )  # fmt: skip
    return y, moments


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, setting: Norm) -> Tensor:
        lines = _plain(weight, bias, scale, shift)
        y, moments = _forward(x, lines, setting, None)
        ctx.save_for_backward(x, moments, *lines)
        ctx.setting = setting
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, moments, weight, bias, scale, shift = ctx.saved_tensors
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        dx, own = torch.empty_like(x), torch.empty(len(x), 2, x.shape[1])
        _call(
            f"norm_back_{_NAMES[x.dtype]}_{_NAMES[dy.dtype]}",
            _structure(x, (weight, bias, scale, shift), ctx.setting),
            *(ctypes.c_void_p(each.data_ptr()) for each in (x, dy, dx, moments[0], moments[1], own)),
        )
        plain, times = own.unbind(1)
        if scale is None:
            return dx, times.sum(0), plain.sum(0), None, None, None
        gain = 1 + scale
        return dx, (gain * times).sum(0), (gain * plain).sum(0), weight * times + bias * plain, plain, None
