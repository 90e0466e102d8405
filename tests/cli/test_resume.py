"""A sampling that was killed at any file goes on with the same command, makes the missing pictures alone, and ends the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lodestar import checkpoint
from lodestar.__main__ import main
from lodestar.generators.base import Generator
from tests.evaluation import tiny

WAYS: dict[str, tuple[object, ...]] = {"pictures": (), "one file": ("--npz",), "the best": ("--best-of", 2, "--npz")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, kind, made in (("model", "diffusion", tiny.diffusion()), ("guide", "classifier", tiny.classifier())):
        checkpoint.save(folder / f"{name}.safetensors", kind, made.config.to_json(), made.state_dict(), {})
    return folder / "model.safetensors"


def command(model: Path, way: str, out: Path) -> list[str]:
    judge = ("--judge", model.parent / "guide.safetensors") if way == "the best" else ()
    given = ("sample", model, "--label", "dog=5", "--steps", 2, "--batch-size", 2, *WAYS[way], *judge, "--out", out)
    return [str(each) for each in given]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Kill(BaseException):
    """The end of a process."""


def killed(monkeypatch: pytest.MonkeyPatch, file: int, arguments: list[str]) -> bool:
    """True if the command ended when it would put its file of this number in its place; false if it has fewer."""
    replace, left = os.replace, iter(range(file))

    def put(*paths: Any) -> None:
        if next(left, None) is None:
            raise Kill
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", put)
        try:
            return run(*arguments) != 0
        except Kill:
            return True


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of all pictures that are sampled."""
    sampled: list[int] = []
    stream = Generator.stream

    def counted(self: Generator, asked: Any, **how: Any) -> Any:
        for frame in stream(self, asked, **how):
            if frame.final:
                sampled.extend(asked.seeds[frame.first : frame.first + len(frame.x)])
            yield frame

    monkeypatch.setattr(Generator, "stream", counted)
    return sampled


@pytest.mark.parametrize("way", WAYS)
def test_a_sampling_killed_at_any_file_ends_as_if_it_had_not_been(
    way: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: list[int]
) -> None:
    assert run(*command(model, way, tmp_path / "whole")) == 0
    whole, several = contents(tmp_path / "whole"), sorted(seeds)
    assert not (tmp_path / "whole-candidates").exists()
    file = 0
    while killed(monkeypatch, file, command(model, way, tmp_path / "out")):
        seeds.clear()
        assert run(*command(model, way, tmp_path / "out")) == 0
        assert contents(tmp_path / "out") == whole and not (tmp_path / "out-candidates").exists()
        # The first file is the manifest, the next ones are the pictures.
        assert sorted(seeds) == several[max(file - 1, 0) :]
        shutil.rmtree(tmp_path / "out")
        file += 1
    assert file > len(several), "every picture is a file of its own on the way"


def test_a_killed_process_leaves_what_goes_on(model: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from lodestar.__main__ import main\n"
        "replace, files = os.replace, iter(range(4))\n"
        "os.replace = lambda *paths: replace(*paths) if next(files, None) is not None else os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(sys.argv[1:])\n"
    )
    assert run(*command(model, "one file", tmp_path / "whole")) == 0
    arguments = command(model, "one file", tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((tmp_path / "out" / "parts").glob("*.png"))) == 3
    assert run(*arguments) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_finished_sampling_makes_nothing_and_another_request_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seeds: list[int]
) -> None:
    arguments = command(model, "pictures", tmp_path / "out")
    assert run(*arguments) == 0 and len(seeds) == 5
    assert run(*arguments) == 0 and len(seeds) == 5
    (tmp_path / "out" / "00003.png").unlink()
    assert run(*arguments) == 0 and seeds[5:] == [3]
    capsys.readouterr()
    assert run(*arguments, "--seed", "1") == 2
    assert "pictures of another request" in capsys.readouterr().err
