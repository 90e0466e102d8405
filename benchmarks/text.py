"""Write docs/text.md and docs/text.png, the comparison that GLIDE makes: no guidance, guidance by a CLIP, and without classifier.

    python benchmarks/text.py MODEL --clip NOISED --clip-score CLEAN --count 1000 [--cfg 1.5,2,3,5] [--by-clip 1,2,4,8]
    python benchmarks/text.py MODEL --grid docs/shapes.png [--prompts FILE] [--guidance cfg:3] [--nearest TRAINING_PICTURES]

Each way of guidance makes pictures of the same captions with the same seeds. Numbers are kept in the folder of a sweep, so that
an interrupted run goes on. The CLIP that measures should not be the one that guides. With --grid a picture of each prompt is
drawn, with what the judge of `shapes` says below it, or with --nearest the nearest training picture to its right; prompts are
the first twenty captions of the data, or a file's lines, in Latin letters.
"""

from __future__ import annotations

import argparse
import contextlib
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import lodestar
from lodestar import library
from lodestar.config import Problem
from lodestar.core.neighbours import nearest
from lodestar.data import Source, open_source
from lodestar.data.shapes import Verdict, judge
from lodestar.evaluation.captions import HELD_OUT, read_captions
from lodestar.evaluation.copies import shown_of
from lodestar.evaluation.extractors import DEFAULT, load_extractor
from lodestar.evaluation.reference import collect
from lodestar.evaluation.repeats import Share
from lodestar.evaluation.statistics import Collector
from lodestar.evaluation.sweep import Row
from lodestar.files import atomic, write_text
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.samples import Samples
from lodestar.images import enlarge
from lodestar.nets.native import processor

METRICS = ("frechet", "caption", "clip_score")
COLUMNS = {
    "frechet": "Fréchet distance",
    "clip_score": "CLIPScore",
    "caption_one_attributes": "attributes, one thing",
    "caption_two_attributes": "attributes, two things",
    "caption_three_attributes": "attributes, three",
    "caption_place": "places",
    "caption_relation": "relations",
    "caption_right": "everything right",
}
"""Numbers of the table and their headings."""
CELL, LINES, VERDICT, LINE = 128, 4, 2, 13
"""Side of a picture in the grid, lines below it of prompt and verdict, and their height, in pixels."""
_LETTERS = 24
"""Letters of a line below a picture."""


def guidances(cfg: str, by_clip: str) -> dict[str, list[str]]:
    """Guidance by the curve's name, in the order of the scales."""
    curves = {"classifier-free guidance": [f"cfg:{scale}" for scale in cfg.split(",") if scale]}
    return curves | {"guidance by CLIP": [f"clip:{scale}" for scale in by_clip.split(",") if scale]}


