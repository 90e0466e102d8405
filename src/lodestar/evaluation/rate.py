"""The likelihood of pictures' codes under a prior of codes: bits a code, and bits for each dimension of the picture.

Codes tell all that the VQ-VAE's decoder knows of a picture, so their bits are the rate of a lossy compression. They bound no
likelihood of the picture itself, since the decoder is no distribution.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Cond
from lodestar.data import Batch, Source, part, sequential
from lodestar.evaluation.likelihood import labels_of
from lodestar.evaluation.report import Bits, evenly, mean_with_error, measured_by, resized
from lodestar.generators.code_prior import CodePrior
from lodestar.progress import progress


@dataclass(frozen=True, kw_only=True)
class Rate(Bits):
    """The measured rate, with all its settings.

    Its numbers are "bpd", the bits of all codes for each dimension of the picture; "code", the bits of a code, and the same by
    level, as "code/top"; "mse", the squared error of the decoded pictures in [−1, 1]. Names with _error are standard errors.
    """

    classes: str
    """The pictures' classes as given to the model, in words."""


@torch.inference_mode()
def measure(model: CodePrior, reference: Source, *, count: int, batch_size: int = 64) -> Rate:
    """Bits of the codes of `count` pictures of the reference, resized and cropped to the model's size. Raises Problem.

    A model of classes is told those of the pictures where they have the same, and a model of texts their captions.
    """
    began, codec = time.perf_counter(), model.config.codec
    places = evenly(reference, count)
    _, classes = labels_of(model, reference, places)
    rates, errors = list[Tensor](), list[Tensor]()
    model.eval()
    with progress("likelihood", count) as tick:
        for batch in sequential(part(reference, places, codec.size), batch_size):
            x = pixels.encode(batch.image.to(model.device))
            codes = model.codec.codes(x)
            rates.append(bits(model, codes, _told(model, batch, x, classes != "none")))
            errors.append((model.codec.of_codes(codes) - x).square().flatten(1).mean(dim=1).double().cpu())
            tick(sum(map(len, errors)))
    by_level, sizes = torch.cat(rates, dim=1), [math.prod(network.size) for network in model.config.networks]
    values = {"bpd": by_level.sum(dim=0) / math.prod(model.shape), "code": by_level.sum(dim=0) / sum(sizes)}
    if len(sizes) > 1:
        names = codec.network.names
        values |= {f"code/{name}": found / size for name, found, size in zip(names, by_level, sizes, strict=True)}
    values["mse"] = torch.cat(errors)
    numbers: dict[str, float] = {}
    for name, each in values.items():
        numbers |= mean_with_error(name, each)
    return Rate(
        numbers=numbers,
        count=count,
        **measured_by(model, reference),
        classes=classes,
        seconds=time.perf_counter() - began,
        warnings=resized(reference, codec.size),
    )


def bits(model: CodePrior, codes: list[Tensor], cond: Cond) -> Tensor:
    """Bits of maps of codes int64 [B, h, w] by level, float64 [levels, B] on the CPU; cond: as for `CodePrior.logits`."""
    nats = [
        F.cross_entropy(model.logits(level, codes, cond).double(), numbers, reduction="none").flatten(1).sum(dim=1)
        for level, numbers in enumerate(codes)
    ]
    return torch.stack(nats).cpu() / math.log(2.0)


def _told(model: CodePrior, batch: Batch, x: Tensor, labelled: bool) -> Mapping[str, Tensor]:
    """The conditions of pictures: captions, and their classes where the model has the same."""
    known = {str(each.kind): each for each in model.config.conditions}
    there = {kind for kind in known if kind != "label" or labelled}
    return {kind: each.seen(batch.fields, x) for kind, each in known.items() if kind in there}
