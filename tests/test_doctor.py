"""`lodestar doctor`: what is broken is named, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lodestar import checkpoint, doctor
from lodestar.__main__ import main
from lodestar.training.names import RUN
from lodestar.training.run import Run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No forward passes, which take seconds, but in the test of them."""
    monkeypatch.setattr(doctor, "_speed", lambda device: iter(()))


def told(*arguments: object) -> list[doctor.Finding]:
    data, paths = ([str(each) for each in arguments if isinstance(each, kind)] for kind in (str, Path))
    found = list(doctor.examine("cpu", data, paths, 10))
    assert [each.part for each in found[:3]] == ["device", "cache", "kernels"] and not any(each.broken for each in found[:5])
    return found[5:]


def pictures(folder: Path) -> Path:
    for number in range(30):
        path = folder / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9 + number, 8, 3), number, np.uint8)).save(path)
    return folder


def test_data_are_read_and_bad_pictures_counted(tmp_path: Path) -> None:
    (fine,) = told(str(pictures(tmp_path / "pictures")))
    assert not fine.broken and fine.told == "30 pictures, 3 channels, 2 classes; 10 of them were read"
    (tmp_path / "pictures" / "a" / "00.png").write_bytes(b"no picture")
    (bad,) = told(str(tmp_path / "pictures"))
    assert bad.broken and bad.told.startswith("1 of 10 pictures cannot be read, the first: ") and "00.png" in bad.told
    (none,) = told(str(tmp_path / "nothing"))
    assert none.broken and "no data" in none.told


def test_checkpoints_are_read_whole(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / RUN).write_text(Run().to_json())
    assert [str(each) for each in told(run)] == [f"ok     run {run}: no checkpoint yet"]
    for name, value in (("state", torch.zeros(3)), ("model", torch.tensor([1.0, torch.nan]))):
        checkpoint.save(run / f"{name}.safetensors", "state", "{}", {"weights/a": value}, {"images_seen": 4096})
    model, state = told(run)
    assert model.broken and "'weights/a' has numbers that are not finite" in model.told
    assert not state.broken and state.told == "state, 0.00 million numbers, of image 4,096, whole"
    file = run / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert "has been changed since it was written" in told(file)[0].told
    file.write_bytes(file.read_bytes()[:-3])
    assert told(file)[0].broken and "cut short" in told(file)[0].told


def test_the_command_ends_with_status_2_if_anything_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for paths, status in (([], 0), ([str(tmp_path / "nothing.safetensors")], 2)):
        with pytest.raises(SystemExit) as stop:
            main(["doctor", "--device", "cpu", *paths])
        assert (stop.value.code or 0) == status
    assert capsys.readouterr().out.splitlines()[-1].startswith("BROKEN checkpoint ")


def test_formats_that_do_not_agree_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    speed, pictures = doctor._speed("cpu")
    assert not speed.broken and not pictures.broken and "8 pictures of cifar10 in " in speed.told
    monkeypatch.setattr(doctor, "_FAR", -1.0)
    assert list(doctor._speed("cpu"))[1].broken
