"""Progressive distillation, stage after stage: each teacher is the student before, however often the work is stopped."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lodestar import checkpoint, library
from lodestar.config import Problem
from lodestar.core.prediction import Velocity
from lodestar.core.schedule import Cosine
from lodestar.data import DataFacts
from lodestar.evaluation.run import Measurement
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.request import request
from lodestar.models.diffusion import DiffusionConfig
from lodestar.progress import Forecast
from lodestar.samplers import DDIM, Consistency
from lodestar.tasks import Distill
from lodestar.training.distill import TABLE, distill, measure, settings, stages
from lodestar.training.run import Run
from lodestar.training.start import start
from lodestar.training.step import Step
from tests.evaluation import tiny

from .runs import assert_same, saved

SMALL = (
    "train.images=32", "train.batch_size=8", "train.save_every=16", "train.preview_every=1000000", "train.precision=float32",
    "train.optimizer.rate=1e-3",
)  # fmt: skip
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of the pictures' three classes with random weights, as a file."""
    made = tiny.diffusion(droppable=True)
    denoiser = made.config.denoiser.replace(prediction=Velocity())
    config = DiffusionConfig(denoiser=denoiser, schedule=Cosine(timesteps=32), size=(8, 8), names=("a", "b", "c"), droppable=True)
    model = tiny.randomized(Diffusion(config), 3)
    path = tmp_path_factory.mktemp("teacher") / "t.safetensors"
    checkpoint.save(path, "diffusion", config.to_json(), model.state_dict(), {})
    return str(path)


