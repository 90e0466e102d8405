"""`--plugin`: parts of a user's own are used by name, and a module that is missing or fails is refused in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lodestar.__main__ import main
from lodestar.images import load_png
from tests.evaluation import tiny

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"


def lodestar(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own: kinds stay registered as long as a process lives."""
    return subprocess.run(
        [sys.executable, "-m", "lodestar", *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "mine.py").write_text("\n".join(code))
    tiny.diffusion().save(tmp_path / "model.safetensors")
    return tmp_path


def test_the_parts_of_the_page_are_used_by_name_and_remade(folder: Path) -> None:
    sample = ("sample", "model.safetensors", "--label", "dog=2", "--steps", "4", "--precision", "float32")
    own = ("--guidance", "shrink:0.5", "--sampler", "straight")
    for name, before, more in (
        ("euler", (), ("--sampler", "euler")),
        ("straight", ("--plugin", "mine"), ("--sampler", "straight")),
        ("own", ("--plugin", "mine.py"), own),
    ):
        made = lodestar(folder, *before, *sample, *more, "--out", name)
        assert made.returncode == 0, made.stderr
    again = lodestar(folder, "--plugin", "mine.py", "remake", "own", "--picture", "1", "--out", "again")
    assert again.returncode == 0, again.stderr
    euler, straight, mine, remade = (
        load_png(folder / name / "00001.png").int() for name in ("euler", "straight", "own", "again")
    )
    assert (straight - euler).abs().max() <= 1 and (remade - mine).abs().max() == 0
    assert (mine - 127).abs().sum() < (straight - 127).abs().sum()
    without = lodestar(folder, *sample, *own, "--out", "none")
    assert without.returncode == 2 and "unknown sampler 'straight'" in without.stderr and without.stderr.count("\n") == 1


def test_a_network_a_condition_a_data_set_and_a_metric_are_used_by_name(folder: Path) -> None:
    settings = ('task.model.denoiser.network={"kind":"column"}', "train.batch_size=8", "data.workers=0")
    conditions = 'task.model.denoiser.conditions=[{"kind":"label","classes":2},{"kind":"brightness"}]'
    made = lodestar(
        folder, "--plugin", "mine.py", "train", "digits", "--data", "stripes", "--out", "run", "--images", "16",
        *settings, conditions,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    made = lodestar(folder, "--plugin", "mine.py", "sample", "run", "--label", "1=2", "--steps", "4", "--out", "out")
    assert made.returncode == 0 and (folder / "out" / "00001.png").exists(), made.stderr
    measured = lodestar(
        folder, "--plugin", "mine.py", "evaluate", "run", "--reference", "stripes", "--metric", "spread", "--count", "8",
        "--extractor", "cifar10_features",
    )  # fmt: skip
    assert measured.returncode == 0 and "spread" in measured.stdout, measured.stderr
    for arguments, said in (
        (("train", "digits", "--data", "stripes", "--out", "none"), "no data 'stripes'"),
        (("sample", "run", "--out", "none"), "network 'column'"),
        (("evaluate", "out", "--reference", "out", "--metric", "spread"), "unknown metric 'spread'"),
    ):
        without = lodestar(folder, *arguments)
        assert without.returncode == 2 and said in without.stderr and without.stderr.count("\n") == 1, without.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module", "--plugin no_such_module: ModuleNotFoundError: "),
        ("no.py", "--plugin no.py: FileNotFoundError: "),
        ("bad.py", "--plugin bad.py: ZeroDivisionError: division by zero"),
        ("wrong.py", "--plugin wrong.py: SyntaxError: "),
        ("leaves.py", "--plugin leaves.py: SystemExit: 3"),
    ],
)
def test_a_module_that_is_missing_or_fails_is_named_in_one_line(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for file, code in (("bad", "1 / 0"), ("wrong", "def"), ("leaves", "raise SystemExit(3)")):
        Path(f"{file}.py").write_text(code)
    with pytest.raises(SystemExit) as stop:
        main(["--plugin", name, "info", "cifar10"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and said in line
