"""Damaged models of other projects: folders of diffusers, PyTorch's files."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

from lodestar.conversion import FAMILIES
from lodestar.conversion.run import convert
from tests.conversion.foreign import PUBLISHED
from tests.conversion.test_clip import Nested
from tests.conversion.test_families import RECORDED, small
from tests.conversion.test_families import folder as diffusers_folder
from tests.fuzz.damage import damaged, mutated, text
from tests.fuzz.valid import Valid, command, python, write

JSON = (
    "unet/config.json",
    "unet/config.json",
    "unet/config.json",
    "scheduler/scheduler_config.json",
    "lodestar.json",
    "model_index.json",
)
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def settings(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A folder of diffusers with a value in its JSON that is another."""
    there = valid.copy("diffusers", folder)
    path = there / rng.choice(JSON)
    path.write_text(text(mutated(json.loads(path.read_text()), rng), rng), errors="surrogatepass")
    return command("convert", there, "--out", "out")


def folders(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A folder of diffusers with a file that is damaged, missing, or none."""
    there = valid.copy("diffusers", folder)
    path = there / rng.choice((*JSON, WEIGHTS, WEIGHTS))
    if rng.random() < 0.6:
        write(path, damaged(path.read_bytes(), rng))
    else:
        path.unlink()
        rng.choice((lambda: None, path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")))()
    return command("convert", there, "--out", "out")


def files(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A PyTorch file with other bytes."""
    name = rng.choice(("tiny.pt", "tiny_guide.pt"))
    path = write(folder / name, damaged(valid.bytes(name), rng))
    return python(lambda: convert(path, folder / "out", FAMILIES, PUBLISHED))


def scripted(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A TorchScript archive with other bytes."""
    path = write(folder / "scripted.pt", damaged(_archive(), rng))
    return command("convert", path, "--as", "openai-clip", "--out", "out")


def modules(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A pickled module with other bytes."""
    buffer = io.BytesIO()
    torch.save(Nested({"a": torch.ones(4), "b.c": torch.ones(3, 3)}), buffer)
    return command("convert", write(folder / "module.pt", damaged(buffer.getvalue(), rng)), "--out", "out")


def autoencoders(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A folder of an autoencoder of diffusers with a setting that is another."""
    kind = rng.choice(("AutoencoderKL", "VQModel"))
    there = diffusers_folder(folder, "own", kind, RECORDED[kind]["settings"], small(kind))
    path = there / "config.json"
    path.write_text(text(mutated(json.loads(path.read_text()), rng), rng), errors="surrogatepass")
    return command("convert", there, "--out", "out")


@cache
def _archive() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(
            torch.jit.trace(Nested({"a": torch.ones(4), "b.c": torch.ones(3, 3), "b.d.e": torch.ones(2)}), torch.zeros(1)), buffer
        )
    return buffer.getvalue()


def states(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A PyTorch file that holds something else, or tensors of other shapes and names."""
    name = rng.choice(("tiny.pt", "tiny_guide.pt"))
    held: Any = dict(torch.load(valid.path(name), weights_only=True))
    victim = rng.choice(sorted(held))
    match rng.randrange(8):
        case 0:
            del held[victim]
        case 1:
            held[victim] = rng.choice(
                (torch.zeros(0), torch.zeros(()), torch.zeros(3, 0, 10**9), held[victim].reshape(-1), held[victim][None])
            )
        case 2:
            held[victim] = rng.choice(
                (1, "x", None, [], held[victim].to(torch.int8), held[victim].to_sparse(), torch.empty(2, device="meta"))
            )
        case 3:
            held[rng.choice(("x", victim + ".more", "", "a" * 10_000, "\ud800", "input_blocks.99999999.0.weight"))] = torch.zeros(
                2
            )
        case 4:
            held = rng.choice(
                ({}, [], None, 1, "x", torch.zeros(2), {1: torch.zeros(2)}, {"a": {}}, OrderedDict(), {"state_dict": {}})
            )
        case 5:
            held = {f"module.{key}": value for key, value in held.items()}
        case 6:
            # A view that is a hundred million times as large as what it is of.
            held[victim] = torch.zeros(1).expand(10**8)
        case _:
            held = {"a": held}
            for _ in range(rng.choice((1, 50))):
                held = {"a": held}
    try:
        torch.save(held, folder / name, _use_new_zipfile_serialization=rng.random() < 0.7)
    except (RuntimeError, NotImplementedError, UnicodeEncodeError, pickle.PicklingError):
        write(folder / name, b"")
    return python(lambda: convert(folder / name, folder / "out", FAMILIES, PUBLISHED))
