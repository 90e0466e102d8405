"""The rows of published tables: what they name exists, what they sample is what was published, and a row is made again whole."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from lodestar import bundle, library
from lodestar.__main__ import main
from lodestar.generators.diffusion import Diffusion
from lodestar.presets import PUBLISHED, recipes
from lodestar.presets.recipes import RECIPES, Recipe

torch.set_num_threads(1)


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_names_published_models_and_metrics_that_exist(name: str) -> None:
    recipe = RECIPES[name]
    models = {each.short: each for each in PUBLISHED}
    assert recipe.model in models
    assert (recipe.guide is None) == (recipe.scale == 0)
    assert recipe.guide is None or recipe.guide in models
    assert set(recipe.expected) <= {"frechet", "spatial_frechet", "score", "precision", "recall"}
    size = models[recipe.model].model().size[0]
    assert f"{size}" in recipe.reference


def test_it_samples_classes_at_random_and_clamps_as_published() -> None:
    model = library.load("cifar10", "cpu")
    assert isinstance(model, Diffusion)
    recipe = RECIPES["adm-g-256"]
    drawn = recipes.drawn(recipe, model, {}, 1000, 7)
    counts = np.bincount([label or 0 for label in drawn.labels], minlength=10)
    assert counts.min() > 60 and counts.max() < 140 and len(set(counts)) > 3
    assert drawn == recipes.drawn(recipe, model, {}, 1000, 7) != recipes.drawn(recipe, model, {}, 1000, 8)
    assert [each.kind for each in drawn.settings.guidance] == ["clamp", "classifier"]
    assert (drawn.settings.steps, drawn.seeds[:2]) == ("250", [7, 8])


def test_the_listing_names_every_row_whole_on_a_narrow_terminal() -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(recipes.listing())
    assert all(f" {name} " in console.file.getvalue() for name in RECIPES)  # type: ignore[attr-defined]


def test_what_counts_as_the_same_number() -> None:
    assert recipes.within("frechet", 4.70, 4.59) and not recipes.within("frechet", 4.90, 4.59)
    assert recipes.within("recall", 0.51, 0.52) and not recipes.within("recall", 0.50, 0.52)


def test_a_row_is_made_again_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = Recipe(
        model="cifar10", guide="cifar10_classifier", scale=1.0, steps="2", reference="batch.npz", folder="none",
        expected={"frechet": 1.0, "recall": 0.5},
    )  # fmt: skip
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": tiny})
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    arguments = ["reproduce", "tiny", "--models", str(bundle.WEIGHTS), "--extractor", "cifar10_features", "--count", "6"]

    def refused(*given: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main([*given])
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "unknown row 'tinny': choose from tiny; did you mean 'tiny'?" in refused("reproduce", "tinny")
    assert "convert openai/cifar10 --out" in refused("reproduce", "tiny", "--models", str(tmp_path))
    assert "ref_batches/none/batch.npz" in refused(*arguments)
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "batch.npz", generator.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--reference", str(tmp_path / "batch.npz"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert "printed" in told and "6 pictures, and the printed numbers are of 50,000" in " ".join(told.split())
    assert (tmp_path / "out" / "report.json").exists()
    with pytest.raises(SystemExit):
        main(["reproduce"])
    assert "tiny" in capsys.readouterr().out
