"""What nobody means on a command line is refused before any work, in one line that can be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from lodestar import cli
from lodestar.__main__ import main
from lodestar.config import Problem
from lodestar.denoiser import Denoiser
from lodestar.evaluation.axes import axis
from tests.evaluation import tiny


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--count", 10**8, "less than or equal to 10000000"),
        ("--batch-size", 10**8, "less than or equal to 100000"),
        ("--seed", 2**64, "less than or equal to 18446744073709551615"),
        ("--best-of", 10**8, "less than or equal to 10000"),
        ("--label", "dog=100000000", "'100000000' is not a count of at least 1, with all others of 10,000,000 at most"),
        ("--label", f"dog={'9' * 5_000}", "is not a count of at least 1"),
        ("--sampler", "x" * 10**6, "unknown sampler"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_option_that_nobody_means(
    option: str, value: object, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = refusal(capsys, "sample", "cifar10", option, value, "--out", "out")
    assert said in line
    assert len(line) < 5_000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "sample cifar10 --out file/out",
        "evaluate cifar10 --out file/out",
        "sweep cifar10 --guidance cfg --scales 1,2 --out file/out",
        "stats digits --size 32 --extractor cifar10_features --out file/out.safetensors",
        "demo --out file/out",
        "evaluate cifar10 --reference digits --metric bpd --out file/out",
        "edit sdedit cifar10 picture.png --out file/out",
        "remake album --picture 0 --out file/out",
        "label digits --out file/out.parquet",
        "train digits --out file/out",
        "distill cifar10 --data digits --from 4 --to 2 --out file/out",
        "ablate digits --images 8 --out file/out",
        "export cifar10 file/out",
        "convert openai/adm-64 --out file/out",
    ],
    ids=lambda command: " ".join(command.split()[:2]),
)
def test_a_place_that_cannot_be_written_to_is_told_before_any_work(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _idle(monkeypatch)
    Path("file").touch()
    assert refusal(capsys, *command.split()).startswith("lodestar: cannot write file/out")


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("sample cifar10", "out"),
        ("evaluate cifar10 --reference digits --metric bpd", "out"),
        ("sweep cifar10 --guidance cfg --scales 1,2", "out"),
        ("edit sdedit cifar10 picture.png", "out"),
        ("remake album --picture 0", "out"),
        ("demo", "out"),
        ("train digits", "runs"),
        ("distill cifar10 --data digits --from 4 --to 2", "runs"),
        ("ablate digits --images 8", "runs"),
        ("convert openai/adm-64", "models"),
    ],
    ids=lambda value: " ".join(value.split()[:2]),
)
def test_a_usual_place_that_cannot_be_written_to_is_told_before_any_work(
    command: str, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _idle(monkeypatch)
    Path(place).touch()
    assert refusal(capsys, *command.split()).startswith(f"lodestar: cannot write {place}")


def _idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands are about fails; a picture and an album are there."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("it has begun")

    Image.new("RGB", (32, 32)).save("picture.png")
    tiny.diffusion().sample(count=1, steps=2).save("album")
    monkeypatch.setattr(Denoiser, "output", work)
    monkeypatch.setattr("lodestar.evaluation.cluster.sequential", work)
    monkeypatch.setattr("lodestar.training.loop.open_data", work)
    monkeypatch.setattr("lodestar.conversion.published.Published.fetch", work)
    monkeypatch.setattr("lodestar.library.load_origin", work)


def test_a_sweep_over_more_than_anybody_waits_for() -> None:
    with pytest.raises(Problem, match=r"^sweep over scale: 100,000 values are given, and at most 1,000 are gone through$"):
        axis("scale", range(100_000))


@pytest.mark.parametrize("name", ["x" * 5_000, "a/" * 3_000, "\udcff", "x\0y", "pipe"])
def test_a_name_that_no_system_takes_is_no_model(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    assert "no model" in refusal(capsys, "info", name)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")],
)
def test_a_lack_of_memory_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert "not enough memory" in refusal(capsys, "info", "x")


def test_another_error_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(RuntimeError, match="ours"):
        main(["info", "x"])
