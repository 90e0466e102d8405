"""The choice of a device, and of the fastest number format there without a visible loss of accuracy."""

from __future__ import annotations

import os
from typing import Literal, TypeVar, get_args

import torch
from torch import nn

from lodestar.config import Problem, choose
from lodestar.nets import winograd
from lodestar.nets.probe import Purpose, probe

M = TypeVar("M", bound=nn.Module)

Precision = Literal["float32", "bfloat16", "int8"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
"""Number formats by name. In int8 the 3×3 convolutions of residual blocks are in 8 bits, the rest in
`lodestar.nets.int8.between`."""


def name_of(dtype: torch.dtype) -> Precision:
    """The name of a number format."""
    name: Precision = next(name for name in get_args(Precision) if PRECISIONS[name] == dtype)
    return name


VARIABLE = "LODESTAR_PRECISION"
"""Environment variable: the number format where none is asked for, in place of the fastest."""


def choose_dtype(
    name: str | torch.dtype | None, device: torch.device, purpose: Purpose = "sampling", *, ranged: bool = False
) -> torch.dtype:
    """The number format of this name; for None or "auto" the environment's, or the fastest on the device. Raises Problem.

    On GPUs bfloat16 is the fastest, where they have it; CPUs are measured, once (`lodestar.nets.probe`). ranged: the network can
    sample in int8. If it cannot and the environment says int8, the fastest of the other formats is chosen.
    """
    eight = ranged and device.type == "cpu"
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name is None or name == "auto":
        name = os.environ.get(VARIABLE)
        if not name or (name == "int8" and not eight):
            name = _fastest(device, purpose, eight)
    dtype = choose("precision", name, PRECISIONS)
    if dtype == torch.int8 and device.type != "cpu":
        raise Problem(f"precision int8: only CPUs compute in it, and the device is {device}: choose from float32, bfloat16")
    return dtype


def _fastest(device: torch.device, purpose: Purpose, eight: bool) -> str:
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    found = probe(purpose)
    if purpose == "sampling":
        winograd.wins = found.winograd
    return found.fastest("float32", "bfloat16", *(["int8"] if eight else []))


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this name ("cpu", "cuda", "cuda:1"); by default a GPU where there is one. Raises Problem if not there."""
    there = torch.cuda.device_count()
    allowed = ["cpu", *(["cuda"] if there else []), *(f"cuda:{index}" for index in range(there))]
    if name is None:
        return torch.device("cuda" if there else "cpu")
    if str(name) not in allowed:
        raise Problem(f"device {str(name)!r}: choose from {', '.join(allowed)}")
    return torch.device(name)


def place(module: M, device: torch.device) -> M:
    """Put a module on a device, its weights in the order of memory in which convolutions are fastest; returns it."""
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module
