"""Codes: the search of the nearest ones against `torch.cdist`, and maps of them drawn with what was computed kept, or again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from common import Goal, Setting, chosen, own_time, seconds
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from lodestar.nets import MapConfig, PixelCnnConfig, PixelSnailConfig, TransformerConfig
from lodestar.nets.codebook import nearest
from lodestar.nets.maps import Walk
from lodestar.nets.precision import PRECISIONS

VECTORS, CODES, CHANNELS = 64 * 64, 8192, 256
"""Numbers of vectors and of codes, and their channels, in the search."""
SIDE = 32
"""Height and width of the maps that are drawn."""


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


@torch.inference_mode()
def walks(setting: Setting) -> Iterator[Table | Goal]:
    """Time of drawing one map, with the keys, values and layers of the places before kept, and with all computed again."""
    side, repeats = (4, 1) if setting.batches == (2,) else (SIDE, setting.repeats)
    configs: list[MapConfig] = [
        PixelSnailConfig(size=(side, side)), PixelCnnConfig(size=(side, side)), TransformerConfig(size=(side, side)),
    ]  # fmt: skip
    table = Table("network", "s, kept", "s, again", "times as fast", title=f"one map of {side}×{side} codes of 512")
    for config in configs:
        network = config.build().eval()
        codes = torch.zeros(1, side, side, dtype=torch.int64)

        def again(network: torch.nn.Module = network, codes: torch.Tensor = codes) -> None:
            for row in range(1, side + 1):
                network(codes[:, :row])

        calls: dict[str, Callable[[], object]] = {"kept": lambda network=network: finish(network.walk(1)), "again": again}
        taken = seconds(calls, repeats, clock=own_time)
        # Every row up to a place is computed again for it, and so as many times as there are places in the last one.
        kept, whole = taken["kept"], side * taken["again"]
        table.add_row(config.kind, f"{kept:.2f}", f"{whole:.1f}", f"{whole / kept:.1f}")
        yield Goal(f"a map by {config.kind}, kept against again, times as fast", whole / kept, 20.0, 20.0)
    yield table


def finish(walk: Walk) -> None:
    """Walk to the end, by the likeliest codes."""
    logits = next(walk)
    try:
        while True:
            logits = walk.send(logits.argmax(dim=1))
    except StopIteration:
        return
