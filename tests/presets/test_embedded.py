"""The embedded models of digits: that they are small, make digits, and are what their commands train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import lodestar
from lodestar import library
from lodestar.config import edit
from lodestar.presets import RUNS
from lodestar.presets.embedded import DIGITS, LIMIT, commands
from lodestar.python.train import configured
from lodestar.training.inputs import facts_of, open_data

_HEADER = 10_000
"""Bytes for a file's configuration and provenance."""


def _named(words: Sequence[str]) -> dict[str, str]:
    """The options that name a model, and its name."""
    options = (word.removeprefix("--").split() for word in words if word.startswith("--"))
    return {option: path.rpartition("/")[2] for option, path in options}


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


def test_those_in_the_package_are_small_and_what_their_commands_train() -> None:
    assert sum(library.find(name).stat().st_size for name in DIGITS) < LIMIT
    for name, (preset, *words) in DIGITS.items():
        settings = [word for word in words if not word.startswith("--")]
        run = configured(preset, *settings, **_named(words))  # type: ignore[arg-type]
        task = run.task.resolve(facts_of(run, open_data(run)[0]))
        assert getattr(task, "model") == library.config(name), name  # noqa: B009 (a task need not have one)


@pytest.mark.parametrize("name", ["digits_vae", "digits_vqvae_prior", "digits_gan", "digits_ddgan", "digits_diffusion"])
def test_they_make_digits(name: str) -> None:
    """The real digits nearest to them are about as near as real ones are to each other, and of the class that was asked for."""
    source, _ = open_data(RUNS["digits"]())
    real = torch.stack([torch.tensor(source[index][0]).flatten() for index in range(len(source))]).float()
    asked: Any = {"count": 50} if name == "digits_vae" else {"label": [str(k % 10) for k in range(50)]}
    made = lodestar.load(name, "cpu").sample(**asked, seed=0).images.flatten(1).float()
    distances, nearest = torch.cdist(made, real).min(dim=1)
    own = torch.cdist(real[:300], real[300:]).min(dim=1).values
    assert distances.mean() < 1.5 * own.mean()
    if name != "digits_vae":
        known = torch.tensor([source[int(index)][1] for index in nearest])
        assert (known == torch.arange(50) % 10).float().mean() > 0.8


def test_their_guides_are_at_hand() -> None:
    model = lodestar.load("digits_diffusion", "cpu")
    plain = model.sample(label="3", count=1, steps=4, seed=0)
    for guidance in ("classifier:1", "discriminator:1"):
        guided = model.sample(label="3", count=1, steps=4, seed=0, guidance=guidance)
        assert not torch.equal(plain.images, guided.images)


def test_models_come_before_those_that_need_them() -> None:
    for place, words in enumerate(DIGITS.values()):
        needed = list(_named(words).values())
        assert set(needed) <= set(list(DIGITS)[:place])
    assert len(commands()) == 2 * len(DIGITS) and all(word[0] in RUNS for word in DIGITS.values())