def draw(path: Path, title: str, curves: dict[str, list[str]], rows: dict[str, Row]) -> None:
    """Distance against CLIPScore, and the share of right captions against the distance; all curves begin at no guidance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = (
        ("clip_score", "CLIPScore", "frechet", "Fréchet distance"),
        ("frechet", "Fréchet distance", "caption_right", "share of captions with everything right"),
    )
    for axes, (x, across, y, up) in zip(figure.subplots(1, 2), panels, strict=True):
        for name, guided in curves.items():
            mine = [rows["none"], *(rows[text] for text in guided)]
            if all(x in row.numbers and y in row.numbers for row in mine):
                spread = [row.intervals.get(y, 0.0) for row in mine]
                places = [row.numbers[x] for row in mine], [row.numbers[y] for row in mine]
                axes.errorbar(*places, yerr=spread, marker="o", markersize=4, capsize=2, label=name)
                for text, *place in zip(["none", *(text.partition(":")[2] for text in guided)], *places, strict=True):
                    axes.annotate(text, place, xytext=(4, 4), textcoords="offset points", fontsize=7)
        if y == "caption_right":
            axes.set_ylim(bottom=0)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with atomic(path) as file:
        figure.savefig(file, format="png")


def scorer(options: argparse.Namespace, model: Diffusion) -> str:
    """The CLIP that measures, in words."""
    by = options.clip_score or options.clip
    guides = by == options.clip if by else "clip_score" not in model.companions
    own = library.companions(options.model)
    name = f"`{Path(by or own.get('clip_score') or own['clip']).stem}`"
    return name + (", the one that guides, which flatters its own pictures" if guides else "")


def page(options: argparse.Namespace, rows: dict[str, Row], model: Diffusion, picture: str) -> str:
    """The text of the page."""
    columns = {name: heading for name, heading in COLUMNS.items() if any(name in row.numbers for row in rows.values())}
    lines = [f"| guidance | {' | '.join(columns.values())} | seconds a picture |", "|---|" + "---|" * (len(columns) + 1)]
    for text, row in rows.items():
        cells = [f"{row.numbers[name]:.3g}" if name in row.numbers else "" for name in columns]
        lines.append(f"| {text} | {' | '.join(cells)} | {1 / row.numbers['images_per_second']:.2g} |")
    widest = Share(options.count // 2, options.count).half_width()
    return "\n".join(
        [
            "# Guidance of a text-to-image model",
            "",
            f"Made by `python benchmarks/text.py`: {options.count} pictures of `{Path(options.model).stem}` for each row, of the",
            f"first captions of `{options.captions}`, with the same seeds; {options.steps}, {model.precision}, one thread of",
            f"{processor().name}. Distances are to the pictures of the same data. CLIPScore is by {scorer(options, model)}.",
            f"Shares of all {options.count} pictures have 95 % intervals of at most ±{widest:.2f}, those of fewer wider ones.",
            "",
            f"![Left: Fréchet distance against CLIPScore. Right: captions with everything right against the distance]({picture})",
            "",
            *lines,
            "",
        ]
    )


def wrong(verdict: Verdict) -> list[str]:
    """What the judge does not find as the caption tells it; nothing if all is right."""
    said = [] if verdict.count else [f"{len(verdict.seen)} things"]
    for claim in ("shapes", "colours", "sizes", "places", "relations"):
        held = getattr(verdict, claim)
        said += [f"{claim} ({held.count(False)})"] if False in held else []
    return said


def neighbours(images: Tensor, source: Source) -> Tensor:
    """The picture of a source nearest to each of some, both uint8 [N, C, H, W], by the features of the default extractor."""
    extractor = load_extractor(DEFAULT)
    theirs = collect(source, extractor, Collector(("features",))).features
    assert theirs is not None
    _, indices = nearest(extractor(images).features, theirs)
    found = [shown_of(source, int(index)) for index in indices[:, 0]]
    return torch.stack([each for each in found if each is not None])


def grid(path: Path, samples: Samples, prompts: Sequence[str], beside: Tensor | None = None, columns: int = 5) -> int:
    """Draw each picture with its prompt below, and the judge's verdict where it understands the prompt; how many are right.

    beside: another picture to the right of each; then nothing is judged, since "blue star" may be of another data set.
    """
    gap, wide, height = 8, CELL * (1 if beside is None else 2), CELL + (LINES + VERDICT) * LINE + 10
    size = columns * (wide + gap) + gap, -(-len(prompts) // columns) * height + gap
    sheet, right = Image.new("RGB", size, "white"), 0
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, (picture, prompt) in enumerate(zip(samples.images, prompts, strict=True)):
        left, top = gap + number % columns * (wide + gap), gap + number // columns * height
        for place, each in enumerate([picture] if beside is None else [picture, beside[number]]):
            large = enlarge(each.expand(3, -1, -1), max(CELL // each.shape[-1], 1))
            sheet.paste(Image.fromarray(large.permute(1, 2, 0).numpy()), (left + place * CELL, top))
        told = [(line, "black") for line in textwrap.wrap(prompt, _LETTERS, max_lines=LINES)]
        faults = None
        with contextlib.suppress(Problem):
            faults = wrong(judge(picture.numpy(), prompt)) if beside is None else None
        if faults is not None:
            right += not faults
            said, colour = (f"wrong: {', '.join(faults)}", "firebrick") if faults else ("right", "darkgreen")
            told += [(line, colour) for line in textwrap.wrap(said, _LETTERS, max_lines=VERDICT)]
        for line, (text, colour) in enumerate(told):
            pen.text((left, top + CELL + 2 + line * LINE), text, colour, font)
    with atomic(path) as file:
        sheet.save(file, format="PNG")
    return right


def main() -> None:
    """Measure or draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clip", help="the CLIP that guides; default the model's own")
    parser.add_argument("--clip-score", help="the CLIP that measures; default the model's own, else the one that guides")
    parser.add_argument("--captions", default=HELD_OUT, help="data with captions, whose pictures are the reference")
    parser.add_argument("--cfg", default="1.5,2,3,5,8", help="scales of classifier-free guidance")
    parser.add_argument("--by-clip", default="1,2,4,8,16", help="scales of guidance by the CLIP")
    parser.add_argument("--count", type=int, default=1_000, help="pictures for each row")
    parser.add_argument("--steps", default="trailing:20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path("out/text"), help="the folder of the sweep")
    parser.add_argument("--out", type=Path, default=Path("docs/text.md"), help="the page; its picture lies beside it")
    parser.add_argument("--grid", type=Path, help="draw pictures of prompts with verdicts into this file, and nothing else")
    parser.add_argument("--prompts", type=Path, help="the prompts of --grid, a line each")
    parser.add_argument("--guidance", default="cfg:3", help="the guidance of --grid")
    parser.add_argument("--nearest", help="data whose nearest picture --grid draws beside each")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = library.load_diffusion(options.model)
    if options.grid is not None:
        lines = (
            options.prompts.read_text(encoding="utf-8").split("\n")
            if options.prompts
            else read_captions(options.captions, 20).texts
        )
        prompts = [line for line in lines if line.strip()]
        made = model.sample(prompt=prompts, guidance=options.guidance, steps=options.steps, seed=options.seed)
        beside = (
            None if options.nearest is None else neighbours(made.images, open_source(options.nearest, size=model.config.size))
        )
        right = grid(options.grid, made, prompts, beside)
        judged = f": {right} of {len(prompts)} are right, as the judge sees it" if beside is None else ""
        print(f"{options.grid}{judged}")
        return
    given = {"clip": options.clip, "clip_score": options.clip_score}
    curves = guidances(options.cfg, options.by_clip)
    found = lodestar.sweep(
        model, over={"guidance": ["none", *(text for guided in curves.values() for text in guided)]},
        captions=options.captions, metrics=METRICS, count=options.count, seed=options.seed, steps=options.steps,
        guides=library.load_guides({role: name for role, name in given.items() if name}),
        batch_size=options.batch_size, out=options.kept,
    )  # fmt: skip
    rows = {row.name: row for row in found.rows}
    title = f"{options.count} pictures of captions of {options.captions}; scales beside the dots"
    picture = options.out.with_suffix(".png")
    draw(picture, title, curves, rows)
    write_text(options.out, page(options, rows, model, picture.name))
    print(options.out)


if __name__ == "__main__":
    main()
