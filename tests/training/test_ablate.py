"""The table of variants: what each is, that it is trained once, and that the paper's numbers stand beside ours."""

from __future__ import annotations

import csv
import io
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lodestar import checkpoint, library
from lodestar.config import Problem
from lodestar.evaluation.run import Measurement
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.presets import RUNS
from lodestar.progress import Forecast
from lodestar.tasks import TrainDenoiser
from lodestar.training import ablate as module
from lodestar.training.ablate import TABLE, VARIANTS, ablate, base, table
from lodestar.training.table import Row
from tests.evaluation import tiny

from .runs import classifying, denoising

QUIET = Console(quiet=True)
NETWORK = UNetConfig(width=160, multipliers=(1, 1, 2, 4, 4), blocks=2, attention=(8,), head_channels=64)


def tabled(pictures: str, folder: Path, names: tuple[str, ...], images: int = 16) -> list[Row]:
    run = denoising(pictures, images=images)
    return ablate(
        run,
        folder,
        tiny.reference(),
        tiny.extractor(),
        QUIET,
        names=names,
        count=6,
        measuring=Measurement(cache=folder.parent / "cache"),
    )


def test_the_variants_are_the_papers() -> None:
    """Table 1's first row: 160 channels, 2 blocks, 1 head, attention at 16×16 of 128×128."""
    start = base(NETWORK)
    assert (start.heads, start.attention, start.resample, start.adaptive_norm) == (1, (8,), "conv", True)
    made = {name: variant.of(start) for name, variant in VARIANTS.items()}
    assert made["base"] == start
    assert (made["depth"].width, made["depth"].depths) == (128, (4,) * 5)
    assert made["attention"].attention == (4, 8, 16)
    assert (made["all"].heads, made["all"].attention, made["all"].resample) == (4, (4, 8, 16), "residual")
    assert not made["all"].rescale_residuals and made["rescale"].rescale_residuals
    assert made["head-64"].heads_at(640) == 10
    assert not made["add-norm"].adaptive_norm
    assert len(set(made.values())) == len(VARIANTS)


@pytest.mark.parametrize("preset", ["digits", "cifar10"])
def test_a_preset_can_be_ablated(preset: str) -> None:
    task = RUNS[preset]().task
    assert isinstance(task, TrainDenoiser)
    start = base(task.model.denoiser.network)
    count = {name: sum(p.numel() for p in VARIANTS[name].of(start).build().parameters()) for name in ("base", "depth")}
    assert 0.6 < count["depth"] / count["base"] < 1.5, "about as large"


def test_variants_are_trained_once_and_stand_beside_the_papers(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    original = module.train
    monkeypatch.setattr(
        module, "train", lambda run, folder, *rest, **more: (trained.append(folder.name), original(run, folder, *rest, **more))[1]
    )
    rows = tabled(pictures, tmp_path / "a", ("rescale", "heads-2", "head-32"))
    assert [row["variant"] for row in rows] == ["base", "rescale", "heads-2", "head-32"]
    assert trained == ["base", "rescale", "heads-2"]
    assert str(rows[3]["change"]).startswith("not here: 16 channels do not divide by 32")
    assert rows[3]["frechet"] is None
    assert [row["paper"] for row in rows] == [0.0, 0.25, -0.5, -1.36]
    assert rows[0]["ours"] == 0
    first, second = rows[0]["frechet"], rows[1]["frechet"]
    assert isinstance(first, float) and isinstance(second, float)
    assert rows[1]["ours"] == second - first != 0
    assert {"held_out_mse", "held_out_vb", "parameters", "images_per_second"} <= set(rows[0])
    assert rows[0]["parameters"] == rows[1]["parameters"]
    headers = [checkpoint.peek(tmp_path / "a" / name / "model.safetensors") for name in trained]
    assert {header.provenance["images_seen"] for header in headers} == {16}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(rows))
    text = console.export_text()
    assert all(shown in text for shown in ("ADM's", "+0.25", "held-out mse", "head-32"))
    config = library.config(tmp_path / "a" / "rescale")
    assert isinstance(config, DiffusionConfig) and config.denoiser.network.rescale_residuals
    with open(tmp_path / "a" / TABLE, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["variant"] for line in lines] == [row["variant"] for row in rows]
    assert float(lines[1]["frechet"]) == second

    def never(*_: object, **__: object) -> None:
        raise AssertionError("what is done is done again")

    monkeypatch.setattr("lodestar.training.loop.Step", never)
    monkeypatch.setattr("lodestar.evaluation.measured.evaluate", never)
    assert tabled(pictures, tmp_path / "a", ("rescale", "heads-2", "head-32")) == rows


def test_the_same_network_told_otherwise_is_known(pictures: str, tmp_path: Path) -> None:
    start = base(UNetConfig(width=32, multipliers=(1, 2), blocks=1, attention=(2,)))
    one, two = (module._structure(VARIANTS[name].of(start)) for name in ("heads-2", "head-32"))
    assert one == two != module._structure(start)


def test_what_cannot_be_ablated_is_refused(pictures: str, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"unknown variant 'head-3': choose from base, .*did you mean 'head-32'"):
        tabled(pictures, tmp_path / "a", ("head-3",))
    arguments: Any = (tmp_path / "a", tiny.reference(), tiny.extractor(), QUIET)
    with pytest.raises(Problem, match="this run is of kind 'classify'"):
        ablate(classifying(pictures), *arguments)
    assert not (tmp_path / "a").exists()


def test_measuring_that_is_long_is_foretold_with_that_of_the_variants_to_come(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six pictures in batches of two, 50 seconds each: after the first, four are left, and one variant more."""
    seconds = itertools.count(0, 50)
    monkeypatch.setattr("lodestar.progress.Forecast", partial(Forecast, clock=lambda: float(next(seconds))))
    console, how = Console(record=True, width=200, file=io.StringIO()), Measurement(batch_size=2, cache=tmp_path / "cache")
    run = denoising(pictures, images=8)
    ablate(run, tmp_path / "a", tiny.reference(), tiny.extractor(), console, names=("rescale", "head-32"), count=6, measuring=how)
    said = [line for line in console.export_text().splitlines() if "to go here" in line]
    assert said == ["about 1.7 minutes to go here, about 4.2 minutes with 1 more like it", "about 1.7 minutes to go here"]
