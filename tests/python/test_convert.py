"""`lodestar.convert`: what the command does, in Python's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lodestar
import lodestar.presets
from lodestar import library
from lodestar.samplers import DDIM
from tests.conversion.foreign import PUBLISHED, STATES, state

FLAGS: dict[str, Any] = {
    "image_size": 8, "num_channels": 8, "channel_mult": "1,2", "num_res_blocks": 1, "num_heads": 2, "attention_resolutions": 4,
    "class_cond": True, "resblock_updown": True, "learn_sigma": True, "diffusion_steps": 50, "noise_schedule": "cosine",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lodestar.presets, "PUBLISHED", PUBLISHED)
    for name, shapes in STATES.items():
        torch.save(state(shapes), name)


def test_a_published_file_becomes_a_model(tmp_path: Path) -> None:
    path = lodestar.convert("tiny.pt", sampler="ddim", steps=5)
    assert path == Path("models/tiny.safetensors")
    model = lodestar.load(path, "cpu")
    assert (model.config.sampler, model.config.steps) == (DDIM(), "5")
    assert len(model.sample(label=1, count=2)) == 2
    Path("tiny.pt").rename("renamed.pt")
    assert lodestar.convert(tmp_path / "renamed.pt", "there", name="ada/twin") == Path("there/twin.safetensors")


def test_a_file_of_ones_own_by_its_flags() -> None:
    Path("tiny.pt").rename("mine.pt")
    text = " ".join(f"--{name} {value}" for name, value in FLAGS.items())
    Path("flags.sh").write_text(text)
    made = [
        lodestar.convert("mine.pt", f"by-{number}", flags=flags)
        for number, flags in enumerate((FLAGS, text, "flags.sh", Path("flags.sh")))
    ]
    assert len({library.load(path, "cpu").digest for path in made}) == 1


def test_a_folder_of_diffusers(tmp_path: Path) -> None:
    from lodestar.conversion import diffusers

    diffusers.export(library.load_diffusion("cifar10", "cpu"), tmp_path / "folder")
    assert lodestar.convert("folder", tmp_path) == tmp_path / "folder.safetensors"
    with pytest.raises(lodestar.Problem, match="a folder of diffusers has its own settings"):
        lodestar.convert("folder", flags=FLAGS)


def test_what_is_wrong_is_one_line() -> None:
    for given, said in (
        (("tny.pt",), "no file 'tny.pt'; did you mean 'tiny.pt'?"),
        (("ada/tini",), "no published model 'ada/tini'"),
    ):
        with pytest.raises(lodestar.Problem, match=said.replace("?", r"\?")):
            lodestar.convert(*given)
    with pytest.raises(lodestar.Problem, match="unknown sampler 'dim'"):
        lodestar.convert("tiny.pt", sampler="dim")
    with pytest.raises(lodestar.Problem, match="num_channels: width is 8 in the weights, 16 by the flags"):
        lodestar.convert("tiny.pt", flags=FLAGS | {"num_channels": 16})
    assert not Path("models").exists()
