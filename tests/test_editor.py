"""Editing in Python: from files to a folder that can be made again."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

import lodestar
from lodestar.generators.album import Manifest, read_material
from lodestar.generators.edits.request import EditRequest
from lodestar.images import load_png
from tests.evaluation import tiny


def test_from_a_file_to_a_folder(tmp_path: Path) -> None:
    Image.effect_noise((16, 12), 90).convert("RGB").save(tmp_path / "dog.png")
    mask = Image.new("L", (16, 12), 0)
    mask.paste(255, (6, 4, 10, 8))
    mask.save(tmp_path / "mask.png")
    model = tiny.diffusion()
    how = lodestar.Inpaint(resamples=2, jump=1)
    made = lodestar.edit(model, how, tmp_path / "dog.png", ["cat", "dog"], mask=tmp_path / "mask.png", steps=3, seed=5)
    assert made.images.shape == (2, 3, 8, 8)
    assert made.request.seeds == [5, 6]
    assert made.material.mask is not None
    known = ~made.material.mask
    assert torch.equal(made.images[1][:, known], made.material.pictures[0][:, known])
    folder = lodestar.save(made, tmp_path / "out")
    request = Manifest.read(folder).request
    assert isinstance(request, EditRequest)
    assert request == made.request
    (frame,) = (frame for frame in model.prepare_edit(request.only(1), read_material(folder, request)).frames() if frame.final)
    assert (frame.images[0].int() - load_png(folder / "00001.png").int()).abs().max() <= 1
