"""Write docs/unclip.md: priors of a DALL·E 2 compared, its upsampler against bicubic enlargement, and its variations.

    python benchmarks/unclip.py MODEL --text shapes --upsampler UPSAMPLER --count 300 [--guidance cfg:2] [--text-guidance cfg:4]

MODEL is a bundle of a decoder, its CLIP and priors. All ways from captions to pictures have the same captions and seeds. Their
numbers are kept in the folders of sweeps, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import lodestar
from lodestar import library
from lodestar.codecs import pixels
from lodestar.conditions import LowRes
from lodestar.config import Problem
from lodestar.core.noise import generator
from lodestar.data import open_source
from lodestar.data.captions import CAPTION
from lodestar.data.shapes import judge, parse
from lodestar.evaluation.captions import HELD_OUT
from lodestar.evaluation.extractors import DEFAULT, Extractor, load_extractor
from lodestar.evaluation.metrics import Frechet
from lodestar.evaluation.repeats import Share
from lodestar.evaluation.statistics import FeatureSet, Statistics
from lodestar.evaluation.sweep import Row
from lodestar.files import write_text
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.edits import Upsample
from lodestar.generators.edits.request import Material
from lodestar.generators.request import settings
from lodestar.generators.unclip import UnClip
from lodestar.generators.unclip_edits import vary
from lodestar.nets.clip import unit
from lodestar.nets.native import processor
from text import COLUMNS, METRICS

WAYS = {"diffusion": "diffusion prior", "autoregressive": "autoregressive prior", "text": "text's embedding, no prior"}
"""Priors, as a table names them."""
THINGS = ("one thing", "two things", "three things")


def priors(options: argparse.Namespace, model: UnClip) -> dict[str, Row]:
    """The numbers of each prior, and of the text model, by the way's name."""
    given: dict[str, Any] = {
        "captions": options.captions, "metrics": METRICS, "count": options.count, "seed": options.seed, "steps": options.steps,
        "batch_size": options.batch_size, "guides": {"clip_score": model.clip},
    }  # fmt: skip
    found = lodestar.sweep(
        model, over={"prior": options.priors.split()}, guidance=options.guidance, out=options.kept / "priors", **given
    )
    rows = {WAYS[row.name.partition(":")[0]] + f" (`{row.name}`)": row for row in found.rows}
    if options.text:
        over = {"guidance": [options.text_guidance]}
        (row,) = lodestar.sweep(options.text, over=over, out=options.kept / "text", **given).rows
        rows[f"text model, no embedding (`{options.text}`, {row.name})"] = row
    return rows


def pictures(source: str, size: tuple[int, int], rows: range) -> tuple[Tensor, list[str]]:
    """Pictures uint8 [N, C, H, W] of a data set, and their captions."""
    opened = open_source(source, size=size, captions=True, labels=False)
    found = [row for number in rows if (row := opened.row(number)) is not None]
    texts = [row[CAPTION] if isinstance(row[CAPTION], str) else row[CAPTION][0] for row in found]
    return torch.stack([torch.from_numpy(row["image"].copy()) for row in found]), texts


def features(extractor: Extractor, images: Tensor) -> FeatureSet:
    """Features of pictures, or of their parts of the extractor's size where these make up the whole."""
    (height, width), (channels, *size) = extractor.size or images.shape[2:], images.shape[1:]
    if size[0] % height or size[1] % width:
        return extractor(images)
    parts = images.unfold(2, height, height).unfold(3, width, width).permute(0, 2, 3, 1, 4, 5)
    return extractor(parts.reshape(-1, channels, height, width))


def apart(first: Tensor, second: Tensor) -> float:
    """The mean squared distance of features of length 1, of pairs [N, D]."""
    return float((unit(first) - unit(second)).square().sum(dim=1).mean())


