"""A CLIP for the runs that need one, and the embeddings of their pictures, made once and kept in the cache folder."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lodestar import checkpoint, library
from lodestar.codecs import pixels
from lodestar.config import Problem
from lodestar.data import Source
from lodestar.files import cache_folder
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.progress import progress
from lodestar.tasks import TrainAutoregressive, TrainUnclip
from lodestar.training.run import Run

KIND = "embeddings"
"""Kind of the files."""
_BATCH = 256


def joined(run: Run, source: Source, held_out: Source | None, device: str | None = None) -> tuple[Run, Source, Source | None]:
    """A run with the settings of the CLIP that it needs, and a prior's sources as embeddings. Raises Problem.

    Runs without a CLIP stay as they are.
    """
    task = run.task
    if not isinstance(task, TrainUnclip | TrainAutoregressive):
        return run, source, held_out
    config = library.config(task.clip)
    if not isinstance(config, ClipModelConfig):
        raise Problem(f"task.clip is {task.clip}, a {config.kind}: give a CLIP")
    task = task.joined(config, checkpoint.peek(library.find(task.clip)).digest)
    run = run.replace(task=task)
    if not task.prior:
        return run, source, held_out
    check_as_they_are(run, "embeddings")
    clip = library.load(task.clip, device, "clip", "float32")
    whole = embedded(source, clip, task.kept)
    return run, whole, None if held_out is None else embedded(held_out, clip, task.kept)


def embedded(source: Source, clip: PictureClip, most: int) -> Source:
    """The first pictures of a source, at most so many, as embeddings. Raises Problem for an embedding that is not finite."""
    count = min(len(source), most)
    path = cache_folder() / KIND / f"{clip.digest[:32]}-{source.pictured[:32]}-{count}.safetensors"
    if path.exists():
        _, tensors = checkpoint.load(path, KIND)
        return source.told(embedding=tensors["values"].numpy())
    values = np.full((count, clip.config.network.image.embed), np.nan, np.float32)
    with torch.inference_mode():
        for rows, images in pictures(source, count, KIND):
            values[rows] = found = clip.image_features(pixels.encode(images.to(clip.device))).cpu().numpy()
            if not np.isfinite(found).all():
                raise Problem(f"{clip.name} has embeddings that are not finite, of pictures {rows[0]} and after of {source.spec}")
    settings = {"clip": clip.digest, "pictures": source.pictured, "source": source.spec}
    checkpoint.save(path, KIND, json.dumps(settings), {"values": torch.from_numpy(values)}, {})
    return source.told(embedding=values)


def pictures(source: Source, count: int, what: str) -> Iterator[tuple[list[int], Tensor]]:
    """The first pictures of a source, but for bad ones, in batches: their numbers, and uint8 [B, C, H, W]. what: their use."""
    with progress(f"{what} of {source.spec}", count) as done:
        for start in range(0, count, _BATCH):
            images = {row: image for row in range(start, min(start + _BATCH, count)) if (image := source.image(row)) is not None}
            if images:
                yield list(images), torch.from_numpy(np.stack(list(images.values())))
            done(min(start + _BATCH, count))


def check_as_they_are(run: Run, what: str) -> None:
    """Raise Problem where pictures are changed each time, and what is made of them once."""
    if run.data.transforms.flip or run.data.transforms.crop == "random":
        raise Problem(f"a prior's {what} are made once, of pictures as they are: leave data.transforms.flip and .crop out")
