"""The same pictures, losses, weights and conversions as before the house was rebuilt, and manifests of that time still remade."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from lodestar.__main__ import main
from lodestar.images import load_png
from tests.recorded import commands

PICTURES = load_file(commands.RECORD)
NUMBERS = json.loads(commands.NUMBERS.read_text())


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, Any], Path]:
    """What the recorded commands give now, and the folder that they ran in."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LODESTAR_CACHE", str(folder / "cache"))
        commands.run(folder)
    return *commands.results(folder), folder


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Numbers and texts of nested JSON by their places."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, inner in entries for name, leaf in leaves(inner, f"{path}/{key}").items()}
    return {path: value}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(now: tuple[dict[str, Tensor], dict[str, Any], Path], name: str) -> None:
    """Exact on the machine that made the record; another processor rounds differently, which a value at an edge shows."""
    difference = (now[0][name].int() - PICTURES[name].int()).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(now: tuple[dict[str, Tensor], dict[str, Any], Path], name: str) -> None:
    """Losses and gradients of a few steps, weights after them, measures of pictures, and the bits of converted weights."""
    expected = leaves(NUMBERS[name])
    assert leaves(now[1][name]) == {
        path: leaf if isinstance(leaf, str) else pytest.approx(leaf, rel=1e-3, abs=1e-6) for path, leaf in expected.items()
    }


@pytest.mark.parametrize("path", sorted(commands.MANIFESTS.glob("*.json")), ids=lambda path: path.stem)
def test_an_old_manifest_is_remade(now: tuple[dict[str, Tensor], dict[str, Any], Path], tmp_path: Path, path: Path) -> None:
    """Those of edits stand beside the pictures that they are made of."""
    beside = now[2] / path.stem
    (beside / "manifest.json").write_bytes(path.read_bytes())
    with pytest.raises(SystemExit) as stop:
        main(["remake", str(beside), "--picture", "0", "--out", str(tmp_path)])
    assert not stop.value.code
    made, known = load_png(tmp_path / "00000.png"), PICTURES[f"pictures/{path.stem}"][0].permute(2, 0, 1)
    assert (made.int() - known.int()).abs().max() <= 2
