"""What the readers find, on the command line: channels and labels of a run, and measuring where they are not as expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lodestar import library
from lodestar.__main__ import main
from lodestar.images import load_png

from .pictures import noise, png, write_folder, write_table

_NETWORK = "task.model.denoiser.network"
SMALL = f"{_NETWORK}.width=8 {_NETWORK}.norm_groups=4 {_NETWORK}.head_channels=8 task.model.steps=trailing:2"


def run(*words: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main([part for word in words for part in str(word).split()])
    assert not stop.value.code


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_model_of_greys_is_trained_and_measured_beside_them(here: Path) -> None:
    write_folder(here / "greys", {f"{kind}/{k}.png": noise(k, 8, 8)[..., 0] for k in range(4) for kind in ("cat", "dog")})
    run("train digits --data greys --images 64 --out run", SMALL)
    config = library.config("run")
    assert config.denoiser.channels == 1 and config.names == ("cat", "dog")
    run("evaluate run --reference greys --count 4 --steps 2 --metric nearest --out near")
    assert load_png(here / "near/neighbours.png").shape[0] == 3


@pytest.mark.parametrize("labels", [[None] * 8, [0.5] * 8, [0, None] * 4], ids=["nulls", "scores", "some"])
def test_labels_that_are_not_needed_need_not_be_right(here: Path, capsys: pytest.CaptureFixture[str], labels: list) -> None:
    spec = write_table(here / "t.parquet", [png(noise(k, 8, 8)) for k in range(8)], labels)
    run("train digits --data", spec, "task.conditional=false --images 64 --out run", SMALL)
    assert library.config("run").denoiser.classes is None
    run("stats", spec, "--out s.safetensors")
    run("evaluate", spec, "--reference", spec, "--metric precision_recall")
    assert "label" not in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "digits", "--data", spec, "--images", "64", "--out", "other"])
    assert ("no label" if None in labels and 0 in labels else "no labels are read") in capsys.readouterr().err


def test_labels_are_left_out_where_a_setting_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(here / "data", {f"{kind}/{k}.png": noise(k, 8, 8) for k in range(2) for kind in ("cat", "dog")})
    with pytest.raises(SystemExit) as stop:
        main(["train", "digits", "--data", "data", "data.labels=false", "--images", "64", "--out", "run", *SMALL.split()])
    assert stop.value.code == 2 and "labels are missing" in capsys.readouterr().err


def test_pictures_of_a_tar_are_measured(here: Path) -> None:
    import tarfile

    write_folder(here / "data", {f"{k}.png": noise(k, 8, 8) for k in range(8)})
    with tarfile.open(here / "data.tar.gz", "w:gz") as tar:
        tar.add("data")
    run("stats data.tar.gz --out tar.safetensors")
    run("stats data --out folder.safetensors")
    features = [library.checkpoint.load(here / f"{name}.safetensors", "statistics")[1]["features"] for name in ("tar", "folder")]
    assert len(features[0]) == 8 and np.array_equal(*features)
    run("evaluate data.tar.gz --reference data --metric precision_recall")
