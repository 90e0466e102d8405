"""Progressive distillation: successive stages, each a run of the training loop in a folder of its own.

The student of a stage begins as its teacher and learns to take half as many steps, then becomes the next stage's teacher
(Salimans and Ho 2022, algorithm 2). The same command again resumes: finished stages are kept, an interrupted one goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lodestar import checkpoint, library
from lodestar.config import Problem, edit
from lodestar.data import Source, Transforms
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.kept import Kept
from lodestar.evaluation.measured import measured
from lodestar.evaluation.run import Measurement
from lodestar.files import check_writable, is_temporary, write_csv
from lodestar.generators.request import Settings
from lodestar.models.diffusion import DiffusionConfig
from lodestar.progress import Foretold, error_console
from lodestar.samplers import DDIM, Consistency
from lodestar.tasks import Distill, OptimizerConfig
from lodestar.training.ema import HalfLife
from lodestar.training.loop import train
from lodestar.training.run import DataConfig, Run, TrainConfig
from lodestar.training.table import Row, laid_out

_FREE = ("label_drop", "jump", "scale", "low", "high")
"""Settings of a stage that are not its teacher's."""

JUMPS = (4, 2, 1)
"""Numbers of steps by which a student that jumps is measured."""

TABLE = "distill.csv"
"""File of every stage's Fréchet distance, in the folder of the stages."""


def stages(first: int, last: int) -> list[int]:
    """The students' numbers of steps for a teacher of `first` steps: half as many, and so on down to `last`. Raises Problem."""
    steps = [first]
    while steps[-1] > last and steps[-1] % 2 == 0:
        steps.append(steps[-1] // 2)
    if len(steps) == 1 or steps[-1] != last:
        halved = ", ".join(map(str, steps))
        raise Problem(f"--from {first} --to {last}: halving goes {halved}; give a start that is the end times 2, 4, 8 …")
    return steps[1:]


def settings(teacher: str, first: int, overrides: Iterable[str | Mapping[str, Any]] = ()) -> Run:
    """The run of the first stage, of a teacher that takes `first` steps. Raises Problem.

    Pictures are brought to the teacher's size and channels. The learning rate falls linearly to 0 in every stage, as published.
    `overrides` are of the loop, the data and the share of dropped labels: the student's configuration is the teacher's.
    """
    task = _task(teacher, first // 2)
    channels: Any = task.model.denoiser.channels
    run = Run(
        task=task,
        data=DataConfig(channels=channels, transforms=Transforms(size=task.model.size)),
        train=TrainConfig(
            images=50_000,
            batch_size=32,
            optimizer=OptimizerConfig(rate=3e-4, betas=(0.9, 0.99), fall="linear"),
            ema=(HalfLife(images=10_000),),
            init=teacher,
        ),
    )
    changed = edit(run, overrides)
    assert isinstance(changed.task, Distill)
    if changed.task != task.replace(**{name: getattr(changed.task, name) for name in _FREE}):
        raise Problem(f"a student is what its teacher {teacher} is: of task, only {', '.join(_FREE)} may be changed")
    return changed


def distill(run: Run, teacher: str, first: int, last: int, folder: Path, console: Console, device: str | None = None) -> None:
    """Train the stages of a teacher of `first` steps down to a student of `last`, from `settings`, in ``folder/stage-<steps>``.

    Raises Problem as `train` does, and where the teacher cannot take so many steps.
    """
    todo = stages(first, last)
    _check_folder(folder)
    check_writable(folder / TABLE)
    if first > (limit := library.config(teacher).schedule.timesteps):
        most = 2 ** (limit.bit_length() - 1)
        raise Problem(f"--from {first}: the chain of {teacher} has {limit} steps; try --from {most}")
    assert isinstance(run.task, Distill)
    if run.task.jump and len(todo) > 1:
        raise Problem(f"task.jump is true: such a student is no teacher of DDIM steps, so --to {last} has to be {first // 2}")
    for number, steps in enumerate(todo):
        free = {name: getattr(run.task, name) for name in _FREE}
        # The students of a guided teacher have its guidance in them.
        task = _task(teacher, steps).replace(**free if number == 0 else free | {"scale": 1.0})
        stage = run.replace(task=task, train=run.train.replace(init=teacher))
        teacher = str(train(stage, _stage(folder, steps), console, device, following=len(todo) - 1 - number))


def measure(
    folder: Path,
    teacher: str,
    first: int,
    last: int,
    reference: Source | Kept,
    extractor: Extractor,
    *,
    count: int,
    device: str | None = None,
    run: Measurement | None = None,
) -> list[Row]:
    """Measure every stage, and the first teacher in as many DDIM steps; writes distill.csv. run: how. Raises Problem."""
    run, todo, rows = run or Measurement(), stages(first, last), list[Row]()
    students = [(_stage(folder, steps), steps, f"trailing:{steps}") for steps in todo]
    jumps = isinstance(library.config(str(students[0][0])).sampler, Consistency)
    if jumps:
        students = [(students[0][0], steps, f"trailing:{steps}") for steps in JUMPS]
    console = run.console or error_console()
    foretold, before = Foretold(console, 2 * count * sum(steps for _, steps, _ in students)), 0  # in steps of pictures
    for stage, steps, plan in students:
        distances = []
        for name, kept, sampler in ((str(stage), "report", None), (teacher, "report-teacher", DDIM())):
            title, tick = f"measuring {name} in {steps} steps", foretold.within(before, steps)
            how = replace(run, title=title, console=console, tick=tick)
            path = stage / (f"{kept}-{steps}.json" if jumps else f"{kept}.json")
            settings = Settings(steps=plan, sampler=sampler)
            report = measured(path, name, reference, extractor, count=count, how=settings, device=device, run=how)
            distances.append(report["numbers"]["frechet"])
            before += count * steps
        rows.append({"steps": steps, "frechet": distances[0], "frechet_of_teacher": distances[1]})
        write_csv(folder / TABLE, rows)
    return rows


def table(rows: Sequence[Row], teacher: str) -> Table:
    """The distances of `measure`, for a person."""
    headings = {"steps": "steps", "frechet": "FD", "frechet_of_teacher": f"FD of {teacher} in as many DDIM steps"}
    return laid_out(rows, headings)


def _task(teacher: str, steps: int) -> Distill:
    config = library.config(teacher)
    if not isinstance(config, DiffusionConfig):
        raise Problem(f"{teacher} holds a {config.kind}, and a diffusion is needed here")
    return Distill(teacher=teacher, digest=checkpoint.peek(library.find(teacher)).digest, model=config, steps=steps)


def _stage(folder: Path, steps: int) -> Path:
    return folder / f"stage-{steps}"


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise Problem(f"{folder} is a file: name a folder for the stages")
    names = sorted(entry.name for entry in folder.iterdir() if not is_temporary(entry)) if folder.exists() else []
    if strange := [name for name in names if not name.startswith("stage-") and name != TABLE]:
        raise Problem(f"{folder} holds something else ({strange[0]}): choose another --out")
