"""Options that commands have in common: each is declared once, and means a field of the request or a model that guides."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import torch

from lodestar import checkpoint
from lodestar.cli.edit import inpaint, interpolate, invert, sdedit
from lodestar.cli.evaluate import evaluate, sweep
from lodestar.cli.options import BatchSize, Sampling, Seed, Solving, Temperature, flattened
from lodestar.cli.sample import sample
from lodestar.cli.upsample import upsample
from lodestar.evaluation.report import in_text
from lodestar.generators.album import Manifest
from lodestar.generators.request import Settings
from lodestar.guidance import CFG, Clamp
from lodestar.images import load_png
from lodestar.presets.recipes import RECIPES, listing
from lodestar.samplers import DDIM
from tests.evaluation import tiny
from tests.test_cli import refusal, run


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
    options = {field.name for field in fields(Sampling)} | {"augment"}  # which is an option of upsample alone
    assert set(Settings.model_fields) <= options, "every setting is an option"
    assert Solving().settings() == Sampling().settings() == Settings()


# ---------------------------------------------------------------------------------------------------- guides by their role


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two guides, as files."""
    folder = tmp_path_factory.mktemp("models")
    made = (
        ("model", "diffusion", tiny.diffusion()),
        ("less", "diffusion", tiny.diffusion(3)),
        ("guide", "classifier", tiny.classifier()),
    )
    for name, kind, model in made:
        checkpoint.save(folder / name, kind, model.config.to_json(), model.state_dict(), {})
    return folder


def test_guides_are_given_by_their_role(models: Path, tmp_path: Path) -> None:
    sample = ("sample", models / "model", "--label", "dog=2", "--steps", 3)
    both = ("--guidance", "autoguidance:3", "--guidance", "classifier:50")
    by_role = ("--guide", f"weak={models / 'less'}", "--guide", f"classifier={models / 'guide'}")
    by_option = ("--weak", models / "less", "--classifier", models / "guide")
    mixed = ("--guide", f"weak={models / 'less'}", "--classifier", models / "guide")
    for name, given in (("role", by_role), ("option", by_option), ("mixed", mixed)):
        assert run(*sample, *both, *given, "--out", tmp_path / name) == 0
    assert run(*sample, "--out", tmp_path / "plain") == 0
    grids = {name: load_png(tmp_path / name / "grid.png") for name in ("role", "option", "mixed", "plain")}
    assert torch.equal(grids["role"], grids["option"]) and torch.equal(grids["role"], grids["mixed"])
    assert not torch.equal(grids["role"], grids["plain"])
    guides = Manifest.read(tmp_path / "role").guides
    assert {role: guide.name for role, guide in guides.items()} == {
        "classifier": str(models / "guide"), "weak": str(models / "less"),
    }  # fmt: skip
    assert run("remake", tmp_path / "role", "--picture", 1, "--out", tmp_path / "again") == 0
    made, again = (load_png(tmp_path / name / "00001.png").int() for name in ("role", "again"))
    assert (made - again).abs().max() <= 1


def test_a_path_with_an_equals_sign_is_a_path(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a=b").write_bytes((models / "less").read_bytes())
    given = Solving(guidance=["autoguidance:2"], guide=[f"weak={tmp_path / 'a=b'}"])
    (guide,) = given.guides(str(models / "model"), given.settings().guidance).values()
    assert guide.name == str(tmp_path / "a=b")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--guide", "less"), "--guide 'less': write it as ROLE=MODEL, such as classifier=runs/mine"),
        (("--guide", "=less"), "write it as ROLE=MODEL"),
        (("--guide", "weak="), "write it as ROLE=MODEL"),
        (("--guide", "weak=less"), "--guide weak=less has no effect without guidance that asks for it, such as --guidance auto"),
        (
            ("--guide", "waek=less"),
            "it asks for classifier, clip, discriminator, weak; did you mean 'weak'?",
        ),
        (("--guidance", "autoguidance:2", "--guide", "weak=lss"), "no model 'lss'"),
        (("--guidance", "autoguidance:2", "--guide", "weak=a", "--guide", "weak=b"), "--guide weak=a is given for this role"),
        (("--guidance", "autoguidance:2", "--guide", "weak=a", "--weak", "b"), "--guide weak=a: --weak b is given for this role"),
        (
            ("--guidance", "autoguidance:2", "--guide", "weak=guide"),
            "guidance autoguidance: guide makes no pictures: give a diffusion model",
        ),
        (
            ("--guidance", "classifier:2", "--guide", "classifier=less"),
            "guidance classifier: less is of another kind: give a classifier",
        ),
        (("--guidance", "classifier:2"), "has no classifier of its own: give one with --classifier"),
    ],
)
def test_guides_that_nobody_asks_for_or_that_are_none_are_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(models)
    assert said in refusal(capsys, "sample", "model", *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("columns", ["20", "80"])
def test_no_column_of_a_table_is_lost_where_the_terminal_is_narrow(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert run("reproduce") == 0
    told = capsys.readouterr().out
    assert "recall" in told and "…" not in told and all(name in told for name in RECIPES)
    assert all(name in in_text(listing()) for name in ("recall", *RECIPES)), "as text, in a notebook or a log"
