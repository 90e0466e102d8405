"""The search of the nearest codes against `torch.cdist`: 64×64 vectors of 256 channels among 8192 codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from common import Goal, Setting, chosen, seconds
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from lodestar.nets.codebook import nearest
from lodestar.nets.precision import PRECISIONS

VECTORS, CODES, CHANNELS = 64 * 64, 8192, 256


def codes(setting: Setting) -> Iterator[Table | Goal]:
    """Time and memory of a search, by `cdist` and in each format; the one that training chooses here has targets."""
    generator = torch.Generator().manual_seed(0)
    vectors, book = (torch.randn(count, CHANNELS, generator=generator) for count in (VECTORS, CODES))
    calls: dict[str, Callable[[], torch.Tensor]] = {"cdist": lambda: torch.cdist(vectors, book).argmin(dim=1)}
    calls |= {name: partial(nearest, vectors, book, PRECISIONS[name]) for name in ("float32", "bfloat16")}
    first, *others = (call() for call in calls.values())
    assert all(torch.equal(other, first) for other in others), "a search is not exact"
    taken, held = seconds(calls, setting.repeats), {name: memory(call) for name, call in calls.items()}
    table = Table("search", "ms", "MiB at most", title=f"{VECTORS} vectors, {CODES} codes of {CHANNELS} channels")
    for name in calls:
        table.add_row(name, f"{1e3 * taken[name]:.0f}", f"{held[name] / 2**20:.1f}")
    yield table
    ours = chosen(training=True)
    yield Goal("search of codes against cdist, times as fast", taken["cdist"] / taken[ours], 3.0, 3.0)
    yield Goal("memory of the search against cdist's", held[ours] / held["cdist"], 0.1, 0.1, most=True)


def memory(call: Callable[[], object]) -> int:
    """The most memory that a call holds at once, in bytes, as PyTorch's allocator counts it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    held = most = 0
    events = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
