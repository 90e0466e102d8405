"""Resident memory: the most that a process needs, each in a process of its own."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from common import CPU, Goal, Setting, chosen
from networks import ours, theirs
from PIL import Image
from rich.table import Table
from speed import our_step

from lodestar.data import Shuffled, open_source, parquet, source
from lodestar.nets.precision import choose_dtype

HELD = 8 * 2**20
"""What is held of a file and of its decoded pictures in `read`, bytes: less than by default, so that small files exceed it."""


def memory(setting: Setting) -> Iterator[Table | Goal]:
    """The most memory that a process needs, whole and above the imported libraries."""
    table = Table("process", "peak, MiB", "above the libraries", title="resident memory, 32×32")
    least = peak("pass")
    table.add_row("import torch, lodestar", f"{least:.0f}", "")

    def row(name: str, code: str, least: float = least) -> tuple[float, float]:
        most = peak(code)
        table.add_row(name, f"{most:.0f}", f"{most - least:.0f}")
        return most, most - least

    our = row(f"forward pass, batch 32, {chosen()}", "run_forward(32)")
    row(f"training step, batch 32, {chosen(True)}", "run_step(32)")
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 4):
            path = Path(folder) / f"{times}.parquet"
            write_parquet(path, pictures=times * 12_000)
            name = f"24,000 pictures read from {path.stat().st_size / 2**20:.0f} MiB of parquet"
            row(f"{name}, {HELD >> 20} MiB held at most", f"read({str(path)!r}, 750)")
    if find_spec("diffusers") is None:
        table.add_row("diffusers", "skipped: not installed", "")
    else:
        beside = peak("import diffusers; diffusers.UNet2DModel")
        table.add_row("import diffusers", f"{beside:.0f}", "")
        other = row("forward pass, batch 32, diffusers, float32", "run_theirs(32)", beside)
        yield Goal(
            "memory of a forward pass, batch 32, above the libraries, against diffusers", our[1] / other[1], 0.5, 0.5, most=True
        )
        yield Goal("the same, whole processes", our[0] / other[0], 0.5, 0.5, most=True)
    yield table


def peak(code: str) -> float:
    """The largest resident memory, in MiB, of a fresh process that runs `code` among the names of this file."""
    code = f"from memory import *; {code}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    # A process's peak begins with that of the process which starts it, and this one's is large: a small shell stands between.
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}; exit $?"
    told = subprocess.run(["sh", "-c", shell], check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent).stdout
    return int(told) / (2**20 if sys.platform == "darwin" else 2**10)


def run_forward(batch: int) -> None:
    """Two forward passes of our network in the chosen format."""
    dtype, network = choose_dtype(None, CPU), ours(chosen())
    with torch.inference_mode():
        for _ in range(2):
            network(torch.randn(batch, 3, 32, 32), torch.rand(batch) * 1000, None, dtype)


def run_theirs(batch: int) -> None:
    """Two forward passes of diffusers' network."""
    network = theirs().eval().requires_grad_(False)
    with torch.inference_mode():
        for _ in range(2):
            network(torch.randn(batch, 3, 32, 32), torch.rand(batch) * 1000)


def run_step(batch: int) -> None:
    """Two training steps of our network."""
    step = our_step(batch)
    step()
    step()


def write_parquet(path: Path, pictures: int) -> None:
    """Noise as PNG files of about 3 KiB, 1,000 to a row group."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    rng = np.random.default_rng(0)
    kind = pyarrow.schema([("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))])
    with ParquetWriter(path, kind) as file:
        for _ in range(pictures // 1000):
            rows = []
            for _ in range(1000):
                encoded = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(encoded, "PNG")
                rows.append({"image": {"bytes": encoded.getvalue(), "path": None}})
            file.write_table(pyarrow.Table.from_pylist(rows, kind))


def read(path: str, count: int) -> None:
    """Read `count` shuffled batches of 32."""
    parquet.HELD_BYTES = source._KEPT_BYTES = HELD
    stream = Shuffled(open_source(path), 32).batches(0)
    for _ in range(count):
        next(stream)