def staged(teacher: str, pictures: str, folder: Path, first: int = 8, last: int = 1, **more: Any) -> Path:
    run = settings(teacher, first, [*SMALL, f'data.source="{pictures}"', *(f"{name}={value}" for name, value in more.items())])
    distill(run, teacher, first, last, folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def whole(teacher: str, pictures: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return staged(teacher, pictures, tmp_path_factory.mktemp("runs") / "d")


def test_steps_are_halved() -> None:
    assert stages(1024, 1) == [512, 256, 128, 64, 32, 16, 8, 4, 2, 1]
    assert stages(12, 3) == [6, 3]
    for first, last in ((6, 1), (8, 8), (4, 8), (1, 1)):
        with pytest.raises(Problem, match=f"--from {first} --to {last}: halving goes"):
            stages(first, last)


def test_each_stage_is_a_model_of_its_own_steps_whose_teacher_is_the_one_before(whole: Path, teacher: str) -> None:
    assert sorted(path.name for path in whole.iterdir()) == ["stage-1", "stage-2", "stage-4"]
    before, seen = library.find(teacher), []
    for steps in (4, 2, 1):
        model = library.load(whole / f"stage-{steps}")
        assert isinstance(model, Diffusion)
        assert (model.config.sampler, model.config.steps) == (DDIM(), f"trailing:{steps}")
        assert [frame.steps for frame in model.stream(request(model.labels(None, 2)))] == [steps] * steps
        run = Run.model_validate_json((whole / f"stage-{steps}" / "run.json").read_text())
        assert isinstance(run.task, Distill)
        assert run.task.digest == checkpoint.peek(before).digest
        assert run.task.teacher == run.train.init == str(before)
        before = library.find(whole / f"stage-{steps}")
        seen.append(run.task.digest)
    assert len(set(seen)) == 3, "every student has moved"


@pytest.mark.parametrize("stop", [8, 9])
def test_stages_that_were_killed_go_on_to_the_same_bits(
    stop: int, whole: Path, teacher: str, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages are of four steps: killed in the second one, after a checkpoint of it, and in the third, before there is one."""
    steps, phases = 0, Step._phases

    def dies(self: Any, *args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == stop:
            raise RuntimeError("power cut")
        return phases(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "_phases", dies)
        with pytest.raises(RuntimeError, match="power cut"):
            staged(teacher, pictures, tmp_path / "d")
    staged(teacher, pictures, tmp_path / "d")
    for steps in (4, 2, 1):
        # Where the stages lie is part of a run, and of its teacher's name: the weights and the numbers are the same.
        assert_same(tmp_path / "d" / f"stage-{steps}", whole / f"stage-{steps}")


def test_the_student_begins_as_its_teacher_and_the_rate_falls_in_every_stage(whole: Path, teacher: str) -> None:
    for steps in (4, 2, 1):
        lines = [json.loads(line) for line in (whole / f"stage-{steps}" / "log.jsonl").read_text().splitlines()]
        assert lines[-1]["rate"] == pytest.approx(1e-3 * 8 / 32)
    run = settings(teacher, 8, [*SMALL, "train.optimizer.rate=1e-12"])
    state = start(run.replace(task=run.task.resolve(DataFacts(3, (8, 8), ("a", "b", "c")))), whole / "nowhere")
    theirs = checkpoint.load(teacher)[1]
    learner: Any = state.learner
    for module in (learner.module, learner.teacher):
        assert all(torch.equal(value, theirs[name]) for name, value in module.state_dict().items())


def test_stages_that_are_done_are_left_alone_and_another_teacher_is_refused(
    whole: Path, teacher: str, pictures: str, tmp_path: Path
) -> None:
    staged(teacher, pictures, tmp_path / "d", first=2)
    counters = saved(tmp_path / "d" / "stage-1")[0]
    staged(teacher, pictures, tmp_path / "d", first=2)
    assert saved(tmp_path / "d" / "stage-1")[0] == counters
    with pytest.raises(Problem, match=r"stage-1 holds another run \(its task\.teacher is"):
        staged(str(whole / "stage-2"), pictures, tmp_path / "d", first=2)


def test_a_student_that_jumps_is_one_stage_measured_by_one_two_and_four_jumps(
    teacher: str, pictures: str, tmp_path: Path
) -> None:
    folder = staged(teacher, pictures, tmp_path / "d", first=8, last=4, **{"task.jump": "true", "task.scale": "2"})
    model = library.load(folder / "stage-4")
    assert (model.config.sampler, model.config.steps) == (Consistency(), "trailing:1")
    assert [frame.steps for frame in model.stream(request([0, 1]))] == [1]
    rows = measure(folder, teacher, 8, 4, tiny.reference(), tiny.extractor(), count=4, run=Measurement(console=QUIET))
    assert [row["steps"] for row in rows] == [4, 2, 1]
    assert len({row["frechet"] for row in rows}) == 3
    with pytest.raises(Problem, match="such a student is no teacher of DDIM steps, so --to 2 has to be 4"):
        staged(teacher, pictures, tmp_path / "e", first=8, last=2, **{"task.jump": "true"})
    # Guidance is the first teacher's alone: its student has it.
    staged(teacher, pictures, tmp_path / "f", first=8, last=2, **{"task.scale": "2"})
    tasks = [Run.model_validate_json((tmp_path / "f" / f"stage-{steps}" / "run.json").read_text()).task for steps in (4, 2)]
    assert [task.scale for task in tasks if isinstance(task, Distill)] == [2.0, 1.0]


def test_what_makes_no_sense_is_refused(teacher: str, pictures: str, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"--from 64: the chain of .* has 32 steps; try --from 32"):
        staged(teacher, pictures, tmp_path / "d", first=64)
    with pytest.raises(Problem, match="of task, only label_drop, jump, scale, low, high may be changed"):
        settings(teacher, 8, ["task.steps=3"])
    with pytest.raises(Problem, match="holds a classifier, and a diffusion is needed here"):
        settings("cifar10_features", 8)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Problem, match=r"holds something else \(notes\.txt\): choose another --out"):
        staged(teacher, pictures, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_every_stage_is_measured_beside_the_teacher_in_as_many_steps(whole: Path, teacher: str, tmp_path: Path) -> None:
    rows = measure(whole, teacher, 8, 1, tiny.reference(), tiny.extractor(), count=8, run=Measurement(cache=tmp_path))
    assert [row["steps"] for row in rows] == [4, 2, 1]
    with open(whole / TABLE, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["frechet"]) for line in lines] == [row["frechet"] for row in rows]
    assert all(row["frechet"] != row["frechet_of_teacher"] for row in rows)


def test_how_long_the_measuring_of_all_stages_takes_is_told_once(
    whole: Path, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages of 4, 2 and 1 steps and their teacher, 8 pictures each: 112 steps, of which 8 take 10 seconds."""
    seconds = itertools.count(0, 10)
    monkeypatch.setattr("lodestar.progress.Forecast", partial(Forecast, clock=lambda: float(next(seconds))))
    console, copied = Console(record=True, width=200, file=io.StringIO()), tmp_path / "d"
    shutil.copytree(whole, copied, ignore=shutil.ignore_patterns("report*"))
    run = Measurement(batch_size=2, console=console, cache=tmp_path)
    measure(copied, teacher, 8, 1, tiny.reference(), tiny.extractor(), count=8, run=run)
    assert [line for line in console.export_text().splitlines() if line] == ["about 2.2 minutes to go here"]
