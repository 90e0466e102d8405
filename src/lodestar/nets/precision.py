"""The choice of a device, and of the fastest number format there without a visible loss of accuracy."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from lodestar.config import Problem

M = TypeVar("M", bound=nn.Module)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def best_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 on GPUs that have it and on CPUs with matrix tiles (AMX), float32 elsewhere.

    CPUs that have bfloat16 instructions but no tiles (avx512_bf16 alone) run convolutions at half their float32 speed in it.
    """
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return torch.bfloat16 if tiles is not None and tiles() else torch.float32


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
