"""The rows of published tables: what they name exists, what they sample is what was published, and a row is made again whole."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lodestar import bundle, library
from lodestar.__main__ import main
from lodestar.conditions import LowRes
from lodestar.config import Problem
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.generators.cascade import Cascade
from lodestar.generators.diffusion import Diffusion
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.presets import PUBLISHED, recipes
from lodestar.presets.recipes import RECIPES, Recipe
from lodestar.samplers import DDIM
from tests.evaluation import tiny


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_names_published_models_and_metrics_that_exist(name: str) -> None:
    recipe = RECIPES[name]
    models = {each.short: each for each in PUBLISHED}
    assert f"{recipe.authors}/{recipe.model}" == models[recipe.model].name
    assert (recipe.guide is None) == (recipe.scale == 0)
    assert recipe.guide is None or recipe.guide in models
    assert set(recipe.expected) <= {"frechet", "spatial_frechet", "score", "precision", "recall"}
    last = models[recipe.made_by].model()
    assert recipe.folder is None or f"{last.size[0]}" in recipe.reference
    if recipe.then is not None:
        assert last.denoiser.low_res == models[recipe.model].model().size


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


def test_a_row_of_two_stages_is_a_cascade(tmp_path: Path) -> None:
    classes = (*conditions(3), LowRes(size=(8, 8)))
    large = DenoiserConfig(network=UNetConfig(**tiny.BACKBONE, in_channels=6, out_channels=3), conditions=classes)
    tiny.diffusion().save(tmp_path / "small.safetensors")
    tiny.randomized(Diffusion(DiffusionConfig(denoiser=large, size=(16, 16), names=tiny.NAMES)), 0).save(
        tmp_path / "large.safetensors"
    )
    recipe = Recipe(model="small", then="large", steps="2", then_steps="ddim3", reference="some.npz", folder="none", expected={})
    model, guides = recipes.load(recipe, tmp_path, "cpu")
    assert isinstance(model, Cascade) and model.shape == (3, 16, 16) and not guides
    drawn = recipes.drawn(recipe, model, guides, 3, 5)
    assert (drawn.settings.steps, drawn.later[0].steps, drawn.later[0].sampler) == ("2", "ddim3", DDIM())
    assert None not in drawn.labels
    pictures = [frame.images for frame in model.prepare(drawn, guides).frames(2) if frame.final]
    assert sum(map(len, pictures)) == 3 and pictures[0].shape[1:] == (3, 16, 16)
    with pytest.raises(Problem, match=r"missing.safetensors is missing: make it with lodestar convert openai/missing --out"):
        recipes.load(recipe.replace(then="missing"), tmp_path, "cpu")
    with pytest.raises(Problem, match=r"trained on: --reference cifar10-train.parquet"):
        recipes.reference_file(RECIPES["ddpm-cifar10"], None)
    sampled = recipes.drawn(RECIPES["ddpm-cifar10"], model.first, {}, 1, 0)
    assert sampled.settings.sampler is None, "the published sampler is the model's own"


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
    row = Recipe(
        model="cifar10", guide="cifar10_classifier", scale=1.0, steps="2", reference="batch.npz", folder="none",
        expected={"frechet": 1.0, "recall": 0.5},
    )  # fmt: skip
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": row})
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
