"""The presets of the captioned data sets: their sizes, and a few steps of those that need no files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lodestar
from lodestar.generators.diffusion import Diffusion
from lodestar.models.clip import PictureClip
from lodestar.presets import RUNS
from lodestar.tasks import TrainAutoregressive, TrainClip, TrainDenoiser, TrainUnclip
from lodestar.training.muon import muon

NAMES = (
    "shapes.text",
    "shapes.inpaint",
    "shapes.up2",
    "shapes.clip",
    "shapes.clip_noised",
    "emoji.text",
    "emoji.up2",
)
LARGEST = 8_000_000
"""Parameters of an embedded model, which is at most 16 MB in a format of 16 bits."""


@pytest.mark.parametrize("name", NAMES)
def test_models_are_small_enough_to_ship(name: str) -> None:
    task = RUNS[name]().task
    assert isinstance(task, TrainClip | TrainDenoiser)
    assert sum(weight.numel() for weight in task.model.build().parameters()) < LARGEST


def test_the_parts_of_the_embedded_dalle2_are_small_enough_together() -> None:
    clip = RUNS["shapes.clip"]().task
    assert isinstance(clip, TrainClip)
    model = clip.model  # which is built before its vocabulary is known to be smaller
    parts = [model, RUNS["shapes.up2"]().task.model]  # type: ignore[attr-defined]
    for name in ("shapes.prior", "shapes.prior_ar", "shapes.decoder"):
        task = RUNS[name]().task
        assert isinstance(task, TrainUnclip | TrainAutoregressive)
        parts.append(task.joined(model, "0" * 64).model)
    numbers = sum(tensor.numel() for part in parts for tensor in part.build().state_dict().values())
    assert 2 * numbers < 48_000_000  # bytes, in a format of 16 bits


@pytest.mark.parametrize("name", ["shapes.text", "shapes.clip_noised"])
def test_a_few_steps(name: str, tmp_path: Path) -> None:
    model = lodestar.train(name, "data.workers=0", "data.validation=null", images=16, batch_size=8, out=tmp_path / "run")
    if isinstance(model, PictureClip):
        assert model.config.noised
        assert model.config.tokenizer.vocabulary == model.config.network.text.vocabulary
    else:
        pictures = model.sample(prompt=["a red circle", "a blue star"], steps="2")
        assert pictures.images.shape == (2, 3, 32, 32)


def test_the_upsampler_learns_from_windows_and_makes_wholes(tmp_path: Path) -> None:
    small = ["data.transforms.size=8", "data.transforms.whole=16", "data.workers=0"]
    model = lodestar.train("shapes.up2", *small, images=16, batch_size=8, out=tmp_path / "run")
    assert isinstance(model, Diffusion) and model.shape == (3, 16, 16) and model.config.denoiser.low_res == (8, 8)
    pictures = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    assert model.edit("upsample", pictures, steps="trailing:2", augment=0.2).images.shape == (2, 3, 16, 16)


def test_muon_takes_the_blocks_of_both_towers() -> None:
    run = RUNS["shapes.clip"]()
    assert isinstance(run.task, TrainClip)
    network = run.task.model.network.build()
    matrices = {id(each) for each in muon(network, list(network.parameters()), run.train.optimizer).param_groups[0]["params"]}
    for tower in (network.image, network.text):
        blocks = [each for each in tower.blocks.parameters() if each.ndim > 1]
        assert blocks
        assert all(id(each) in matrices for each in blocks)
