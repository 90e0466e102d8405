"""The race of recipes: its page's settings are runs, and its table has their means."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from lodestar.config import Problem, edit
from lodestar.data import DataFacts
from lodestar.presets import RUNS
from lodestar.tasks import TrainDenoiser
from lodestar.tasks.denoise import DenoiseLearner
from lodestar.training.loop import train
from lodestar.training.run import Run

from ..training.runs import denoising, write_pictures

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\w+) \| (?:`(.*)` )?\|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("name", "settings"), ROWS, ids=[name for name, _ in ROWS])
def test_every_recipe_of_the_page_is_a_run(name: str, settings: str) -> None:
    averages = re.search(r"^AVERAGES='(.*)'$", PAGE, re.MULTILINE)
    assert averages is not None and len(ROWS) > 8
    run = edit(RUNS["cifar10"](), [*settings.split(), averages[1], "train.precision=bfloat16", "train.preview_every=1000000"])
    task = run.task.resolve(DataFacts(3, (32, 32), tuple("abcdefghij")))
    assert isinstance(task, TrainDenoiser)
    if name == "reference":
        reference = task.model.denoiser
        assert (reference.prediction.kind, reference.variance, task.model.schedule.kind) == ("epsilon", "learned_range", "linear")
        assert (run.train.batch_size, run.train.optimizer.rate, run.train.optimizer.fall) == (128, 1e-4, "none")
        assert not task.model.droppable


def test_the_command_of_the_page_is_one_that_there_is() -> None:
    line = re.search(r"^OMP_NUM_THREADS=1 (lodestar train .*?)\n```", PAGE, re.MULTILINE | re.DOTALL)
    assert line is not None
    words = shlex.split(line[1].replace("\\\n", ""))
    assert [word for word in words if word.startswith("--")] == ["--data", "--images", "--seed", "--out"]


def test_runs_that_differ_in_their_seed_alone_have_a_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module, pictures = importlib.import_module("recipes"), write_pictures(tmp_path / "pictures")
    monkeypatch.setattr(DenoiseLearner, "preview", lambda _: None)

    def made(name: str, seed: int, run: Run) -> None:
        train(run.replace(train=run.train.replace(seed=seed)), tmp_path / "runs" / name)

    plain = denoising(pictures, images=16, save_every=16)
    made("plain-0", 0, plain)
    made("plain-1", 1, plain)
    made("large", 0, denoising(pictures, images=16, save_every=16, batch_size=16))
    found = list(module.entries([tmp_path / "runs"]))
    assert [(entry.name, entry.images) for entry in found] == [("large", 16), ("plain", 16), ("plain", 16)]
    assert all(path.is_file() for entry in found for path in entry.averages.values())
    labels = list(found[0].averages)
    for distance, entry in enumerate(found, 1):
        entry.distances.update({(labels[0], 1.0): distance, (labels[1], 1.0): distance})
    del found[0].distances[labels[1], 1.0]
    heads, rule, *lines = module.table(found)
    assert heads.count("|") == rule.count("|") == 7 and f"{labels[0]}, guidance 1" in heads
    assert [line.split(" | ")[0] for line in lines] == ["| large", "| plain", "| plain", "| **plain**"]
    assert lines[0].endswith("| 1.00 |  |")
    assert "| mean of 2 | 16 |" in lines[3] and lines[3].endswith("| 2.50 ± 6.35 | 2.50 ± 6.35 |")
    with pytest.raises(Problem, match="holds no run"):
        list(module.entries([tmp_path / "pictures"]))
