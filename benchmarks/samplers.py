"""Write docs/samplers.md and docs/samplers.png: every sampler's evaluations, order, and Fréchet distance of the embedded model.

    python benchmarks/samplers.py --count 2000 [--samplers "ddim dpmpp:order=3"] [--evaluations 5,10,20] [--kept out/samplers]

Cost is counted in evaluations of the network: a sampler that needs two a step takes half as many steps. What has been measured
is kept in a folder, a file for each sampler and number of evaluations, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lodestar import library
from lodestar.config import parse
from lodestar.core.estimate import Estimate
from lodestar.core.exact import Mixture
from lodestar.core.level import Level
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Linear
from lodestar.core.transition import Transition
from lodestar.evaluation.extractors import load_extractor
from lodestar.evaluation.measured import measured
from lodestar.evaluation.reference import open_reference
from lodestar.evaluation.run import Measurement
from lodestar.files import atomic, write_text
from lodestar.generators.request import settings
from lodestar.samplers import AnySampler, UniPC, last

ORDERS: dict[str, int | None] = {
    "ddim": 1,
    "ddim:eta=1": None,
    "ancestral": None,
    "euler": 1,
    "euler_ancestral": None,
    "plms": 2,
    "plms:warmup=runge_kutta": 2,
    "heun": 2,
    "heun:reach=0.5": 2,
    "edm": None,
    "lms": 4,
    "lms:order=3,variable=log": 3,
    "dpmpp": 2,
    "dpmpp:order=3,taper=4": 2,
    "dpmpp:target=epsilon": 2,
    "dpmpp:eta=1": None,
    "dpmpp_single": 2,
    "dpmpp_single:order=3": 3,
    "dpmpp_single:order=3,target=epsilon,solver=stages": 3,
    "dpmpp_single:eta=1": None,
    "dpmpp_sde": None,
    "unipc:taper=4": 3,
    "unipc:order=3,taper=4": 4,
    "predictor_corrector": None,
    "consistency": None,
}
"""Samplers and their orders in theory; None where noise is drawn, and there is no solution to be near to."""

MEASURED = (
    "ddim ancestral euler_ancestral plms heun heun@logsnr:{} edm edm@logsnr:{} lms dpmpp dpmpp@trailing:{} dpmpp:order=3 "
    "dpmpp:eta=1 dpmpp_single dpmpp_sde unipc unipc@trailing:{} unipc:order=3 predictor_corrector"
)
"""Samplers, and plans other than the usual one, whose Fréchet distance is measured where no others are asked for: those that fit
the model, twins left out."""

MIXTURE = Mixture(
    torch.tensor([0.5, 0.3, 0.2]),
    torch.tensor([[1.0, 0.5], [-1.2, 0.3], [0.2, -1.4]]),
    torch.tensor([0.0625, 0.0225, 0.1225]),
)
FEW, MANY, MOST = 324, 648, 3000
"""Steps between which the order is observed, and those of the run that counts as exact."""


def steps_of(count: int) -> list[Transition]:
    """Steps even in log σ/α over DDPM's linear schedule, without the one to clean data, where all solvers are of first order."""
    return parse_plan(f"logsnr:{count + 1}").steps(Linear())[:-1]


def end(sampler: AnySampler, count: int) -> Tensor:
    """Where 16 points end under the exact denoiser of a mixture of three Gaussians."""
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return last(sampler(MIXTURE, x, steps_of(count), torch.randn_like))


def evaluations(sampler: AnySampler, count: int) -> int:
    """How often a sampler asks the network in `count` steps of the chain."""
    calls: list[Level] = []

    def denoise(x: Tensor, level: Level) -> Estimate:
        calls.append(level)
        return MIXTURE(x, level)

    last(sampler(denoise, torch.zeros(1, 2), parse_plan(count).steps(Linear()), torch.randn_like))
    return len(calls)


def steps_for(sampler: AnySampler, budget: int) -> int:
    """The most steps that need no more than `budget` evaluations; 0 if there are none."""
    return next((count for count in range(budget, 0, -1) if evaluations(sampler, count) <= budget), 0)


def per_step(sampler: AnySampler) -> str:
    """Evaluations of n steps, as a formula."""
    ten, twenty = (evaluations(sampler, count) for count in (10, 20))
    slope = (twenty - ten) // 10
    rest = ten - 10 * slope
    return ("n" if slope == 1 else f"{slope}·n") + (f" {'+' if rest > 0 else '−'} {abs(rest)}" if rest else "")


def orders() -> list[str]:
    """The lines of the table of orders."""
    exact = end(UniPC(order=3, taper=4), MOST)
    lines = [
        f"| sampler | evaluations of n steps | order in theory | observed | error after {MANY} steps |",
        "|---|---|---|---|---|",
    ]
    for text, order in ORDERS.items():
        sampler = parse("sampler", text, AnySampler)
        cells = ["", "draws noise", ""]
        if order is not None:
            few, many = (float((end(sampler, count) - exact).norm()) for count in (FEW, MANY))
            cells = [str(order), f"{math.log2(few / many):.2f}", f"{many:.1e}"]
        lines.append(f"| `{text}` | {per_step(sampler)} | {' | '.join(cells)} |")
    return lines


