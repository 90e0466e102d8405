"""Small picture files and tables for the tests of data."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def noise(number: int, height: int = 4, width: int = 4) -> np.ndarray:
    """A picture uint8 [H,W,3] of its own for each number; its first pixel's red is the number."""
    picture = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture[0, 0, 0] = number % 256
    return picture


def png(picture: np.ndarray | Image.Image) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, "png")
    return file.getvalue()


def write_table(
    path: Path,
    pictures: Sequence[bytes | None],
    labels: Sequence[Any] | None = None,
    *,
    names: Sequence[str] | None = None,
    image: str = "image",
    label: str = "label",
    group: int = 4,
) -> str:
    """A parquet file in the form that `datasets` writes, `group` rows to a row group; its path."""
    cells = [None if data is None else {"bytes": data, "path": f"{row}.png"} for row, data in enumerate(pictures)]
    columns = {image: pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    features: dict[str, Any] = {image: {"_type": "Image"}}
    if labels is not None:
        columns[label] = pa.array(labels)
    if names is not None:
        features[label] = {"_type": "ClassLabel", "names": list(names)}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)
    return str(path)


def write_folder(root: Path, files: dict[str, np.ndarray | Image.Image]) -> str:
    """Picture files by their path below `root`; its path."""
    for name, picture in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(picture))
    return str(root)
