"""Classifier rejection sampling (Razavi et al. 2019): of several pictures the one that a classifier is surest of.

What is left are pictures with seeds of their own, so that nothing but which seeds they have tells that they were chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Label, sign_table
from lodestar.config import Problem
from lodestar.models.agreement import check_guide
from lodestar.models.classifier import PLAIN, PictureClassifier
from lodestar.models.request import Frame, Request

if TYPE_CHECKING:
    from lodestar.models.diffusion import Diffusion


def candidates(labels: Sequence[Label], best_of: int) -> tuple[Label, ...]:
    """Every label so many times in a row. Raises Problem."""
    if best_of < 1:
        raise Problem(f"best of {best_of}: at least 1")
    return tuple(label for label in labels for _ in range(best_of))


def surest(
    frames: Iterable[Frame], request: Request, best_of: int, model: Diffusion, judge: PictureClassifier | None
) -> tuple[Tensor, Request]:
    """Of every `best_of` pictures of a request in a row the one with the highest log p(label | picture), and their request.

    frames: the stream that answers the request, of which nothing but the best so far is kept. Returns uint8 [N, C, H, W].
    Raises Problem before the first frame where the judge cannot judge.
    """
    if judge is None:
        raise Problem(f"best of {best_of} needs a classifier that judges, and none is given: --judge MODEL, or judge= in Python")
    if None in request.labels:
        raise Problem("label none: a judge needs a class to look for")
    check_guide(model.config, judge.config, noisy=False)
    best: dict[int, tuple[float, int, Tensor]] = {}
    for frame in frames:
        if not frame.final:
            continue
        images = frame.images
        numbers = range(frame.first, frame.first + len(images))
        table = sign_table([request.labels[number] for number in numbers], judge.config.network.classes)
        scores = judge.logp(pixels.encode(images.to(model.device)), PLAIN, table.to(model.device))
        for number, image, score in zip(numbers, images, scores.tolist(), strict=True):
            if number // best_of not in best or score > best[number // best_of][0]:
                best[number // best_of] = score, number, image
    kept = [best[picture] for picture in sorted(best)]
    return torch.stack([image for _, _, image in kept]), request.only(*(number for _, number, _ in kept))
