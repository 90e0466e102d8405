"""A random kill, and the same command again: the result is that of a command which was not killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from lodestar import checkpoint
from lodestar.__main__ import main
from lodestar.tasks.denoise import DenoiseLearner
from lodestar.training.loop import train
from tests.evaluation import tiny
from tests.training.runs import assert_same, denoising, write_pictures

KINDS = ("training", "training, written behind", "sampling", "sampling into one file", "sampling the best", "evaluation")
_CALLS = ("replace", "fsync", "link", "unlink")
"""Calls of the system that a kill may come before: those by which files appear, and go."""
_TRIES = 20


class Faults:
    """The commands, in a folder, with their results where nothing is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "native").mkdir()
        write_pictures(folder / "pictures")
        tiny.folder(folder / "reference", 12)
        for name, kind, made in (
            ("model", "diffusion", tiny.diffusion()),
            ("guide", "classifier", tiny.classifier()),
            ("extractor", "classifier", tiny.classifier(2)),
        ):
            checkpoint.save(folder / f"{name}.safetensors", kind, made.config.to_json(), made.state_dict(), {})
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([__name__, "lodestar.cli", "lodestar.library"])
        self.whole: dict[str, tuple[Path, float, int]] = {}
        """By kind, the folder of the result, the seconds that it took, and the number of calls that a kill may come before."""

    def __call__(self, seed: int) -> str:
        """Kill a command by the numbers of a seed, give it again and compare; returns the kind. Raises AssertionError."""
        rng = random.Random(seed)
        kind = rng.choice(KINDS)
        if kind not in self.whole:
            out = self.folder / "whole" / kind
            began, calls = time.monotonic(), self._run(kind, out)
            self.whole[kind] = out, time.monotonic() - began, calls
        whole, seconds, calls = self.whole[kind]
        out = self.folder / "killed" / f"{seed}"
        for _ in range(_TRIES):
            at = rng.randrange(calls) if rng.random() < 0.5 else None
            if self._killed(kind, out, at, rng.random() * seconds):
                break
            shutil.rmtree(out)  # it was done before
        else:
            raise AssertionError(f"no kill in {_TRIES} commands of kind {kind!r}")
        there = {path: path.stat().st_mtime_ns for path in out.rglob("[0-9]*.png")}
        self._run(kind, out)
        self._compare(kind, whole, out)
        for path, written in there.items():
            assert not path.exists() or path.stat().st_mtime_ns == written, f"{path} was made twice"
        return kind

    def _run(self, kind: str, out: Path) -> int:
        """Run a command to its end; returns the number of calls."""
        process, told = self._start(kind, out, None)
        calls = told.recv()  # that it begins
        while told.poll(None):
            try:
                calls = told.recv()
            except EOFError:
                break
        process.join()
        assert process.exitcode == 0, f"{kind}: status {process.exitcode}"
        return int(calls)

    def _killed(self, kind: str, out: Path, at: int | None, seconds: float) -> bool:
        """True if a command was killed: before a call of this number, or after so many seconds."""
        process, told = self._start(kind, out, at)
        told.recv()
        if at is None:
            time.sleep(seconds)
            process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), f"{kind}: status {process.exitcode}"
        return bool(process.exitcode)

    def _start(self, kind: str, out: Path, at: int | None) -> tuple[ForkServerProcess, Connection]:
        mine, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_work, args=(kind, self.folder, out, at, theirs))
        process.start()
        theirs.close()
        return process, mine

    def _compare(self, kind: str, whole: Path, out: Path) -> None:
        if kind.startswith("training"):
            assert_same(whole, out)
        elif kind == "evaluation":
            a, b = (json.loads((each / "report.json").read_text())["numbers"] for each in (whole, out))
            assert a == b
        else:
            a, b = ({str(path.relative_to(each)): path.read_bytes() for path in each.rglob("*.*")} for each in (whole, out))
            assert a == b and len(a) > 1


def _work(kind: str, folder: Path, out: Path, at: int | None, told: Connection) -> None:
    """The command, in a process of its own: it tells that it begins, and at its end how many calls it made."""
    torch.set_num_threads(1)
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    cache = out.with_name(f"{out.name}-cache")
    cache.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (cache / "native").symlink_to(folder / "native")  # the kernels are built once
    os.environ |= {"LODESTAR_CACHE": str(cache), "LODESTAR_PRECISION": "float32"}
    made = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def before(*given: Any, **more: Any) -> Any:
            nonlocal made
            if made == at:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1
            return call(*given, **more)

        return before

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))
    told.send(0)
    if kind.startswith("training"):
        DenoiseLearner.preview = lambda _: None  # type: ignore[method-assign, assignment, return-value]
        behind = kind.endswith("behind")
        train(denoising(str(folder / "pictures"), images=48, save_every=16, log_every=16, save_behind=behind, keep=2), out)
    else:
        try:
            main([str(each) for each in _command(kind, folder, out)])
        except SystemExit as end:
            assert not end.code
    told.send(made)


def _command(kind: str, folder: Path, out: Path) -> tuple[object, ...]:
    model = folder / "model.safetensors"
    if kind == "evaluation":
        against = ("--reference", folder / "reference", "--extractor", folder / "extractor.safetensors", "--metric", "frechet")
        return ("evaluate", model, "--count", 8, "--steps", 2, "--batch-size", 2, *against, "--out", out)
    more = {"sampling into one file": ("--npz",), "sampling the best": ("--best-of", 2, "--judge", folder / "guide.safetensors")}
    return ("sample", model, "--label", "dog=8", "--steps", 2, "--batch-size", 2, *more.get(kind, ()), "--out", out)
