"""Compare models by how they read captions: own tokenizers with frozen language models (Imagen's way), a row for each model.

    python benchmarks/readers.py shapes runs/shapes.imagen --count 200
    python benchmarks/readers.py emoji runs/emoji.imagen --data emoji-styles.parquet@test,style!=openmoji

Of `shapes`, pictures are made of captions of each kind, and the judge of shapes tells in how many all is right: of unseen
captions, of combinations that were held out, and of the unseen captions in words that no caption of the training data has.
With --data, models tell captions apart (as in the diffusion classifier of Li et al. 2023): of a picture that they never saw,
noised alike for all captions, the one with which the model has the smallest squared error of ε̂ is its answer.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lodestar import library
from lodestar.codecs import pixels
from lodestar.config import Note
from lodestar.core.noise import SeededNoise
from lodestar.data import open_source, part, sequential
from lodestar.data.shapes import judge
from lodestar.data.shapes.scene import COLOURS
from lodestar.evaluation.captions import HELD_OUT, first_of, read_captions
from lodestar.evaluation.repeats import Share
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guided import Guided
from lodestar.nets.native import processor
from lodestar.objectives.bound import bits_per_dimension

WORDS: Mapping[str, str] = {
    "circle": "ball", "disc": "dot", "square": "block", "box": "cube", "triangle": "pyramid", "star": "pentagram",
    "cross": "crucifix", "plus": "crosshair", "red": "crimson", "orange": "tangerine", "yellow": "golden",
    "green": "emerald", "blue": "azure", "purple": "violet", "small": "petite", "little": "minuscule", "tiny": "miniature",
    "large": "enormous", "big": "giant", "huge": "massive",
}  # fmt: skip
"""A word near to each of the grammar's in meaning, that the grammar lacks."""

COLOURED = {word: other for word, other in WORDS.items() if word in COLOURS}
LEVELS = 10
"""Levels of noise at which a picture is compared with captions."""


def reworded(caption: str, words: Mapping[str, str]) -> str:
    """The caption in other words, with "an" before those that begin with a vowel."""
    text = re.sub(r"\w+", lambda word: words.get(word[0], word[0]), caption)
    return re.sub(r"\ban? (\w)", lambda found: f"{'an' if found[1] in 'aeiou' else 'a'} {found[1]}", text)


def judged(model: Diffusion, options: argparse.Namespace) -> dict[str, Share]:
    """Shares of pictures in which all is right, by the kind of caption."""
    unseen, held_out = (read_captions(data, options.count).texts for data in ("shapes@test", HELD_OUT))
    kinds = {
        "unseen": (unseen, unseen),
        "held-out combinations": (held_out, held_out),
        "colours in other words": ([reworded(each, COLOURED) for each in unseen], unseen),
        "all in other words": ([reworded(each, WORDS) for each in unseen], unseen),
    }
    found = {}
    for kind, (captions, truths) in kinds.items():
        made = model.sample(
            prompt=captions, cut_prompt=True, guidance=options.guidance, steps=options.steps, seed=options.seed, batch_size=50
        )
        found[kind] = Share(
            sum(judge(each.numpy(), true).right for each, true in zip(made.images, truths, strict=True)), len(truths)
        )
    return found


def told(model: Diffusion, options: argparse.Namespace) -> dict[str, Share]:
    """The share of pictures whose own caption, of so many, has the smallest error."""
    source = open_source(options.data, captions=True, labels=False)
    places = {first_of(source.texts(index)): index for index in range(len(source))}
    chosen = list(places.items())[: options.count]
    pictures = part(source, np.array([index for _, index in chosen]), model.config.size)
    x0 = torch.cat([pixels.encode(batch.image) for batch in sequential(pictures, 50)])
    texts = [text for text, _ in chosen]
    error = torch.stack([errors(model, x0, texts[shift:] + texts[:shift], options.seed) for shift in range(options.among)])
    return {f"own caption of {options.among}": Share(int((error.argmin(0) == 0).sum()), len(texts))}  # the first is its own


@torch.inference_mode()
def errors(model: Diffusion, x0: Tensor, captions: Sequence[str | None], seed: int) -> Tensor:
    """Squared errors of ε̂ of each picture after its caption [B], over all levels; the noise is that of the picture's seed."""
    asked, _, _ = model.asked(prompt=captions, cut_prompt=True, seed=seed, steps=f"logsnr:{LEVELS}")
    guided, steps = Guided(model, asked.settings.complete(model.limit)), model.transitions(asked.settings)
    found = []
    for rows in torch.arange(len(x0)).split(50):
        asks = [asked.asks[row] for row in rows]
        noise = SeededNoise([ask.seed for ask in asks])
        found.append(bits_per_dimension(guided.denoise(asks), steps, x0[rows], noise).eps_mse.sum(1))
    return torch.cat(found)


def main() -> None:
    """Measure the models, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", help="pictures with captions that the models tell apart")
    parser.add_argument("--among", type=int, default=10, help="captions for each picture of --data, its own among them")
    parser.add_argument("--count", type=int, default=200, help="pictures of each kind")
    parser.add_argument("--guidance", default="cfg:4")
    parser.add_argument("--steps", default="trailing:20")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", Note)  # captions in other words may have more tokens than there is room for
    rows = {name: (told if options.data else judged)(library.load_diffusion(name), options) for name in options.models}
    kinds = list(next(iter(rows.values())))
    print(f"{options.count} pictures of each kind, one thread of {processor().name}\n")
    print("\n".join([f"| model | {' | '.join(kinds)} |", "|---|" + "---|" * len(kinds)]))
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(f'{float(share):.2f} ± {share.half_width():.2f}' for share in found.values())} |")


if __name__ == "__main__":
    main()
