"""A CLIP for the runs that need one, and the embeddings of their pictures, made once and kept in the cache folder."""

from __future__ import annotations

import json

import numpy as np
import torch

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
    if run.data.transforms.flip or run.data.transforms.crop == "random":
        raise Problem("a prior's embeddings are made once, of pictures as they are: leave data.transforms.flip and .crop out")
    clip = library.load(task.clip, device, "clip", "float32")
    whole = embedded(source, clip, task.kept)
    return run, whole, None if held_out is None else embedded(held_out, clip, task.kept)


def embedded(source: Source, clip: PictureClip, most: int) -> Source:
    """The first pictures of a source, at most so many, as embeddings. Raises Problem for an embedding that is not finite."""
    count = min(len(source), most)
    path = cache_folder() / KIND / f"{clip.digest[:32]}-{source.pictured[:32]}-{count}.safetensors"
    if path.exists():
        _, tensors = checkpoint.load(path, KIND)
        return source.embedded(tensors["values"].numpy())
    values = np.full((count, clip.config.network.image.embed), np.nan, np.float32)
    with progress(f"embeddings of {source.spec}", count) as done, torch.inference_mode():
        for start in range(0, count, _BATCH):
            images = {row: image for row in range(start, min(start + _BATCH, count)) if (image := source.image(row)) is not None}
            if images:
                x = pixels.encode(torch.from_numpy(np.stack(list(images.values()))).to(clip.device))
                values[list(images)] = found = clip.image_features(x).cpu().numpy()
                if not np.isfinite(found).all():
                    raise Problem(
                        f"{clip.name} has embeddings that are not finite, of pictures {start} and after of {source.spec}"
                    )
            done(min(start + _BATCH, count))
    settings = {"clip": clip.digest, "pictures": source.pictured, "source": source.spec}
    checkpoint.save(path, KIND, json.dumps(settings), {"values": torch.from_numpy(values)}, {})
    return source.embedded(values)
