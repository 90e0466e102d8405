"""Put a run's model into the package: 16-bit weights, with a card of what was measured.

    python scripts/embed.py runs/c10 cifar10 --hardware "two CPU cores" --numbers report.json

The card goes into the file's provenance, where ``lodestar info cifar10`` shows it. What belongs to the model is named with
``--part classifier=cifar10_classifier``, or a file below the weights' folder, and stands in its bundle; bundles that name the
model are written anew. ``python scripts/embed.py --digits`` prints the commands for models of digits of every kind.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

import lodestar
from lodestar import bundle, checkpoint, library
from lodestar.config import decode
from lodestar.presets.embedded import commands
from lodestar.training.names import RUN
from lodestar.training.run import Run

LIMIT, WHOLE = 16 * 2**20, 48_000_000
"""Bytes of an embedded file at most, and of all files of a bundle."""


def main() -> None:
    """Read a run, write the embedded model."""
    if sys.argv[1:] == ["--digits"]:
        print("\n".join(commands()))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--hardware", required=True)
    parser.add_argument(
        "--before",
        action="append",
        default=[],
        help="the model that the run began with, whose images and seconds are added; repeatable",
    )
    parser.add_argument(
        "--average",
        type=Path,
        action="append",
        default=[],
        help="another run, begun with this one or this with it: the mean of the weights is embedded (model soups); repeatable",
    )
    parser.add_argument("--note", help="what else a reader of the card should know")
    parser.add_argument("--preset", help="the preset's name, where it is another than the model's")
    parser.add_argument("--data", help="how the card names the data (default: the source's file name)")
    parser.add_argument("--numbers", type=Path, help="a report of `lodestar evaluate`, as JSON")
    parser.add_argument("--ranges", metavar="DATA", help="pictures by which the model gets its ranges, to sample in int8")
    parser.add_argument("--part", action="append", default=[], help="what belongs to it: ROLE=NAME or ROLE=FILE; repeat it")
    options = parser.parse_args()
    header, tensors = checkpoint.load(library.find(options.run))
    tensors = mean([tensors, *(checkpoint.load(library.find(other))[1] for other in options.average)])
    run = decode(Run, (options.run / RUN).read_text(encoding="utf-8"))
    provenance = {
        **header.provenance,
        "data": options.data or Path(run.data.source).name,
        "preset": options.preset or options.name,
        "hardware": options.hardware,
    }
    for before in options.before:
        earlier = checkpoint.peek(library.find(before)).provenance
        provenance |= {name: earlier[name] + provenance[name] for name in ("images_seen", "seconds")}
    if options.average:
        provenance["mean_of_runs"] = 1 + len(options.average)
    if options.note is not None:
        provenance["note"] = options.note
    if options.numbers is not None:
        provenance["measured"] = json.loads(options.numbers.read_text(encoding="utf-8"))
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    assert all(bool(tensor.isfinite().all()) for tensor in halves.values()), "a weight does not fit into 16 bits"
    path = bundle.WEIGHTS / f"{options.name}.safetensors"
    checkpoint.save(path, header.kind, header.config, halves, provenance)
    size = path.stat().st_size
    assert size <= LIMIT, f"{path} has {size} bytes, and {LIMIT} are allowed"
    error = max(float((half.float() - tensors[name]).abs().max()) for name, half in halves.items() if half.dtype == torch.half)
    print(f"{path}: {size / 2**20:.1f} MiB, largest rounding error {error:.1e}")
    if options.part:
        parts = dict(part.split("=", 1) for part in options.part)
        whole = bundle.WEIGHTS / f"{options.name}{bundle.SUFFIX}"
        bundle.save(whole, {bundle.MAIN: path, **parts})
        size = sum(part.file.stat().st_size for part in bundle.find(whole).values())
        assert size <= WHOLE, f"the parts of {whole} have {size} bytes, and {WHOLE} are allowed"
    if options.ranges:
        with tempfile.TemporaryDirectory() as folder:
            shutil.move(lodestar.quantize(options.name, options.ranges, Path(folder) / path.name), path)
    for other in bundle.WEIGHTS.glob(f"*{bundle.SUFFIX}"):
        known = bundle.read(other).parts
        bundle.save(other, {role: part.name or bundle.WEIGHTS / str(part.file) for role, part in known.items()})


def mean(models: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the weights of models of one network (Wortsman et al. 2022, arXiv:2203.05482), where all share a beginning."""
    first = models[0]
    assert all(
        {name: each.shape for name, each in model.items()} == {name: each.shape for name, each in first.items()}
        for model in models
    )
    return {
        name: torch.stack([model[name] for model in models]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


if __name__ == "__main__":
    main()
