"""Classifier rejection sampling (Razavi et al. 2019): of several pictures, keep the one of highest classifier confidence.

A CLIP keeps the picture that is nearest to its prompt (as Ramesh et al. 2021, arXiv:2102.12092, section 2.6, rank theirs).

The result is an ordinary request: each kept picture has its own seed and can be made again alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Ask
from lodestar.config import COUNT, Problem
from lodestar.core.level import CLEAN
from lodestar.generators.guide import Critic, Guide, Reader
from lodestar.generators.request import Frame, Request

JUDGES = ("judge", "classifier", "clip")
"""Roles of a model's own judge, the first that there is."""


def candidates(wanted: Sequence[Ask], best_of: int) -> tuple[Ask, ...]:
    """Every ask so many times in a row. Raises Problem where these are more than a request may have."""
    if (every := len(wanted) * best_of) > COUNT:
        raise Problem(f"best of {best_of}: {len(wanted):,} pictures have {every:,} candidates then, and {COUNT:,} is the most")
    return tuple(ask for ask in wanted for _ in range(best_of))


def check_judge(judge: Guide | None, asked: Request, best_of: int) -> Critic:
    """The judge, checked. Raises Problem if unsuitable."""
    if judge is None:
        raise Problem(
            f'best of {best_of} needs a classifier or a CLIP that judges: --judge MODEL, or guides={{"judge": model}} in Python'
        )
    if not isinstance(judge, Critic):
        raise Problem(f"best of {best_of}: {judge.name or 'the judge'} tells no probabilities: give a classifier or a CLIP")
    if isinstance(judge, Reader):
        for text in dict.fromkeys(ask.text for ask in asked.asks):
            if text is None:
                raise Problem("prompt none: a CLIP that judges needs a text to look for")
            judge.prompt(text)
    elif any(ask.label is None for ask in asked.asks):
        told = "; of prompts a CLIP is the judge" if any(ask.text for ask in asked.asks) else ""
        raise Problem(f"label none: {judge.name or 'the judge'} needs a class to look for{told}")
    return judge


def surest(frames: Iterable[Frame], asked: Request, best_of: int, judge: Critic, device: torch.device) -> tuple[Tensor, Request]:
    """The picture of highest log p(ask | picture) in every `best_of` pictures in a row, and their request.

    frames: the stream of the request's answer; only the best so far is kept. Returns uint8 [N, C, H, W].
    """
    best: dict[int, tuple[float, int, Tensor]] = {}
    for frame in frames:
        if not frame.final:
            continue
        images = frame.images
        numbers = range(frame.first, frame.first + len(images))
        logp = judge.logp([asked.asks[number] for number in numbers], "clean", device)
        scores = logp(pixels.encode(images.to(device)), CLEAN)
        for number, image, score in zip(numbers, images, scores.tolist(), strict=True):
            if number // best_of not in best or score > best[number // best_of][0]:
                best[number // best_of] = score, number, image
    kept = [best[picture] for picture in sorted(best)]
    return torch.stack([image for _, _, image in kept]), asked.only(*(number for _, number, _ in kept))
