"""Write docs/embedded.md and its pictures: what guidance and number formats do to the embedded `cifar10`.

    python benchmarks/embedded.py [--count 500] [--many 2000] [--data cifar10-test.parquet]

A model that takes the place of the embedded one needs this page again. What is measured is kept in a folder, so that an
interrupted run goes on. Without --data, likelihoods are left out.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import lodestar
from lodestar import library
from lodestar.evaluation.sweep import Row
from lodestar.files import write_text
from lodestar.nets.native import processor

MODEL = "cifar10"
GUIDANCE = {
    "cfg": "Classifier-free guidance (1 is none)",
    "cfg+interval:0.3,5": "Classifier-free guidance only where 0.3 < σ/α ≤ 5 (1 is none)",
    "autoguidance": "Autoguidance by `cifar10_weak` (1 is none)",
    "classifier": "Classifier guidance of the conditional model (0 is none)",
}
SCALES, LARGE = (1, 1.5, 2, 4), (0, 1, 5, 10, 30)
FORMATS = ("float32", "int8")
SEEDS = 3
"""Measurements of each format without guidance, for the interval that others have to be within."""
NUMBERS = {"frechet": "Fréchet distance", "score": "score", "precision": "precision", "recall": "recall"}


def table(first: str, rows: Sequence[tuple[str, Row]]) -> Iterator[str]:
    """Measured rows by name, as Markdown; with their 95 % intervals where they have some."""
    yield f"| {first} | {' | '.join(NUMBERS.values())} |"
    yield "|---" * (1 + len(NUMBERS)) + "|"
    for name, row in rows:
        cells = []
        for key in NUMBERS:
            spread = row.intervals.get(key)
            digits = 2 if key in ("frechet", "score") else 3
            cells.append(f"{row.numbers[key]:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}"))
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def formats(options: argparse.Namespace) -> Iterator[str]:
    """The section of number formats."""
    yield from (
        "## Number formats",
        "",
        f"{options.many} pictures, `dpmpp` in 20 steps of `trailing:20`, the same seeds in every format; without guidance",
        f"{SEEDS} times with seeds of their own, with the 95 % interval of the mean.",
        "",
    )
    rows = []
    for dtype in FORMATS:
        model = library.load_diffusion(MODEL, dtype=dtype)
        for scale, seeds in ((1, SEEDS), (1.5, 1)):
            folder = options.kept / f"{dtype}-{scale:g}"
            how = {"guidance": f"cfg:{scale:g}", "steps": "trailing:20"}
            found = lodestar.sweep(model, over={"scale": [scale]}, count=options.many, seeds=seeds, out=folder, **how)
            rows.append((f"{dtype}, " + ("no guidance" if scale == 1 else f"`cfg:{scale:g}`"), found.rows[0]))
    yield from table("", rows)


def guidance(options: argparse.Namespace) -> Iterator[str]:
    """The section of guidance."""
    yield from (
        "## Guidance",
        "",
        f"{options.count} pictures a point with the same seeds, `dpmpp` in 20 steps of `trailing:20`, in the number format of",
        "that machine. With so few the distance is biased upwards and the curves are rough.",
        "",
    )
    over = {"guidance": list(GUIDANCE), "scale": list(SCALES)}
    found = lodestar.sweep(MODEL, over=over, count=options.count, batch_size=50, out=options.kept / "guidance")
    for name, title in GUIDANCE.items():
        yield from (f"{title}:", "")
        yield from table("scale", [(row.values[1], row) for row in found.rows if row.values[0] == name])
    shutil.copy(found.folder / "sweep.png", options.out.with_name("sweep.png"))
    yield from ("![The same numbers as curves, against scale and against time](sweep.png)", "")
    yield from ("Classifier guidance at larger scales, with `--steps 20`, whose last step is wider:", "")
    large = lodestar.sweep(
        MODEL, over={"scale": list(LARGE)}, guidance="classifier", steps="20", count=options.count, batch_size=50,
        out=options.kept / "classifier",
    )  # fmt: skip
    yield from table("scale", [(row.values[0], row) for row in large.rows])
    shutil.copy(large.folder / "sweep.png", options.out.with_name("sweep-classifier.png"))
    yield from ("![And as curves](sweep-classifier.png)", "")


def likelihood(options: argparse.Namespace) -> Iterator[str]:
    """The section of likelihoods."""
    numbers = lodestar.bpd(MODEL, options.data, count=options.likelihoods, steps="logsnr:100").numbers
    bound, ode = (f"{numbers[key]:.2f} ± {numbers[f'{key}_error']:.2f}" for key in ("bpd", "ode"))
    yield from (
        "## Likelihood",
        "",
        f"Bits per dimension of {options.likelihoods} test pictures under their classes, over 100 levels even in log σ/α:",
        f"at most {bound} by the bound ({numbers['decoder']:.2f} of it the decoder), {ode} by the probability-flow ODE",
        "(standard errors).",
        "",
    )


def page(options: argparse.Namespace) -> Iterator[str]:
    """The lines of docs/embedded.md."""
    provenance = library.load_diffusion(MODEL).provenance
    yield from (
        "# The embedded model of CIFAR-10",
        "",
        f"Made by `python benchmarks/embedded.py`, on {processor().name}. The model saw {provenance['images_seen']:,} images.",
        "Distances are to the 10,000 test pictures, in features of `cifar10_features`, a classifier of 71.8 % test accuracy:",
        "they compare with each other, and with no published number. x̂₀ is clamped before and after a classifier's gradient.",
        "",
    )
    yield from guidance(options)
    if options.many:
        yield from formats(options)
    if options.data:
        yield from likelihood(options)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="pictures for each point of guidance")
    parser.add_argument("--many", type=int, default=2_000, help="pictures for each format; 0 leaves formats out")
    parser.add_argument("--data", help="test pictures, for likelihoods")
    parser.add_argument("--likelihoods", type=int, default=32, help="pictures for likelihoods")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path("out/embedded"), help="where measurements are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/embedded.md"), help="the page; its pictures lie beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    write_text(options.out, "\n".join(page(options)))
    print(options.out)


if __name__ == "__main__":
    main()