def enlarged(options: argparse.Namespace, upsampler: Diffusion, extractor: Extractor) -> dict[str, Mapping[str, float]]:
    """The numbers of pictures enlarged by the model and by bicubic interpolation, and of the pictures themselves."""
    size, condition = (upsampler.shape[1], upsampler.shape[2]), upsampler.config.denoiser.condition("low_res")
    assert isinstance(condition, LowRes), "an upsampler"
    true, _ = pictures(options.pictures, size, range(options.count))
    others, _ = pictures(options.pictures, size, range(options.count, 2 * options.count))
    x, how = pixels.encode(true), condition.degradation
    small = pixels.decode(how(x, how.draw(len(x), generator(options.seed)), condition.size))
    bicubic = F.interpolate(pixels.encode(small), size, mode="bicubic", align_corners=False)
    rows = {
        f"`{Path(upsampler.name).name}`": upsampler.edit(
            Upsample(), small, seed=options.seed, steps=options.upsample_steps
        ).images,
        "bicubic": pixels.decode(bicubic),
        "the pictures themselves": true,
    }
    known, against = features(extractor, true).features, Statistics.of(features(extractor, others))
    found: dict[str, Mapping[str, float]] = {}
    for name, made in rows.items():
        seen = features(extractor, made)
        numbers = {"PSNR, dB": psnr(made, true), "feature distance": apart(seen.features, known)}
        found[name] = numbers | {"Fréchet distance": Frechet()(Statistics.of(seen), against)["frechet"]}
    return found


def psnr(made: Tensor, true: Tensor) -> float:
    """The mean over pictures of the peak signal-to-noise ratio, in decibels; infinite for the pictures themselves."""
    errors = (made.double() - true.double()).square().mean(dim=(1, 2, 3))
    return float((10 * (255**2 / errors).log10()).mean())


def varied(options: argparse.Namespace, model: UnClip, extractor: Extractor) -> dict[str, tuple[Share, float]]:
    """By number of things: how many variations keep the number of things, shape and colour, and how much they vary.

    How much: the feature distance of two variations of a picture, in that of two pictures.
    """
    size, each = (model.shape[1], model.shape[2]), options.variations
    there, captions = pictures(options.captions, size, range(options.varied))
    how = settings(steps=options.steps, guidance=options.vary_guidance or ())
    asked = vary(model, Material(there), count=each * len(there), seed=options.seed, eta=options.eta)
    asked = asked.replace(settings=model.resolved(how))
    frames = model.prepare_edit(asked, Material(there)).frames(options.batch_size)
    made = torch.cat([frame.images for frame in frames if frame.final])
    seen = extractor(made).features.unflatten(0, (each, -1))  # [variations, pictures, D]
    kept = torch.tensor([keeps(picture, captions[k % len(there)]) for k, picture in enumerate(made)]).unflatten(0, (each, -1))
    usual = extractor(there).features
    between = apart(usual, usual.roll(1, dims=0))
    counts = torch.tensor([len(parse(caption).things) for caption in captions])
    found: dict[str, tuple[Share, float]] = {}
    for number, name in enumerate(THINGS, 1):
        if mine := (counts == number).nonzero().flatten().tolist():
            inside = apart(seen[:, mine].flatten(0, 1), seen[:, mine].roll(1, dims=0).flatten(0, 1))
            found[name] = Share(int(kept[:, mine].sum()), kept[:, mine].numel()), inside / between
    return found


def keeps(picture: Tensor, caption: str) -> bool:
    """True if the judge finds the things of a caption, and no others, with their shapes and colours."""
    verdict = judge(picture.numpy(), caption)
    return verdict.count and False not in (*verdict.shapes, *verdict.colours)


def table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()), ""]


