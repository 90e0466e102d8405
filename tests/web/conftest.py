"""Folders of small models, a run and a sweep for the tests of the playground."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from lodestar import bundle
from lodestar.files import write_csv
from lodestar.images import save_png
from lodestar.web.page import serve
from lodestar.web.requests import Limits
from lodestar.web.shelf import Shelf
from tests.evaluation import tiny


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models: "plain", which makes pictures of three classes, "small", whose pictures "up" enlarges, "told", of texts, a critic,
    and "unclip", a bundle of a decoder with its CLIP.
    """
    place = tmp_path_factory.mktemp("runs")
    tiny.diffusion().save(place / "plain.safetensors")
    tiny.diffusion(low_res=(4, 4), seed=1).save(place / "up.safetensors")
    tiny.diffusion(size=(4, 4), seed=2).save(place / "small.safetensors")
    tiny.told().save(place / "told.safetensors")
    tiny.classifier().save(place / "critic.safetensors")
    parts = {"model": place / "decoder.safetensors", "clip": place / "clip.safetensors"}
    tiny.decoder().save(parts["model"])
    tiny.clip().save(parts["clip"])
    bundle.save(place / "unclip.bundle.json", parts)
    Image.effect_noise((11, 9), 90).convert("RGB").save(place / "dog.png")
    mask = Image.new("L", (11, 9))
    mask.paste(255, (2, 2, 6, 6))
    mask.save(place / "mask.png")
    _run(place / "run")
    _sweep(place / "sweep")
    return place


def _run(place: Path) -> None:
    place.mkdir()
    lines = [{"images": 100 * k, "time": 1.0, "loss": 1 / k, "held_out": 2 / k} for k in range(1, 5)]
    (place / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    save_png(place / "samples" / "000000400.png", torch.full((3, 8, 8), 200, dtype=torch.uint8))


def _sweep(place: Path) -> None:
    rows = [{"scale": f"{k}", "steps": "2", "frechet": 3.0 - k, "images_per_second": 5, "swept": "scale"} for k in (1, 2)]
    write_csv(place / "sweep.csv", rows)
    for k in (1, 2):
        save_png(place / f"samples-{k}.png", torch.full((3, 8, 8), 100 * k, dtype=torch.uint8))


@pytest.fixture(scope="session")
def url(folder: Path) -> Iterator[str]:
    """The address of a playground of this folder; skipped without Gradio."""
    pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'lodestar[play]'")
    limits = Limits(pictures=16, steps=60, megabytes=1, megapixels=0.1, each=3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before = Image.MAX_IMAGE_PIXELS
    page = serve(Shelf([folder]), limits, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    page.close(verbose=False)
    Image.MAX_IMAGE_PIXELS = before
