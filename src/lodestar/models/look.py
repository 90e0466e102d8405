"""The printed form of a loaded model: one line, in place of its layers."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from lodestar.display import caption, table
from lodestar.nets.precision import name_of

_DEPTH = 3
"""Length of the names of the parts: ``denoiser.network.down``."""


def look(module: nn.Module, shape: tuple[int, int, int], classes: int | None, dtype: torch.dtype, more: str = "") -> str:
    """The summary ``Diffusion(cifar10: 32×32, 3 channels, 10 classes, 8.0M parameters, float32, cpu)`` of a named module."""
    channels, height, width = shape
    first = next(module.parameters())
    count = sum(parameter.numel() for parameter in module.parameters())
    told = (
        f"{height}×{width}", "grey" if channels == 1 else f"{channels} channels",
        f"{classes} classes" if classes else "no classes", more, f"{count / 1e6:.1f}M parameters",
        name_of(dtype), str(first.device),
    )  # fmt: skip
    return f"{type(module).__name__}({getattr(module, 'name', '') or 'built in code'}: {', '.join(filter(None, told))})"


def parameters(model: object) -> str:
    """HTML of a model's summary and, of a module, of the parameters of its parts, for a notebook."""
    if not isinstance(model, nn.Module):
        return caption(repr(model))
    counts = Counter[str]()
    for name, each in model.named_parameters():
        counts[".".join(name.split(".")[:-1][:_DEPTH]) or name] += each.numel()
    total = counts.total()
    rows = [(part, f"{count:,}", f"{100 * count / total:.1f} %") for part, count in counts.items()]
    return caption(repr(model)) + table([*rows, ("all", f"{total:,}", "")], ("part", "parameters", "share"))
