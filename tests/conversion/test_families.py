"""Published autoencoders and GANs: what converted files compute, against the record of the projects' own code."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lodestar
from lodestar.__main__ import main
from lodestar.config import Problem
from lodestar.conversion import FAMILIES
from lodestar.conversion.family import check, recognize
from lodestar.conversion.run import facts, ours
from lodestar.images import load_png, save_png
from lodestar.presets import PUBLISHED

from . import family_record as record
from .diffusers_record import weights

torch.set_num_threads(1)
RECORDED: dict[str, dict[str, Any]] = json.loads(record.RECORD.read_text())
NAMES: dict[str, dict[str, list[int]]] = json.loads(gzip.decompress(record.NAMES.read_bytes()))
BY_SHORT = {each.short: each for each in PUBLISHED}
FLAGS = {"vqvae2": "--size 16"}
"""What weights do not tell of the small networks."""


def small(family: str) -> dict[str, Tensor]:
    """The weights of a small network of the record."""
    return weights({name: tuple(shape) for name, shape in RECORDED[family]["shapes"].items()})


def converted(family: str, folder: Path, **changes: Tensor) -> Any:
    """The model that a file with these weights becomes."""
    torch.save({**small(family), **changes}, folder / "own.pt")
    return lodestar.load(lodestar.convert(folder / "own.pt", folder, flags=FLAGS[family]), "cpu", dtype=torch.float32)


@pytest.mark.parametrize("short", NAMES)
def test_a_preset_has_the_names_and_shapes_of_its_file(short: str) -> None:
    published = BY_SHORT[short]
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in NAMES[short].items()}
    assert recognize(FAMILIES, state, short) is published.family
    config = published.model()
    check(config, facts(published.family, state, short), short, published.name)
    assert ours(published.family, config, state, short).keys() == config.build().state_dict().keys()
    name = next(iter(state))
    for changed in ({each: value for each, value in state.items() if each != name}, {**state, name: state[name][..., None]}):
        with pytest.raises(Problem, match=name.replace(".", r"\.")):
            check(config, facts(published.family, changed, short), short, published.name)
            ours(published.family, config, changed, short)


@torch.no_grad()
def test_a_vq_vae_2_reconstructs_as_there(tmp_path: Path) -> None:
    model = converted("vqvae2", tmp_path)
    out = record.thinned(model.reconstruct(record.pictures(2, 3, 16, 16)))
    torch.testing.assert_close(out.flatten(), torch.tensor(RECORDED["vqvae2"]["output"]), rtol=1e-4, atol=1e-5)
    with pytest.raises(Problem, match=r"weights do not tell everything \(the size of pictures\).* as in --flag size=256"):
        lodestar.convert(tmp_path / "own.pt", tmp_path)
    with pytest.raises(Problem, match=r"unknown field .flags sizes.*did you mean .size"):
        lodestar.convert(tmp_path / "own.pt", tmp_path, flags={"sizes": 16})


def test_converted_autoencoders_reconstruct_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    converted("vqvae2", tmp_path)
    save_png(tmp_path / "a.png", torch.arange(3 * 16 * 16, dtype=torch.uint8).view(3, 16, 16))
    with pytest.raises(SystemExit) as stop:
        main(["edit", "reconstruct", "own.safetensors", "a.png", "--level", "top", "--out", "out"])
    assert not stop.value.code, capsys.readouterr()
    assert load_png("out/00000.png").shape == (3, 16, 16)
