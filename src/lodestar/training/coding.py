"""The codes of a run's pictures by its VQ-VAE, made once and kept in the cache folder as a parquet of whole numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from lodestar import library
from lodestar.codecs import pixels
from lodestar.config import Problem, from_json
from lodestar.data import Source
from lodestar.extras import need
from lodestar.files import atomic, cache_folder, reading
from lodestar.generators.autoencoder import VQVAE
from lodestar.tasks import TrainCodePrior
from lodestar.training.embedding import check_as_they_are, pictures
from lodestar.training.run import Run

FOLDER = "codes"
"""Folder in the cache."""
_ABOUT = b"lodestar"
"""Key of a file's own description."""


def coded(run: Run, source: Source, held_out: Source | None, device: str | None = None) -> tuple[Source, Source | None]:
    """The sources of a prior of codes as codes, a field for each level; those of other runs as they are. Raises Problem."""
    task = run.task
    if not isinstance(task, TrainCodePrior):
        return source, held_out
    assert task.codec is not None
    check_as_they_are(run, "codes")
    codec: VQVAE = library.load(task.codec.name, device, "vqvae", "float32")
    if codec.digest != task.codec.digest:
        raise Problem(f"{task.codec.name} is not the VQ-VAE that this run needs: its SHA-256 is {codec.digest}")
    return codes_of(source, codec, task.kept), None if held_out is None else codes_of(held_out, codec, task.kept)


def codes_of(source: Source, codec: VQVAE, most: int) -> Source:
    """The first pictures of a source, at most so many, as codes. Raises Problem for a kept file of others."""
    count = min(len(source), most)
    path = cache_folder() / FOLDER / f"{codec.digest[:32]}-{source.pictured[:32]}-{count}.parquet"
    about = {"codec": codec.digest, "pictures": source.pictured}
    network = codec.config.network
    shapes = {name: (count, *shape) for name, shape in zip(network.names, network.shapes(codec.config.size), strict=True)}
    if not path.exists():
        fields = {name: np.full(shape, -1, np.int32) for name, shape in shapes.items()}
        with torch.inference_mode():
            for rows, images in pictures(source, count, "codes"):
                found = codec.codes(pixels.encode(images.to(codec.device)))
                for field, codes in zip(fields.values(), found, strict=True):
                    field[rows] = codes.cpu().numpy()
        write(path, fields, {**about, "source": source.spec})
    return source.told(**read(path, shapes, about, network.book.codes))


def write(path: Path, fields: dict[str, np.ndarray], about: dict[str, str]) -> None:
    """Write maps of codes [N, h, w] by level, a row for each picture, with a description. A bad picture has codes of −1."""
    pa, pq = need("pyarrow"), need("pyarrow.parquet")
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(maps.reshape(-1)), int(np.prod(maps.shape[1:])))
        for name, maps in fields.items()
    }
    table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(about)})
    with atomic(path) as file:
        pq.write_table(table, file)


def read(path: Path, shapes: Mapping[str, tuple[int, ...]], about: dict[str, str], codes: int) -> dict[str, np.ndarray]:
    """Maps of codes int32 [N, h, w] by level, of these shapes. Raises Problem for those of another VQ-VAE or other pictures."""
    with reading(path, "is damaged, and may be removed"):
        table = need("pyarrow.parquet").read_table(path)
        told = from_json((table.schema.metadata or {}).get(_ABOUT, b"{}"))
        for name, digest in about.items():
            if told.get(name) != digest:
                what = "another VQ-VAE" if name == "codec" else "other pictures"
                raise Problem(f"{path} holds codes of {what} (SHA-256 {told.get(name)}, not {digest}): remove it")
        found = {name: np.array(table[name].combine_chunks().values).reshape(shape) for name, shape in shapes.items()}
        if any(field.dtype != np.int32 or field.min() < -1 or field.max() >= codes for field in found.values()):
            raise ValueError(f"its codes are no whole numbers below {codes}")
    return found
