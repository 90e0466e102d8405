"""Damaged manifests and pictures of albums, and damaged folders of runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from lodestar.generators.album import Manifest
from tests.fuzz.damage import damaged, mutated, text
from tests.fuzz.valid import RUN, Valid, command, python, write


def manifest(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A manifest whose JSON, or bytes, are another."""
    album = valid.copy(rng.choice(("album", "edited")), folder)
    path = album / "manifest.json"
    spoil(path, rng)
    match rng.randrange(4):
        case 0 | 1:
            return command("remake", rng.choice((album, path)), "--picture", 0, "--out", "out")
        case 2:
            return python(lambda: Manifest.read(path))
        case _:
            return command("sample", valid.path("model.safetensors"), "--count", 3, "--out", album)


def pictures(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """An album that lacks pictures, or whose pictures are damaged, where pictures are wanted."""
    album = valid.copy(rng.choice(("album", "edited")), folder)
    path = rng.choice(sorted(album.glob("*.png")))
    if rng.random() < 0.3:
        path.unlink()
        rng.choice((lambda: None, path.mkdir, lambda: os.mkfifo(path)))()
    else:
        write(path, damaged(path.read_bytes(), rng))
    if rng.random() < 0.5:
        return command("remake", album, "--picture", 0, "--out", "out")
    return command("edit", "sdedit", valid.path("model.safetensors"), album, "--steps", 4, "--out", "out")


def run(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A run's folder with a file that is another, gone on with, or looked at."""
    there = valid.copy("run", folder)
    path = there / rng.choice(("run.json", "run.json", "log.jsonl", "state.safetensors", "model.safetensors", ".lock"))
    match rng.randrange(6):
        case 0:
            path.unlink(missing_ok=True)
            rng.choice((lambda: None, path.mkdir, lambda: os.mkfifo(path)))()
        case 1 | 2 if path.suffix in (".json", ".jsonl"):
            spoil(path, rng)
        case _:
            write(path, damaged(path.read_bytes() if path.exists() else b"", rng))
    if rng.random() < 0.5:
        return command("info", there)
    return command("train", *RUN.split(), "train.images=16", "--out", there)


def spoil(path: Path, rng: Random) -> None:
    """Change the JSON of a file, or its bytes."""
    if rng.random() < 0.2:
        write(path, damaged(path.read_bytes(), rng))
        return
    content = path.read_text(encoding="utf-8")
    first = content if path.suffix == ".json" else content.splitlines()[0]
    path.write_text(text(mutated(json.loads(first), rng), rng) + "\n", encoding="utf-8", errors="surrogatepass")


def taken(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A folder to write to that holds something else, or is no folder."""
    out = folder / "out"
    match rng.randrange(6):
        case 0:
            write(out, b"x")
        case 1:
            write(out / "letter.txt", b"x")
        case 2:
            out.symlink_to("nowhere/at/all")
        case 3:
            out.mkdir(mode=0o500)
        case 4:
            valid.copy("album", out)
        case _:
            (out / "00000.png").mkdir(parents=True)
    model, picture = valid.path("model.safetensors"), valid.path("picture.png")
    return rng.choice((
        command("sample", model, "--count", 2, "--steps", 2, "--out", out),
        command("edit", "sdedit", model, picture, "--steps", 4, "--out", out),
        command("export", model, out),
        command("train", *RUN.split(), "--out", out),
        command("stats", valid.path("folder"), "--out", "out.safetensors"),
        command("convert", valid.path("diffusers"), "--out", out),
    ))  # fmt: skip
