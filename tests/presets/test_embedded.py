"""The models of digits that can be embedded: that they are small, and that their commands are as the command line has them."""

from __future__ import annotations

import torch

from lodestar import library
from lodestar.config import edit
from lodestar.presets import RUNS
from lodestar.presets.embedded import DIGITS, LIMIT, commands
from lodestar.training.inputs import facts_of, open_data

_HEADER = 10_000
"""Bytes for a file's configuration and provenance."""


def size(preset: str, *words: str) -> tuple[str, int]:
    """Kind of a model, and the bytes of its file with weights of 16 bits."""
    run = edit(RUNS[preset](), [word for word in words if not word.startswith("--")])
    source, _ = open_data(run)
    # Others than the following have the classes of digits already, or learn none.
    task = run.task.resolve(facts_of(run, source)) if run.task.kind in ("gan", "denoise", "ddgan", "classify") else run.task
    config = getattr(task, "model")  # noqa: B009 (a task need not have one)
    name, kind = next((name, kind) for name, kind in library.KINDS.items() if isinstance(config, kind.config))
    with torch.device("meta"):
        model = kind.build(config)
    return name, sum(
        each.numel() * (2 if each.is_floating_point() else each.element_size()) for each in model.state_dict().values()
    )


def test_all_of_them_are_small_together() -> None:
    found = {name: size(*words) for name, words in DIGITS.items()}
    total = sum(count + _HEADER for _, count in found.values())
    assert total < LIMIT, {name: count for name, (_, count) in found.items()}
    text_models = {"clip", "autoregressive"}
    assert {kind for kind, _ in found.values()} == library.KINDS.keys() - text_models, "one of every kind that digits have"


def test_models_come_before_those_that_need_them() -> None:
    for place, words in enumerate(DIGITS.values()):
        needed = [word.rpartition("/")[2] for word in words if word.startswith("--")]
        assert set(needed) <= set(list(DIGITS)[:place])
    assert len(commands()) == 2 * len(DIGITS) and all(word[0] in RUNS for word in DIGITS.values())
