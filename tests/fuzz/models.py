"""Damaged checkpoints, where models, classifiers and references are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch

from lodestar import checkpoint, library
from lodestar.evaluation import kept
from tests.fuzz.damage import damaged, mutated, text
from tests.fuzz.valid import Valid, command, python, write

FILES = ("model.safetensors", "classifier.safetensors", "upsampler.safetensors", "kept.safetensors", "run/state.safetensors")


def door(file: Path, valid: Valid, rng: Random) -> Callable[[], Any]:
    """A command, or a call, that a checkpoint is given to."""
    model, out = valid.path("model.safetensors"), ("--out", "out")
    match rng.randrange(8):
        case 0 | 1:
            return command("info", file)
        case 2:
            return command("sample", file, "--count", 2, "--steps", 2, *out)
        case 3:
            return command("sample", model, "--count", 2, "--steps", 2, "--guidance", "classifier:1", "--classifier", file, *out)
        case 4:
            return command("sample", model, "--count", 2, "--steps", 2, "--guidance", "autoguidance:2", "--weak", file, *out)
        case 5:
            return command("export", file, "out")
        case 6:
            return python(lambda: kept.load(file))
        case _:
            return python(lambda: library.load(file))


def bytes_of(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """Changed bytes."""
    name = rng.choice(FILES)
    return door(write(folder / Path(name).name, damaged(valid.bytes(name), rng)), valid, rng)


def header(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """Changed JSON in the header of a safetensors file: entries of tensors, and what is told."""
    name = rng.choice(FILES)
    data = valid.bytes(name)
    length = int.from_bytes(data[:8], "little")
    changed = text(mutated(json.loads(data[8 : 8 + length]), rng), rng).encode()
    changed += b" " * (-len(changed) % 8)
    return door(write(folder / Path(name).name, _framed(changed, data[8 + length :])), valid, rng)


def told(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A whole file, its sums right, whose configuration or provenance is not as it should be."""
    name = rng.choice(FILES)
    known, tensors = checkpoint.load(valid.path(name))
    texts = dict(known.texts)
    key = rng.choice(("config", "config", "config", "provenance", "kind"))
    if key == "kind":
        texts[key] = rng.choice(("diffusion", "classifier", "state", "statistics", "", "x", "x" * 10_000, "\0"))
    else:
        texts[key] = text(mutated(json.loads(texts[key]), rng), rng) if rng.random() < 0.95 else "{"
    return door(rewritten(folder / Path(name).name, texts, tensors), valid, rng)


def weights(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A whole file, its sums right, with a tensor missing, one too many, or one of another shape or kind."""
    name = rng.choice(FILES)
    known, tensors = checkpoint.load(valid.path(name))
    victim = rng.choice(sorted(tensors))
    match rng.randrange(5):
        case 0:
            del tensors[victim]
        case 1:
            tensors["unheard of" if rng.random() < 0.5 else victim + "/more"] = torch.zeros(3)
        case 2:
            tensors[victim] = tensors[victim].reshape(-1)[:-1]
        case 3:
            tensors[victim] = tensors[victim].to(rng.choice((torch.int64, torch.bool, torch.float64)))
        case _:
            tensors[victim] = torch.full_like(tensors[victim], rng.choice((float("nan"), float("inf"), 1e38))) if (
                tensors[victim].is_floating_point()) else tensors[victim] * 0  # fmt: skip
    return door(rewritten(folder / Path(name).name, known.texts, tensors), valid, rng)


def bundles(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A bundle whose JSON, or one of whose parts, is not as it should be."""
    names = ("model.safetensors", "classifier.safetensors")
    for name in names:
        write(folder / name, valid.bytes(name) if rng.random() < 0.8 else damaged(valid.bytes(name), rng))
    parts = {
        role: {"file": name, "sha256": checkpoint.peek(valid.path(name)).digest}
        for role, name in zip(("model", "classifier"), names, strict=True)
    }
    parts["weak"] = {
        "file": rng.choice(("x.bundle.json", "../x.bundle.json", "y.bundle.json", "/dev/zero", ".")),
        "sha256": "0" * 64,
    }
    told = {
        "format": "lodestar-bundle/1",
        "parts": parts if rng.random() < 0.2 else {role: parts[role] for role in ("model", "classifier")},
    }
    changed = text(told if rng.random() < 0.2 else mutated(told, rng), rng).encode(errors="surrogatepass")
    return door(write(folder / "x.bundle.json", changed if rng.random() < 0.8 else damaged(changed, rng)), valid, rng)


def elsewhere(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """What is no file of a model: nothing, a folder, a pipe, a device, a picture, a name that is none."""
    path = folder / "thing"
    match rng.randrange(7):
        case 0:
            path.mkdir()
        case 1:
            import os

            os.mkfifo(path)
        case 2:
            path.symlink_to(path)
        case 3:
            path.symlink_to("/dev/zero")
        case 4:
            write(path / "model.safetensors", damaged(valid.bytes("model.safetensors"), rng))
        case 5:
            write(path, valid.bytes("picture.png"))
        case _:
            path = Path(rng.choice(("", "x" * 5_000, "a/" * 3_000, "\udcff\udcfe", "x\0y", "hf:", "~", "\n", "[red]x[/red]")))
    return door(path, valid, rng)


def rewritten(path: Path, texts: dict[str, str] | Any, tensors: Any) -> Path:
    """A checkpoint with these texts as they are, and the sums that they have."""
    checkpoint.save(path, texts["kind"], texts["config"], tensors, {})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    entries["__metadata__"] |= {
        "provenance": texts["provenance"],
        "provenance_sha256": hashlib.sha256(texts["provenance"].encode(errors="surrogatepass")).hexdigest(),
    }
    return write(path, _framed(json.dumps(entries).encode(), data[8 + length :]))


def _framed(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data
