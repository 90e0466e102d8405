"""Options that commands have in common: each is declared once, and means a field of the request or a model that guides."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import get_args

import pytest

from lodestar.cli.edit import inpaint, interpolate, invert, sdedit
from lodestar.cli.evaluate import evaluate, sweep
from lodestar.cli.options import BatchSize, Sampling, Seed, Solving, Temperature, flattened
from lodestar.cli.sample import sample
from lodestar.cli.upsample import upsample
from lodestar.generators.request import Settings
from lodestar.guidance import CFG, Clamp
from lodestar.samplers import DDIM


def test_a_dataclass_of_options_is_taken_apart_and_put_together_again() -> None:
    given: list[object] = []

    @flattened
    def command(first: int, sampling: Sampling = Sampling(batch_size=7), last: str = "x") -> None:
        """Of a command."""
        given.extend((first, sampling, last))

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["first", *(field.name for field in fields(Sampling)), "last"]
    assert parameters["batch_size"].default == 7 and parameters["batch_size"].annotation == BatchSize
    assert parameters["seed"].annotation == Seed and parameters["temperature"].annotation == Temperature
    assert get_args(parameters["temperature"].annotation)[0] is float
    assert command.__doc__ == "Of a command."
    options = Sampling(batch_size=3, steps="5", seed=9)
    command(first=1, last="y", **{field.name: getattr(options, field.name) for field in fields(Sampling)})
    assert given == [1, options, "y"]


@pytest.mark.parametrize("command", [sample, sdedit, invert, interpolate, inpaint, upsample, evaluate, sweep])
def test_every_command_that_samples_has_all_of_them(command: Callable[..., None]) -> None:
    kind = Solving if command is invert else Sampling
    missing = {field.name for field in fields(kind)} - set(inspect.signature(command).parameters)
    assert not missing
    assert inspect.signature(command).parameters["batch_size"].default in (8, 32, 64)


def test_they_are_settings_of_a_request() -> None:
    given = Sampling(guidance=["cfg:2", "clamp"], sampler="ddim:eta=1", steps="7", clamp=False, temperature=0.5).settings()
    guidance = (CFG(scale=2.0), Clamp())
    assert given == Settings(steps="7", sampler=DDIM(eta=1.0), guidance=guidance, clamp=False, temperature=0.5)
    assert set(Settings.model_fields) <= {field.name for field in fields(Sampling)}, "every setting is an option"
    assert Solving().settings() == Sampling().settings() == Settings()
