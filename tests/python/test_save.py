"""Models saved from Python: loaded again they make the same pictures, and nothing else is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lodestar
from lodestar import checkpoint, library
from lodestar.generators.diffusion import Diffusion
from lodestar.models.diffusion import DiffusionModel
from tests.evaluation import tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_saved_model_makes_the_same_pictures(dtype: torch.dtype) -> None:
    made = tiny.diffusion().lower(dtype)
    assert lodestar.save(made, "mine.safetensors") == Path("mine.safetensors")
    again = library.load_diffusion("mine.safetensors", "cpu", dtype)
    assert (again.name, again.config) == ("mine.safetensors", made.config)
    how: Any = {"label": "dog", "count": 3, "seed": 5, "guidance": "cfg:2"}
    assert torch.equal(again.sample(**how).images, made.sample(**how).images)
    assert not torch.equal(again.sample(**how | {"seed": 9}).images, made.sample(**how).images)


def test_a_model_of_the_package_is_the_same_file_again() -> None:
    original = lodestar.load("cifar10_classifier", "cpu", dtype=torch.float32)
    path = original.save("guide.safetensors")
    again, header = lodestar.load(path, "cpu", dtype=torch.float32), checkpoint.peek(path)
    assert again.config == original.config
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in original.state_dict().items())
    assert header.provenance["images_seen"] == original.provenance["images_seen"] == 140_000
    assert header.provenance["saved_from"] == "cifar10_classifier"
    assert header.provenance["saved_from_sha256"] == original.digest


def test_the_same_model_may_be_saved_again_and_another_not() -> None:
    made = tiny.diffusion()
    before = lodestar.save(made, "mine.safetensors").stat()
    assert lodestar.save(made, "mine.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(lodestar.Problem, match=r"^mine.safetensors holds another model: choose another name, or remove it$"):
        lodestar.save(tiny.diffusion(1), "mine.safetensors")
    with pytest.raises(lodestar.Problem, match="holds another model"):
        tiny.classifier().save("mine.safetensors")
    assert torch.equal(next(library.load_diffusion("mine.safetensors", "cpu").parameters()), next(made.parameters()))
    Path("notes.safetensors").write_text("mine")
    with pytest.raises(lodestar.Problem, match=r"^notes.safetensors exists and holds no model \("):
        made.save("notes.safetensors")
    assert Path("notes.safetensors").read_text() == "mine"


def test_what_cannot_be_saved_is_refused() -> None:
    made = tiny.diffusion()
    for name in ("mine", "mine.pt", "runs/"):
        with pytest.raises(lodestar.Problem, match=r"the name of a model's file ends in .safetensors"):
            lodestar.save(made, name)
    with pytest.raises(lodestar.Problem, match=r"^Linear has no configuration of a model"):
        DiffusionModel.save(nn.Linear(2, 2), "mine.safetensors")  # type: ignore[arg-type]
    Path("file").write_text("")
    with pytest.raises(lodestar.Problem, match=r"^cannot write file/mine.safetensors"):
        made.save("file/mine.safetensors")
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_weights_without_a_generator_are_saved_too() -> None:
    made = tiny.diffusion()
    bare = DiffusionModel(made.config)
    bare.load_state_dict(made.state_dict())
    bare.save("bare.safetensors")
    loaded = lodestar.load("bare.safetensors", "cpu")
    assert isinstance(loaded, Diffusion) and torch.equal(next(loaded.parameters()), next(made.parameters()))
    assert loaded.provenance.keys() == {"lodestar", "torch"}