def of_priors(options: argparse.Namespace, model: UnClip) -> list[str]:
    """The section of priors."""
    rows = priors(options, model)
    columns = {name: heading for name, heading in COLUMNS.items() if any(name in row.numbers for row in rows.values())}
    cells = {
        name: [f"{row.numbers[each]:.3g}" if each in row.numbers else "" for each in columns]
        + [f"{1 / row.numbers['images_per_second']:.2g}"]
        for name, row in rows.items()
    }
    widest = Share(options.count // 2, options.count).half_width()
    steps = f"steps {options.steps}" if options.steps else "the models' own steps"
    return [
        "## Ways from a caption to a picture",
        "",
        f"{options.count} pictures for each row, of the first captions of `{options.captions}`, with the same seeds;",
        f"{options.guidance} of the decoder, {steps}. Distances are to the pictures of the same data; CLIPScore is by the",
        f"bundle's CLIP. Shares of all pictures have 95 % intervals of at most ±{widest:.2f}, those of fewer wider ones.",
        "",
        *table(["way", *columns.values(), "seconds a picture"], cells),
    ]


def of_upsampler(options: argparse.Namespace, upsampler: Diffusion, extractor: Extractor) -> list[str]:
    """The section of the upsampler."""
    numbers = enlarged(options, upsampler, extractor)
    told = {name: [f"{value:.3g}" for value in each.values()] for name, each in numbers.items()}
    return [
        "## Upsampler",
        "",
        f"The first {options.count} pictures of `{options.pictures}`, made small as in the upsampler's training, and enlarged.",
        "Features are of parts of the extractor's size. Feature distances, squared and of features of length 1, are to those of",
        f"the picture itself, Fréchet distances to those of the next {options.count} pictures.",
        "",
        *table(["enlarged by", *next(iter(numbers.values()))], told),
    ]


def of_variations(options: argparse.Namespace, model: UnClip, extractor: Extractor) -> list[str]:
    """The section of variations."""
    found = varied(options, model, extractor)
    told = {name: [str(share), f"{much:.2f}"] for name, (share, much) in found.items()}
    return [
        "## Variations",
        "",
        f"{options.variations} of each of the first {options.varied} pictures of `{options.captions}`, with η = {options.eta:g},",
        f"{options.vary_guidance or 'no guidance'}. Kept: number of things, shapes and colours, as the judge finds them.",
        "Variety: the distance of features of two variations of a picture, in that of two pictures.",
        "",
        *table(["pictures of", "kept, with 95 % interval", "variety"], told),
    ]


def page(options: argparse.Namespace, model: UnClip, upsampler: Diffusion | None) -> str:
    """The text of the page, measured."""
    extractor = load_extractor(DEFAULT, model.device)
    return "\n".join(
        [
            "# A DALL·E 2 in small",
            "",
            f"Made by `python benchmarks/unclip.py` of `{Path(options.model).name}`, {model.precision}, one thread of",
            f"{processor().name}. Features are those of `{extractor.name}`.",
            "",
            *of_priors(options, model),
            *([] if upsampler is None else of_upsampler(options, upsampler, extractor)),
            *of_variations(options, model, extractor),
        ]
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", default="shapes", help="a text-to-image model of the same data; empty for none")
    parser.add_argument("--upsampler", help="default the bundle's part of this name")
    parser.add_argument("--priors", default="diffusion autoregressive text", help="priors with settings, with spaces between")
    parser.add_argument("--guidance", default="cfg:2", help="the decoder's")
    parser.add_argument("--text-guidance", default="cfg:4", help="the text model's")
    parser.add_argument("--vary-guidance", default="", help="the decoder's for variations; default none")
    parser.add_argument("--captions", default=HELD_OUT, help="data with captions, whose pictures are the reference, and varied")
    parser.add_argument("--pictures", default="shapes@test", help="pictures to be made small and enlarged")
    parser.add_argument("--count", type=int, default=300, help="pictures for each row")
    parser.add_argument("--varied", type=int, default=100, help="pictures to be varied")
    parser.add_argument("--variations", type=int, default=4, help="variations of each")
    parser.add_argument("--eta", type=float, default=1.0, help="noise of variations")
    parser.add_argument("--steps", help="of the decoder and the text model; default their own")
    parser.add_argument("--upsample-steps", help="default the upsampler's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path("out/unclip"), help="the folder of the sweeps")
    parser.add_argument("--out", type=Path, default=Path("docs/unclip.md"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = library.load(options.model)
    if not isinstance(model, UnClip):
        raise Problem(f"{options.model} is no bundle of a decoder and its CLIP")
    name = options.upsampler or (there.name if (there := library.parts(options.model).get("upsampler")) else None)
    upsampler = None if name is None else library.load_diffusion(name)
    write_text(options.out, page(options, model, upsampler))
    print(options.out)


if __name__ == "__main__":
    main()
