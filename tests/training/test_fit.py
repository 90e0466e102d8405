"""Forecasts of a run's memory and time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lodestar.__main__ import main
from lodestar.config import Problem
from lodestar.training import memory
from lodestar.training.fit import MEMORY_SHARE, Forecast, Measured, forecast

from .runs import classifying, denoising

MIB = 2**20


def made(run: object = None, **settings: object) -> Forecast:
    """A forecast of a run of batch 64, whose steps on 1, 2 and 4 pictures were measured."""
    steps = (Measured(1, 30, 5, 0.1), Measured(2, 40, 17, 0.15), Measured(4, 60, 41, 0.25))
    run = denoising("pictures", batch_size=64, microbatch=None, images=6400)
    given = {"parameters": 5, "weights": 20, "optimizer": 40, "averages": 20, "gradients": 20, "program": 100, "memory": 1000}
    return replace(Forecast(run, "cuda", "float32", steps=steps, **given), **settings)  # type: ignore[arg-type]


def test_memory_grows_evenly_with_the_pictures_at_once() -> None:
    found = made()
    assert found.state == 180
    # All of the batch in one piece, by the forward pass; smaller pieces also hold the gradients of those before.
    assert found.peak(64) == 180 + 41 + 60 * 12
    assert [found.peak(count) - found.gradients - found.state for count in (1, 2, 3, 4, 5)] == [30, 40, 50, 60, 70]
    assert found.peak(13) == 180 + 20 + 60 + 9 * 10 and found.peak(14) == 180 + 20 + 41 + 10 * 12, "where the lines cross"
    alone = made(steps=(Measured(2, 40, 34, 0.1),))
    assert alone.peak(64) == 180 + 32 * 34 and made(steps=(Measured(2, 40, 3, 0.1),)).peak(64) == 180 + 20 + 32 * 20


@pytest.mark.parametrize("memory", [200, 300, 500, 700, 941 / MEMORY_SHARE, 10_000])
def test_the_largest_piece_fits_and_the_next_one_does_not(memory: float) -> None:
    found = made(memory=int(memory))
    fits = [count for count in range(1, 65) if found.peak(count) <= MEMORY_SHARE * found.memory]
    assert found.largest == max(fits, default=0)
    assert ("not one picture at once fits" in found.told()) == (not fits)


def test_time_is_that_of_the_largest_measured_piece() -> None:
    assert made().images_per_second == 16 and made(processes=4).images_per_second == 64
    assert "6,400 images, 16 images/s with 4 at once" in made().told() and "about 6.7 minutes" in made().told()
    assert made(processes=4).share == 16


def test_what_stays_from_step_to_step_is_counted(pictures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # By tensors, which are exact: so small a step takes a few pages of memory.
    monkeypatch.setattr(memory, "_REFS", Path("/nowhere/clear_refs"))
    found = forecast(classifying(pictures, precision="float32"), "cpu")
    assert found.weights == found.gradients == 4 * found.parameters
    assert found.averages == 2 * found.weights, "two averages"
    assert found.optimizer == pytest.approx(2 * found.weights, rel=0.01), "two moments"
    assert [each.pictures for each in found.steps] == [1, 2, 4, 8]
    working = [each.working for each in found.steps]
    assert working == sorted(working) and working[-1] > found.gradients
    forward = [each.forward for each in found.steps]
    assert forward[3] - forward[2] == pytest.approx(2 * (forward[2] - forward[1]), rel=0.1) and forward[-1] < working[-1]


def test_pieces_and_processes_are_told(pictures: str) -> None:
    found = forecast(denoising(pictures, batch_size=20, microbatch=3), "cpu", processes=2)
    assert found.share == 10 and found.piece == 3 and found.steps[-1].pictures == 3
    with pytest.raises(Problem, match="batch size 20 for 21 processes"):
        forecast(denoising(pictures, batch_size=20), "cpu", processes=21)


@pytest.mark.parametrize(
    "way",
    [pytest.param("resident", marks=pytest.mark.skipif(sys.platform != "linux", reason="peaks are told by Linux")), "tensors"],
)
def test_a_forecast_is_near_the_peak_of_a_process_that_trains(way: str) -> None:
    """Of steps on 16 pictures, for 96 at once: within 15 %, by the system's peak of small pieces or by their tensors."""
    code = """
import resource, sys, torch
from pathlib import Path
from lodestar.config import edit
from lodestar.data import Shuffled
from lodestar.presets import RUNS
from lodestar.training import fit, memory
from lodestar.training.inputs import Given
from lodestar.training.pace import prepared
from lodestar.training.start import start
from lodestar.training.step import Step
run = edit(RUNS["cifar10"](), [{"train.batch_size": 96, "train.precision": "float32"}])
if sys.argv[1] == "tensors":
    memory._REFS = Path("/nowhere/clear_refs")
if sys.argv[1] != "taken":
    found = fit.forecast(run, "cpu", noise=True, most=16)
    print(found.peak(96))
else:
    run, source, facts = prepared(run, "cpu", Given(fit.Noise(run)))
    step = Step(run, start(run, Path("/dev/null"), "cpu", facts=facts))
    batches = Shuffled(source, 96, run.data.transforms, workers=0).batches(0)
    step(next(batches)), step(next(batches))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    # A process's peak begins with that of the process which starts it: a small shell stands between.
    foretold, taken = (
        int(subprocess.check_output(["sh", "-c", '"$0" -c "$1" "$2"; exit $?', sys.executable, code, which], text=True))
        for which in (way, "taken")
    )
    assert taken > 600 * MIB
    assert foretold == pytest.approx(taken, rel=0.15)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are told by Linux")
def test_memory_outside_of_tensors_counts_and_each_peak_is_its_own() -> None:
    cpu = torch.device("cpu")
    taken = [memory.beside(lambda size=size: bytearray(size * MIB), cpu) for size in (256, 32)]  # type: ignore[misc]
    assert taken == pytest.approx([256 * MIB, 32 * MIB], rel=0.05)


def test_the_command_tells_a_forecast_of_random_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "digits", "--batch-size", "4", "--precision", "float32", "--device", "cpu", "--memory", "64"])
    told = capsys.readouterr().out
    assert not stop.value.code and "activations of 4 at once" in told and "64.000" in told
    assert "the most pictures at once that fit: all 4" in told and "for 60,000 images" in told
