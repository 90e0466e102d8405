"""Print a table of inpainting: how often the judge of shapes finds the whole right after a hole was filled, the rest being kept.

    python benchmarks/inpaint.py shapes_inpaint shapes --count 100

One of the two things of an unseen scene is cut out, and another one asked for, of a shape and colour that are trained together. A
model that was trained to inpaint is told what is kept; any other repaints (RePaint).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator

import torch
from torch import Tensor

from lodestar import library
from lodestar.data.shapes import COLOURS, HELD_OUT_PAIRS, SHAPES, Thing, judge, render, scene
from lodestar.evaluation.repeats import Share
from lodestar.nets.native import processor

ROOM = 1.25
"""Half the hole's side in extents of the thing that was there."""


def cases(count: int, size: int) -> Iterator[tuple[Tensor, Tensor, str]]:
    """Pictures uint8 [3, H, W], holes bool [H, W], and captions of what the whole is to be."""
    pairs = [(shape, colour) for shape in SHAPES for colour in COLOURS if (shape, colour) not in HELD_OUT_PAIRS]
    pick, number = random.Random(0), 0
    while count:
        drawn = scene(0, number, "test")
        number += 1
        if len(drawn.things) != 2:
            continue
        kept, lost = drawn.things
        shape, colour = pick.choice(
            [pair for pair in pairs if pair not in ((kept.shape, kept.colour), (lost.shape, lost.colour))]
        )
        told = " and ".join(
            f"{'an' if each == 'orange' else 'a'} {each} {what}" for what, each in ((kept.shape, kept.colour), (shape, colour))
        )
        yield torch.from_numpy(render(drawn, size)).permute(2, 0, 1), hole(lost, size), told
        count -= 1


def hole(thing: Thing, size: int) -> Tensor:
    """The square around a thing, bool [H, W]."""
    half = ROOM * thing.extent
    place = (torch.arange(size) + 0.5) / size
    inside = [(place - middle).abs() <= half for middle in (thing.y, thing.x)]
    return inside[0][:, None] & inside[1]


def main() -> None:
    """Measure the models, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--count", type=int, default=100, help="pictures for each model")
    parser.add_argument("--guidance", default="cfg:3")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.count} pictures, {options.guidance}, one thread of {processor().name}\n")
    print("| model | all is right | all around the hole as it was |\n|---|---|---|")
    for name in options.models:
        model = library.load_diffusion(name)
        right = same = 0
        for row, (picture, mask, told) in enumerate(cases(options.count, model.shape[1])):
            made = model.edit(
                "inpaint", picture[None], mask=mask, prompt=told, guidance=options.guidance, seed=options.seed + row
            ).images[0]
            right += judge(made.numpy(), told).right
            same += torch.equal(made[:, ~mask], picture[:, ~mask])
        print(f"| {name} | {Share(right, options.count)} | {Share(same, options.count)} |")


if __name__ == "__main__":
    main()
