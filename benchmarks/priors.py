"""Priors of the embedded DALL·E 2: embeddings a second, and the autoregressive one with what was computed kept, or again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from common import Goal, Setting, own_time, seconds
from rich.table import Table

from lodestar import library
from lodestar.conditions import Ask
from lodestar.generators.priors import Autoregressive, DiffusionPrior, Prior
from lodestar.generators.unclip import UnClip

MODEL, STEPS = "dalle2_shapes", "trailing:64"
BATCHES = (1, 16, 128)
"""Numbers of embeddings at once; the largest has targets."""


@torch.inference_mode()
def priors(setting: Setting) -> Iterator[Table | Goal]:
    """Embeddings a second of short prompts, in the format that is chosen here."""
    model = library.load(MODEL)
    assert isinstance(model, UnClip)
    ways: dict[str, Prior] = {
        "diffusion, 64 steps": DiffusionPrior(scale=1, steps=STEPS, best_of=1),
        "diffusion, 64 steps, scale 2": DiffusionPrior(scale=2, steps=STEPS, best_of=1),
        "autoregressive": Autoregressive(scale=1),
        "autoregressive, scale 2": Autoregressive(scale=2),
    }
    table = Table("batch", *ways, "kept against again, times as fast", title=f"embeddings a second, {MODEL}")
    for batch in (1,) if setting.batches == (2,) else BATCHES:
        asks = [Ask(seed=row, text="a red circle above a blue square") for row in range(batch)]
        calls = {name: call(model, prior, asks) for name, prior in ways.items()}
        network, texts, seeds = model.model_of(Autoregressive()), [ask.text or "" for ask in asks], [ask.seed for ask in asks]
        calls |= {"again": partial(network.sample, texts, seeds, cached=False)}
        taken = seconds(calls, setting.repeats, clock=own_time)
        again = taken.pop("again")
        times = again / taken["autoregressive"]
        table.add_row(str(batch), *(f"{batch / each:.0f}" for each in taken.values()), f"{times:.1f}")
    yield table
    yield Goal("diffusion prior, embeddings a second", batch / taken["diffusion, 64 steps"], 300.0, 300.0)
    yield Goal("autoregressive prior, kept against again, times as fast", times, 10.0, 10.0)


def call(model: UnClip, prior: Prior, asks: list[Ask]) -> Callable[[], object]:
    """A call of a prior, whose model is loaded."""
    return partial(prior.embed, model.model_of(prior), model.clip, asks)
