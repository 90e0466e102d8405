"""The update of weights along their gradients, and of averages after them: on CPUs one pass, by a kernel of our own."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lodestar.nets.native import native
from lodestar.training.ema import Average


class Move(NamedTuple):
    """A step of an optimizer, the gradient limited to norm `clip`."""

    optimizer: torch.optim.Optimizer
    clip: float | None
    norm: Tensor
    """Norm of the gradient."""

    def __call__(self) -> None:
        """Take the step as PyTorch does."""
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_([each for _, each in self.parameters()], self.clip, self.norm)
        self.optimizer.step()

    def parameters(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """The parameters that have a gradient, each with the settings of its group."""
        return ((group, each) for group in self.optimizer.param_groups for each in group["params"] if each.grad is not None)

    @property
    def factor(self) -> float:
        """The factor that limits the gradient, which is on the CPU."""
        if self.clip is None:
            return 1.0
        factor = torch.clamp(self.clip / (self.norm.float() + 1e-6), max=1.0)
        return _number(factor).value


def update(move: Move | None, parameters: Sequence[Tensor] = (), averages: Sequence[tuple[Average, float]] = ()) -> None:
    """Take a step, if any, and move averages of parameters by these shares of the way to them.

    The bits are those of PyTorch's own functions on x86; elsewhere values may differ by rounding.
    """
    kernel = native().library is not None and all(map(_plain, parameters))
    if move is not None and not (kernel and _fits(move)):
        move()
        move = None
    if kernel:
        _run(move, parameters, averages)
    else:
        for average, share in averages:
            average.toward(parameters, share)


def _plain(tensor: Tensor) -> bool:
    whole = type(tensor) in (Tensor, torch.nn.Parameter)  # and not one in shards
    return whole and tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _fits(move: Move) -> bool:
    """True if the kernel can take the step. The first one, which makes the optimizer's state, is PyTorch's."""
    state = move.optimizer.state
    return type(move.optimizer) is torch.optim.AdamW and all(
        _plain(each) and each in state and state[each]["exp_avg"].stride() == each.stride() and not group["amsgrad"]
        for group, each in move.parameters()
    )


class _Row(ctypes.Structure):
    """A tensor with all that belongs to it; as in adamw.cpp."""

    _fields_ = (
        ("count", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("weights", "gradients", "first", "second", "averages")),
        *((name, ctypes.c_float) for name in ("decay", "rate", "root")),
    )


class _Setting(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_float) for name in ("factor", "first", "second", "keep", "eps")),
        *((name, ctypes.c_int32) for name in ("averages", "threads")),
        ("shares", ctypes.c_void_p),
    )


def _run(move: Move | None, parameters: Sequence[Tensor], averages: Sequence[tuple[Average, float]]) -> None:
    """A call for each group of the optimizer, and one for averaged parameters that do not move."""
    count, threads = len(averages), torch.get_num_threads()
    shares = (ctypes.c_float * count)(*(share for _, share in averages))
    columns = [average.values for average, _ in averages]
    values = (ctypes.c_void_p * (count * len(parameters)))(
        *(each.data_ptr() for row in zip(*columns, strict=True) for each in row)
    )
    width, first = count * ctypes.sizeof(ctypes.c_void_p), ctypes.addressof(values)
    places = {id(each): first + index * width for index, each in enumerate(parameters)} if count else {}

    def call(rows: list[_Row], factor: float, betas: tuple[float, float], eps: float) -> None:
        setting = _Setting(factor, 1 - betas[0], 1 - betas[1], betas[1], eps, count, threads, ctypes.addressof(shares))
        native().library.adamw(ctypes.byref(setting), (_Row * len(rows))(*rows), ctypes.c_int64(len(rows)))  # type: ignore[union-attr]

    if move is not None:
        factor = move.factor
        for group in move.optimizer.param_groups:
            moving = [each for each in group["params"] if each.grad is not None]
            gradients = [_like(each, each.grad) for each in moving]  # held until the kernel is done with them
            rows = [
                _row(each, gradient, group, move.optimizer.state[each], places.pop(id(each), None))
                for each, gradient in zip(moving, gradients, strict=True)
            ]
            call(rows, factor, group["betas"], group["eps"])
    rest = [each for each in parameters if id(each) in places]
    call([_Row(each.numel(), each.data_ptr(), averages=places[id(each)]) for each in rest], 1.0, (0.0, 0.0), 0.0)


def _row(parameter: Tensor, gradient: Tensor, group: dict[str, Any], slots: dict[str, Tensor], averages: int | None) -> _Row:
    """A parameter that moves; its step is counted."""
    step = _number(slots["step"])
    step.value += 1
    first, second = (1 - beta**step.value for beta in group["betas"])
    return _Row(
        parameter.numel(),
        *(each.data_ptr() for each in (parameter, gradient, slots["exp_avg"], slots["exp_avg_sq"])),
        averages,
        1 - group["lr"] * group["weight_decay"],
        group["lr"] / first,
        math.sqrt(second),
    )


def _number(tensor: Tensor) -> ctypes.c_float:
    """The number in a float32 tensor on the CPU, in its memory: the tensor must be held."""
    return ctypes.c_float.from_address(tensor.data_ptr())


def _like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the parameter's memory layout."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
