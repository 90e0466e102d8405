"""Measured speed of number formats on this processor, for the choice among them.

A probe times a norm and a 3×3 convolution, the bulk of a U-Net's work, in classes of shapes. It is kept in the user's cache for
each processor, version of PyTorch and number of threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Config, Problem, decode
from lodestar.files import cache_folder, read_json, write_text
from lodestar.nets import int8, winograd
from lodestar.nets.layers import Conv2d, GroupNorm
from lodestar.nets.native import native, processor

Purpose = Literal["sampling", "training"]
"""Forward passes alone, or backward passes too."""

SHAPES = ((8, 64, 32), (8, 128, 16), (8, 128, 8), (1, 192, 64), (1, 384, 32))
"""Batch, channels, and height and width of the classes: the embedded models' and those of ADM at 64×64."""

MARGIN = 0.97
"""Largest part of float32's time, in every class, at which another format is chosen: less is noise."""

_ROUNDS, _ENOUGH = 3, 0.25
"""Measurements of a class at least, and seconds after which it has no more: of quick calls some then fall between two turns of
whatever else runs."""

Seconds = Annotated[float, Field(gt=0, le=1e6)]
Clock = Callable[[], float]


class Probe(Config):
    """Times of formats by class of shape."""

    form: Literal["lodestar-probe/2"] = "lodestar-probe/2"
    purpose: Purpose
    seconds: Mapping[str, Mapping[str, Seconds]] = Field(min_length=1, max_length=100)
    """By class, as "64 channels, 32×32", and in it by format: "float32", "bfloat16", "int8", and "winograd", which is float32
    too."""

    def ratio(self, name: str) -> float | None:
        """The format's part of float32's time in the class where it does worst; None if it was not measured in all."""
        ratios = [times[name] / times["float32"] for times in self.seconds.values() if name in times]
        return max(ratios) if len(ratios) == len(self.seconds) else None

    def fastest(self, *names: str) -> str:
        """The fastest of the named formats, compared where each does worst; float32 where none gains in every class."""
        ratios = {name: ratio for name in names if (ratio := self.ratio(name)) is not None and ratio <= MARGIN}
        return min(ratios, key=lambda name: ratios[name], default="float32")

    @property
    def winograd(self) -> frozenset[tuple[int, int]]:
        """Channels and size of the classes in which Winograd's convolution is the faster one in float32."""
        faster = {_named(*shape): shape[1:] for shape in SHAPES}
        return frozenset(
            faster[name]
            for name, times in self.seconds.items()
            if name in faster and times.get("winograd", 1e9) <= MARGIN * times["float32"]
        )


def probe(purpose: Purpose = "sampling") -> Probe:
    """The probe of this machine: the kept one, or a new one (a second or two), kept if the cache can be written to."""
    path = cache_folder() / "probe" / f"{_key(purpose)}.json"
    if path.exists():
        with contextlib.suppress(Problem):
            kept = decode(Probe, read_json(path), str(path))
            if kept.purpose == purpose:
                return kept
    made = measure(purpose)
    with contextlib.suppress(Problem):
        write_text(path, made.model_dump_json(indent=1) + "\n")
    return made


def measure(purpose: Purpose, clock: Clock | None = None) -> Probe:
    """A new probe; of one thread in the processor's time, which whatever else runs does not lengthen."""
    clock = clock or (time.process_time if torch.get_num_threads() == 1 else time.perf_counter)
    return Probe(purpose=purpose, seconds={_named(*shape): _timed(_calls(*shape, purpose), clock) for shape in SHAPES})


def _key(purpose: Purpose) -> str:
    kernels = native()
    parts = (*processor(), torch.__version__, str(torch.get_num_threads()), str(kernels.library is not None), purpose)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _named(batch: int, channels: int, size: int) -> str:
    return f"{channels} channels, {size}×{size}"


def _timed(calls: Mapping[str, Callable[[], object]], clock: Clock) -> dict[str, float]:
    """The shortest time of each call, all taken in turn, so that whatever else runs slows all of them."""
    for call in calls.values():
        call()
    best, spent, rounds = dict.fromkeys(calls, float("inf")), 0.0, 0
    while rounds < _ROUNDS or spent < _ENOUGH:
        for name, call in calls.items():
            began = clock()
            call()
            took = clock() - began
            best[name], spent = min(best[name], took), spent + took
        rounds += 1
    return {name: max(seconds, 1e-9) for name, seconds in best.items()}


def _calls(batch: int, channels: int, size: int, purpose: Purpose) -> dict[str, Callable[[], object]]:
    """The work of a class by format. Formats that the processor emulates are left out."""
    with torch.random.fork_rng(devices=()), torch.device("cpu"):
        x = torch.randn(batch, channels, size, size).contiguous(memory_format=torch.channels_last)
        norm, conv = GroupNorm(channels, 32), Conv2d(channels, channels, 3, padding=1)
        conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lines = torch.zeros(batch, 2 * channels, 1, 1).chunk(2, dim=1)
    formats = {"float32": torch.float32, **({"bfloat16": torch.bfloat16} if int8.has_bfloat16() else {})}

    def call(dtype: torch.dtype) -> Callable[[], object]:
        weight = conv.weight.detach().to(dtype)
        given, scale, shift = (each.to(dtype) for each in (x, *lines))

        def sample() -> Tensor:
            with torch.inference_mode():
                y = norm(given, scale, shift, silu=True)
                return torch.nn.functional.conv2d(y, weight, None, padding=1)

        def train() -> Iterable[Tensor]:
            with torch.enable_grad():
                y = conv(norm(given.requires_grad_(), scale, shift, silu=True))
                return torch.autograd.grad(y, (given, conv.weight), torch.ones_like(y))

        return sample if purpose == "sampling" else train

    calls = {name: call(dtype) for name, dtype in formats.items()}
    if purpose == "sampling" and winograd.fits(x, conv.weight):
        weight = conv.weight.detach()

        def transformed() -> Tensor:
            with torch.inference_mode():
                return winograd.conv3x3(norm(x, *lines, silu=True), weight, None)

        calls["winograd"] = transformed
    if purpose == "sampling" and int8.supported():
        dtype, grid = int8.between(), int8.Grid.to(4.0)
        seen, *least = (each.to(dtype) for each in (x, *lines))
        conv.pack()

        def coded() -> Tensor:
            with torch.inference_mode():
                return conv.of_codes(norm.codes(seen, grid, *least), grid, dtype)

        calls["int8"] = coded
    return calls
