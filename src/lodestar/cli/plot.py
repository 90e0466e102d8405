"""`plot`: schedules, the steps of plans, and the numbers of training runs, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.options import SamplerText, ready

if TYPE_CHECKING:
    from lodestar.core.chain import Schedule

app = typer.Typer(help="Draw schedules, plans and training runs as a PNG.", no_args_is_help=True)

Drawn = Annotated[Path, typer.Option("--out", help="The PNG to write.")]
_SCHEDULE = "A schedule (linear, cosine:timesteps=4000), or a model: an embedded one, a run's folder or a file."


def _schedule(name: str) -> Schedule:
    """The schedule of a name: a kind in its short form, or that of a model. Raises Problem."""
    from lodestar.config import Problem, kinds, nearest, parse
    from lodestar.core.schedule import AnySchedule
    from lodestar.library import config as described
    from lodestar.models.diffusion import DiffusionConfig

    known = [kind for kind in kinds(AnySchedule) if kind != "respaced"]
    if name.partition(":")[0] in known:
        schedule: Schedule = parse("schedule", name, AnySchedule)
        return schedule
    try:
        config = described(name)
    except Problem as problem:
        raise Problem(f"no schedule {name!r}: choose from {', '.join(known)}{nearest(name, known)}; and {problem}") from None
    if not isinstance(config, DiffusionConfig):
        raise Problem(f"{name} is no diffusion model, and has no schedule")
    return config.schedule


def schedule(names: Annotated[list[str], typer.Argument(help=_SCHEDULE)], out: Drawn = Path("out/schedule.png")) -> None:
    """Draw the log-SNR of one schedule or several."""
    from lodestar.core.drawing import curve
    from lodestar.evaluation.plot import Curve, lines

    found = [(name, curve(_schedule(name).table)) for name in names]
    panel = [Curve(name, [y for _, y in line], places=[x for x, _ in line], marked=False) for name, line in found]
    lines(out, "Schedules", "network time", {"log-SNR = 2·log(α/σ)": panel})
    print(out)


def plan(
    name: Annotated[str, typer.Argument(metavar="MODEL", help=_SCHEDULE)],
    steps: Annotated[list[str], typer.Option("--steps", help="A plan (250, karras:20, optimized:8 of a model). Repeatable.")],
    sampler: SamplerText = None,
    out: Drawn = Path("out/plan.png"),
) -> None:
    """Draw the steps of plans on a schedule's log-SNR, a panel each."""
    from lodestar import library
    from lodestar.config import kinds
    from lodestar.core.drawing import curve, points
    from lodestar.core.plan import parse_plan
    from lodestar.core.schedule import AnySchedule
    from lodestar.evaluation.plot import Curve, lines
    from lodestar.generators.request import settings

    chain, panels = _schedule(name), {}
    asked = list(steps)
    if name.partition(":")[0] not in kinds(AnySchedule) and any(text.startswith("optimized") for text in steps):
        model = library.load_diffusion(name, "cpu")  # whose card has them
        asked = [model.complete(settings(steps=text, sampler=sampler)).steps or text for text in steps]
    line = curve(chain.table)
    for text, told in zip(steps, asked, strict=True):
        levels = parse_plan(told).levels(chain)
        marks = points(levels)
        panels[f"{text}: {len(levels) - 1} steps"] = [
            Curve(name, [y for _, y in line], places=[x for x, _ in line], marked=False),
            Curve("steps", [y for _, y in marks], places=[x for x, _ in marks], joined=False),
        ]
    lines(out, f"log-SNR of {name}", "network time", panels)
    print(out)


def run(
    folders: Annotated[list[Path], typer.Argument(help="Folders of training runs.")], out: Drawn = Path("out/run.png")
) -> None:
    """Draw the losses and held-out numbers of one training run or several."""
    from lodestar.evaluation.plot import Curve, lines
    from lodestar.training.log import numbers

    panels: dict[str, list[Curve]] = {}
    for folder in folders:
        for name, values in numbers(folder).items():
            curve = Curve(str(folder), [y for _, y in values], places=[x for x, _ in values], marked=len(values) == 1)
            panels.setdefault(name, []).append(curve)
    lines(out, "Training", "images seen", panels)
    print(out)


for _command in (schedule, plan, run):
    app.command()(ready(_command))
