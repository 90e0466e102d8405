"""Every shape of norm and convolution that the networks compute, in the chosen format, against PyTorch's own in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from common import Goal, Setting, chosen, seconds
from networks import CIFAR_SIZE, adm64
from rich.table import Table
from torch import Tensor, nn

from lodestar import library
from lodestar.bundle import embedded
from lodestar.nets.int8 import Grid, between
from lodestar.nets.layers import Conv2d, GroupNorm
from lodestar.nets.precision import PRECISIONS, choose_dtype

LEAST = 0.97
"""Ratio below which a shape counts as slower: nearer to 1 is noise."""


class Shape(NamedTuple):
    """A convolution, and the norm before it where there is one."""

    groups: int | None
    """Of the norm; None without one."""
    channels: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """The shape in words."""
        what = f"{self.kernel}×{self.kernel}, {self.channels} → {self.outputs} at {self.height}×{self.width}"
        return f"{'norm, ' if self.groups else ''}{what}{f', stride {self.stride}' if self.stride > 1 else ''}"


def shapes_of(network: nn.Module, run: Callable[[], object]) -> dict[Shape, int]:
    """The shapes that a run of the network computes, and how often. A norm belongs to the next convolution of its channels."""
    found: dict[Shape, int] = {}
    last: dict[int, int] = {}

    def norm(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, GroupNorm)
        last.clear()
        last[module.num_channels] = module.num_groups

    def conv(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Conv2d)
        groups = last.pop(module.in_channels, None) if module.kernel_size[0] > 1 else None
        shape = Shape(
            groups, module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0], int(module.padding[0]),
            *given[0].shape[2:],
        )  # fmt: skip
        found[shape] = found.get(shape, 0) + 1

    hooks = [
        module.register_forward_pre_hook(norm if isinstance(module, GroupNorm) else conv)
        for module in network.modules()
        if isinstance(module, GroupNorm | Conv2d)
    ]
    with torch.inference_mode():
        run()
    for hook in hooks:
        hook.remove()
    return found


def every() -> dict[str, dict[Shape, int]]:
    """The shapes of the network of the other tables, of the embedded models and of the published ADM at 64×64."""
    found = {}
    time, x = torch.ones(1), torch.randn(1, 3, 32, 32)
    network = CIFAR_SIZE.build()
    found["this benchmark's"] = shapes_of(network, lambda: network(x, time))
    for name in embedded():
        model = library.load(name, "cpu", dtype="float32")
        inner = model.denoiser.network if hasattr(model, "denoiser") else model.network
        found[name] = shapes_of(inner, lambda inner=inner: inner(x, time))
    with torch.device("meta"):  # its weights would take a gigabyte, and their values say nothing about shapes
        large = adm64().build()
    found["adm.imagenet64"] = shapes_of(large, lambda: large(torch.empty(1, 3, 64, 64, device="meta"), time.to("meta")))
    return found


def calls(shape: Shape, batch: int, format: str) -> dict[str, Callable[[], object]]:
    """The work of a shape: PyTorch's in float32 in both orders of memory, and ours in a format."""
    torch.manual_seed(0)
    x = torch.randn(batch, shape.channels, shape.height, shape.width)
    conv = Conv2d(shape.channels, shape.outputs, shape.kernel, stride=shape.stride, padding=shape.padding)
    norm = GroupNorm(shape.channels, shape.groups or 1)
    lines = torch.zeros(batch, 2 * shape.channels, 1, 1).chunk(2, dim=1)

    def plain(memory: torch.memory_format) -> Callable[[], Tensor]:
        given, weight = x.contiguous(memory_format=memory), conv.weight.detach().clone(memory_format=memory)

        def call() -> Tensor:
            y = given
            if shape.groups:
                y = F.group_norm(y, norm.num_groups, norm.weight, norm.bias, norm.eps)
                y = F.silu(y * (1 + lines[0]) + lines[1])
            return F.conv2d(y, weight, conv.bias, shape.stride, shape.padding)

        return call

    coded = format == "int8" and shape.groups and shape.stride == 1
    dtype, grid = between() if format == "int8" else PRECISIONS[format], Grid.to(4.0) if coded else None
    fast = Conv2d(shape.channels, shape.outputs, shape.kernel, stride=shape.stride, padding=shape.padding)
    fast.load_state_dict(conv.state_dict())
    fast.to(dtype, memory_format=torch.channels_last)
    if coded:
        fast.pack()
    given = x.to(dtype, memory_format=torch.channels_last)
    scale, shift = (each.to(dtype) for each in lines)

    def ours() -> Tensor:
        if grid is not None:
            return fast.of_codes(norm.codes(given, grid, scale, shift), grid, dtype)
        return fast(norm(given, scale, shift, silu=True) if shape.groups else given)

    return {"contiguous": plain(torch.contiguous_format), "channels-last": plain(torch.channels_last), "ours": ours}


def shapes(setting: Setting) -> Iterator[Table | Goal]:
    """Norm (with scale, shift and SiLU) and convolution of every shape, against the faster of PyTorch's orders of memory."""
    format, worst = chosen(), float("inf")
    choose_dtype(None, torch.device("cpu"))
    title = f"every shape of norm and convolution, {format} against PyTorch's float32"
    table = Table("network", "batch", "shape", "times in it", "ms, PyTorch", "ms, ours", "times as fast", title=title)
    slower, seen = 0, set[tuple[int, Shape]]()
    for name, counts in every().items():
        batch = 4 if name.startswith("adm") else 8
        for shape, times in counts.items():
            if (batch, shape) in seen:
                continue
            seen.add((batch, shape))
            with torch.inference_mode():
                took = seconds(
                    calls(shape, batch, format), setting.repeats, min
                )  # the shortest: calls of a millisecond are disturbed
            base = min(took["contiguous"], took["channels-last"])
            ratio = base / took["ours"]
            worst, slower = min(worst, ratio), slower + (ratio < LEAST)
            cells = (f"{1e3 * base:.2f}", f"{1e3 * took['ours']:.2f}", f"{ratio:.2f}{' slower' if ratio < LEAST else ''}")
            table.add_row(name, str(batch), shape.name, str(times), *cells)
    yield table
    yield Goal(f"the worst of {len(seen)} shapes ({slower} slower), {format}, against PyTorch's float32", worst, LEAST, LEAST)
