"""However a run is stopped, the same command ends it as if it had not been."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lodestar import checkpoint, files
from lodestar.config import Problem, decode
from lodestar.core.draws import LossSecondMoment
from lodestar.core.schedule import Cosine
from lodestar.data import DataFacts
from lodestar.models.first import upgraded
from lodestar.tasks.denoise import DenoiseLearner
from lodestar.training import loop
from lodestar.training.loop import train
from lodestar.training.names import STATE
from lodestar.training.run import Run
from lodestar.training.start import start
from lodestar.training.step import Step, pieces

from . import runs
from .runs import assert_same, denoising, logged, saved, write_pictures

FACTS = DataFacts(3, (8, 8), ("a", "b", "c"))


def stop_at(monkeypatch: pytest.MonkeyPatch, images_seen: int, stop: Any) -> None:
    """Call `stop` in the middle of the step that begins at images_seen: after the optimizer's update, before the averages'."""
    phases = Step._phases

    def stopped(self: Step, *args: Any) -> Any:
        values = phases(self, *args)
        if self.state.counters.images_seen == images_seen:
            stop()
        return values

    monkeypatch.setattr(Step, "_phases", stopped)


def fail() -> None:
    raise RuntimeError("power cut")


@pytest.mark.parametrize("images_seen", [24, 40, 88])
def test_a_run_that_died_goes_on_to_the_same_bits(
    images_seen: int, pictures: str, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, images_seen, fail)
        with pytest.raises(RuntimeError):
            train(denoising(pictures), tmp_path / "run")
    # The checkpoint is older than where the run died, so that something is done twice.
    assert (tmp_path / "run" / STATE).exists() == (images_seen >= 32)
    train(denoising(pictures), tmp_path / "run")
    assert_same(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("images_seen", [48, 64])
def test_a_run_whose_batches_grow_goes_on_to_the_same_bits(
    images_seen: int, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = denoising(pictures, batch_doublings=(0.3, 0.6))
    train(run, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, images_seen, fail)
        with pytest.raises(RuntimeError):
            train(run, tmp_path / "run")
    train(run, tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_what_is_remembered_of_losses_is_saved_with_the_run(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, levels = denoising(pictures), LossSecondMoment(history=2)
    model = run.task.model.replace(schedule=Cosine(timesteps=4), steps="4")
    run = run.replace(task=run.task.replace(levels=levels, model=model))
    train(run, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 72, fail)
        with pytest.raises(RuntimeError):
            train(run, tmp_path / "run")
    _, tensors = saved(tmp_path / "run")
    memory = {name: tensors[f"memory/{name}"] for name in ("history", "counts")}
    assert levels.weights(memory).unique().numel() == 4, "by image 64 the draws follow the losses"
    train(run, tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")
    state = start(run.replace(task=run.task.resolve(FACTS)), tmp_path / "run")
    del tensors["memory/counts"]
    with pytest.raises(Problem, match="what the run remembers, 'counts', is missing"):
        state.restore(tensors, Path("there"))


@pytest.mark.parametrize("file", [1, 7])
def test_a_killed_run_goes_on_to_the_same_bits(file: int, pictures: str, uninterrupted: Path, tmp_path: Path) -> None:
    """Files are put in place as run, model, second model, state (at 32), model, second model, state (at 64), and so on."""
    folder = tmp_path / "run"
    done = subprocess.run([sys.executable, runs.__file__, pictures, str(folder), str(file)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(files.is_temporary(path) for path in folder.iterdir())
    assert (folder / STATE).exists() == (file > 4)
    train(denoising(pictures), folder)
    assert_same(folder, uninterrupted)
    assert not any(files.is_temporary(path) for path in folder.rglob("*"))


def test_ctrl_c_ends_the_step_saves_and_interrupts(
    pictures: str, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    # Tests that run in the background have been told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            stop_at(patch, 40, lambda: os.kill(os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                train(denoising(pictures), folder)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert saved(folder)[0]["images_seen"] == 48
    train(denoising(pictures), folder)
    assert_same(folder, uninterrupted)


def test_a_longer_run_goes_on_where_the_shorter_one_ended(pictures: str, tmp_path: Path) -> None:
    steady = denoising(pictures).train.optimizer.replace(fall="none")
    train(denoising(pictures, images=64, optimizer=steady), tmp_path / "run")
    train(denoising(pictures, images=96, optimizer=steady), tmp_path / "run")
    train(denoising(pictures, images=96, optimizer=steady), tmp_path / "whole")
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_is_left_alone(pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(denoising(pictures, images=16), tmp_path)
    before = (tmp_path / STATE).read_bytes()
    monkeypatch.setattr(loop, "Step", fail)
    train(denoising(pictures, images=16), tmp_path)
    assert (tmp_path / STATE).read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    call: str, pictures: str, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real, calls = tmp_path / "run", getattr(os, call), 0

    def full(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        # The first checkpoint fits (run, two models, state), and so do the models of the second one, not its state.
        if calls > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, full)
        with pytest.raises(Problem, match=r"^cannot write .*state\.safetensors: No space left on device$"):
            train(denoising(pictures), folder)
    assert saved(folder)[0]["images_seen"] == 32
    checkpoint.load(folder / "model.safetensors", "diffusion")
    assert not any(files.is_temporary(path) for path in folder.rglob("*"))
    train(denoising(pictures), folder)
    assert_same(folder, uninterrupted)


def test_a_checkpoint_with_a_changed_byte_is_refused(pictures: str, tmp_path: Path) -> None:
    train(denoising(pictures, images=16), tmp_path)
    data = bytearray((tmp_path / STATE).read_bytes())
    data[-5] ^= 1
    (tmp_path / STATE).write_bytes(data)
    with pytest.raises(Problem, match=r"state\.safetensors has been changed since it was written"):
        train(denoising(pictures, images=32), tmp_path)


def test_a_run_of_an_earlier_version_goes_on_to_what_that_version_ended_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder was written at image 40 by commit 4b845cd, and so was what its run to image 72 logged and weighed.

    Twelve of `write_pictures`; losses remembered, labels dropped, pictures flipped, one average.
    """
    monkeypatch.chdir(tmp_path)
    # It was to be sampled in 20 steps of a chain that has four, which nothing looked at where previews are left out.
    monkeypatch.setattr(DenoiseLearner, "check", lambda _: None)
    write_pictures(tmp_path / "pictures", 12)
    with zipfile.ZipFile(Path(__file__).with_name("earlier_run.zip")) as archive:
        archive.extractall(tmp_path)
    run = decode(Run, upgraded((tmp_path / "run" / "run.json").read_text()))
    assert saved(tmp_path / "run")[0]["images_seen"] == 40
    train(run.replace(train=run.train.replace(images=72)), tmp_path / "run")
    expected = json.loads((tmp_path / "expected.json").read_text())
    assert logged(tmp_path / "run") == [pytest.approx(line, rel=1e-4) for line in expected["log"]]
    _, weights = checkpoint.load(tmp_path / "run" / "model.safetensors", "diffusion")
    sizes = {name: value.double().square().mean().sqrt().item() for name, value in weights.items()}
    assert sizes == pytest.approx(expected["weights"], rel=1e-4, abs=1e-7)


def test_the_optimizers_state_is_restored_in_the_parameters_own_order_in_memory(pictures: str, tmp_path: Path) -> None:
    """A fused optimizer walks through both as they lie in memory; a file keeps no such order."""
    train(denoising(pictures, images=16), tmp_path)
    state = start(denoising(pictures, images=16).replace(task=_resolved(pictures)), tmp_path)
    layouts = {
        (parameter.stride(), slots["exp_avg"].stride())
        for optimizer in state.optimizers.values()
        for parameter, slots in optimizer.state.items()
    }
    assert all(ours == theirs for ours, theirs in layouts)
    assert any(len(stride) == 4 and stride[1] == 1 and stride[0] > 9 for stride, _ in layouts)


def _resolved(pictures: str) -> Any:
    return denoising(pictures).task.resolve(FACTS)


def test_rows_are_cut_into_pieces_whole() -> None:
    assert list(pieces(slice(2, 9), 3)) == [slice(2, 5), slice(5, 8), slice(8, 9)]
    assert list(pieces(slice(2, 9), None)) == [slice(2, 9)]