def frechet(model: str, text: str, budget: int, count: int, kept: Path, batch_size: int, known: bool) -> float | None:
    """Fréchet distance of `count` pictures at `budget` evaluations each, from `kept` if it is there.

    text: a sampler, and after an @ its plan, with {} for the number of steps. None where the budget is too small, and where
    only what is `known` is asked for, and this is not.
    """
    name, _, plan = text.partition("@")
    sampler = parse("sampler", name, AnySampler)
    steps = steps_for(sampler, budget)
    if not steps:
        return None
    file = kept / f"{re.sub('[:,@{}]+', '-', text)}-{budget}.json"
    if known and not file.exists():
        return None
    extractor = load_extractor()
    reference = open_reference(None, model, extractor, library.config(model).size)
    report = measured(
        file, model, reference, extractor, count=count, run=Measurement(batch_size=batch_size),
        how=settings(steps=(plan or "{}").format(steps), sampler=sampler),
    )  # fmt: skip
    return report["numbers"]["frechet"]


def draw(path: Path, title: str, budgets: Sequence[int], curves: dict[str, list[float | None]]) -> None:
    """The curves, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = Figure(figsize=(9, 6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for number, (text, values) in enumerate(curves.items()):
        known = [(budget, value) for budget, value in zip(budgets, values, strict=True) if value is not None]
        if not known:
            continue
        axes.plot(*zip(*known, strict=True), marker="o", markersize=4, linestyle="-" if number < 10 else "--", label=text)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(budgets, [str(budget) for budget in budgets])
    axes.xaxis.set_minor_locator(NullLocator())
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(plain)
    axes.set_xlabel("evaluations of the network")
    axes.set_ylabel("Fréchet distance")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, ncols=2)
    with atomic(path) as file:
        figure.savefig(file, format="png")


def page(count: int, budgets: Sequence[int], curves: dict[str, list[float | None]], picture: str) -> str:
    """The text of docs/samplers.md."""
    numbers = []
    for text, values in curves.items():
        name, _, plan = text.partition("@")
        cells = ["" if value is None else f"{value:.2f}" for value in values]
        numbers.append(f"| `{name}` | `{(plan or '{}').format('N')}` | {' | '.join(cells)} |")
    return "\n".join(
        [
            "# Samplers",
            "",
            f"Made by `python benchmarks/samplers.py --count {count}`. Any sampler takes any guidance and any plan;",
            "`lodestar sample --sampler NAME:field=value` is how each is asked for.",
            "",
            "## Order",
            "",
            f"On the exact denoiser of a mixture of three Gaussians, from {FEW} to {MANY} steps even in log σ/α; the error is",
            "the distance of 16 end points from the solution. `dpmpp:order=3` is 3M as published, which gives the second",
            "difference half of its weight: its error is smaller than 2M's, its order the same. UniPC's corrector adds one to",
            "the order of its predictor.",
            "",
            *orders(),
            "",
            "## Quality for cost",
            "",
            f"Fréchet distance of {count} pictures of `cifar10`, without guidance, against the evaluations of the network that",
            "each picture cost (a sampler with two a step takes half the steps). Lower is better. Samplers in ε̂ with two",
            "evaluations a step need more than a few steps. All have the same seeds. An empty cell was not measured.",
            "",
            f"![Fréchet distance against evaluations, a curve for each sampler]({picture})",
            "",
            f"| sampler | `--steps` | {' | '.join(map(str, budgets))} |",
            "|---" * (2 + len(budgets)) + "|",
            *numbers,
            "",
        ]
    )


def main() -> None:
    """Measure what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2_000, help="pictures for each Fréchet distance")
    parser.add_argument("--samplers", default=MEASURED, help="NAME:field=value@PLAN …, with {} for the steps in PLAN")
    parser.add_argument("--evaluations", default="5,10,20,50,100,250")
    parser.add_argument("--known", action="store_true", help="measure nothing: draw what has been measured")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path("out/samplers"), help="where measurements are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/samplers.md"), help="the page; its picture lies beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    budgets = [int(budget) for budget in options.evaluations.split(",")]
    curves: dict[str, list[float | None]] = {text: [] for text in options.samplers.split()}
    for budget in budgets:
        for text, values in curves.items():
            print(f"{text}, {budget} evaluations", flush=True)
            values.append(frechet("cifar10", text, budget, options.count, options.kept, options.batch_size, options.known))
    picture = options.out.with_suffix(".png")
    draw(picture, f"Fréchet distance of cifar10, {options.count} pictures, no guidance", budgets, curves)
    write_text(options.out, page(options.count, budgets, curves, picture.name))
    print(options.out)


if __name__ == "__main__":
    main()
