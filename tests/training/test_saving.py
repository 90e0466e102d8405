"""Checkpoints written behind the training, and the earlier ones that are kept."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lodestar import checkpoint
from lodestar.config import Problem
from lodestar.training.loop import train
from lodestar.training.names import STATE
from lodestar.training.saving import Saving, kept

from .runs import assert_same, denoising


def test_files_written_behind_the_training_are_the_same(pictures: str, uninterrupted: Path, tmp_path: Path) -> None:
    train(denoising(pictures, save_behind=True), tmp_path / "run")
    assert_same(tmp_path / "run", uninterrupted)


def test_the_last_states_are_kept_and_gone_on_from(pictures: str, uninterrupted: Path, tmp_path: Path) -> None:
    folder, run = tmp_path / "run", denoising(pictures, keep=2)
    train(run, folder)
    assert [each.name for each in kept(folder)] == ["state-000000000064.safetensors"]
    train(run.replace(train=run.train.replace(keep=1)), folder)  # it is done, and nothing is saved
    (folder / STATE).write_bytes(b"damaged")
    with pytest.raises(Problem, match=r"the state before is .*state-000000000064\.safetensors: move it there"):
        train(run, folder)
    kept(folder)[0].rename(folder / STATE)
    assert checkpoint.peek(folder / STATE).provenance["images_seen"] == 64
    train(run, folder)
    assert_same(folder, uninterrupted)


def test_files_are_written_one_after_another_and_none_after_one_that_failed() -> None:
    saving, written, may = Saving(behind=True), list[int](), threading.Event()

    def fail() -> None:
        raise Problem("cannot write: the disk is full")

    saving(may.wait)  # type: ignore[arg-type]
    saving(lambda: written.append(1))
    assert not written, "the caller goes on"
    may.set()
    saving.wait()
    assert written == [1]
    saving(fail)
    saving(lambda: written.append(2))
    with pytest.raises(Problem, match="the disk is full"):
        saving.wait()
    saving(lambda: written.append(3))
    saving.close()
    assert written == [1, 3]
