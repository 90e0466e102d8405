"""Runs over processes: torchrun's commands, of which every number of processes gives the run of one, up to rounding."""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lodestar.config import Problem
from lodestar.core.draws import LossSecondMoment
from lodestar.core.schedule import Cosine
from lodestar.data import Batch
from lodestar.tasks import OptimizerConfig
from lodestar.training import loop
from lodestar.training.names import STATE
from lodestar.training.run import Run
from lodestar.training.sharding import check_shards
from lodestar.training.state import TrainState
from lodestar.training.step import Step
from lodestar.world import World, local

from .runs import denoising, logged, saved

LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
LEFT = "a thread of the group is left"
ENVIRONMENT = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}


def learning(pictures: str, images: int = 98) -> Run:
    """A run whose levels follow its losses, with dropout, dropped labels, and weights that move."""
    run = denoising(pictures, images=images, optimizer=OptimizerConfig(rate=1e-3, clip=0.5), batch_size=7, preview_every=images)
    model = run.task.model.replace(schedule=Cosine(timesteps=4), steps="4")  # type: ignore[union-attr]
    return run.replace(task=run.task.replace(model=model, levels=LossSecondMoment(history=2)))


def command(pictures: str, folder: Path, images: int, processes: int, *how: str) -> list[str]:
    """The command that trains a run on so many processes; on one without a launcher."""
    launch = [*LAUNCH, str(processes)] if processes > 1 else [sys.executable]
    return [*launch, "-m", "tests.training.test_processes", pictures, str(folder), str(images), *how]


def trained(pictures: str, folder: Path, *stages: tuple[int, int], how: str = "whole") -> Path:
    """The folder of a run that was trained to so many images on so many processes, one stage after the other."""
    for images, processes in stages:
        done = subprocess.run(
            command(pictures, folder, images, processes, *how.split()), env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("to images seen") <= 1
        assert done.stderr.count(f"done: {images} images seen") == 1, "the first process alone tells"
        assert LEFT not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone(pictures: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(pictures, tmp_path_factory.mktemp("alone"), (98, 1))


def assert_close(a: Path, b: Path) -> None:
    """Two folders hold the same run, up to the rounding of sums in another order."""
    (counters, tensors), (theirs, others) = saved(a), saved(b)
    assert counters == theirs and tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}")


def test_two_processes_train_as_one(pictures: str, alone: Path, tmp_path: Path) -> None:
    assert_close(alone, trained(pictures, tmp_path / "run", (98, 2)))
    for line, other in zip(logged(alone), logged(tmp_path / "run"), strict=True):
        assert line == pytest.approx(other, rel=1e-3)


def test_two_processes_share_the_work_of_muon(pictures: str, tmp_path: Path) -> None:
    one, two = (trained(pictures, tmp_path / str(count), (42, count), how="muon") for count in (1, 2))
    (_, tensors), (_, others) = saved(one), saved(two)
    assert tensors.keys() == others.keys()
    # Muon orthogonalizes in 16 bits what other sums have rounded otherwise, and layers that begin as 0 are what it made.
    for name, tensor in tensors.items():
        assert (others[name] - tensor).double().norm() <= 0.2 * tensor.double().norm() + 1e-5, name
    for line, other in zip(logged(one), logged(two), strict=True):
        assert line == pytest.approx(other, rel=1e-3)


def test_a_state_in_shards_is_that_of_one_process_and_goes_on_on_any_number(pictures: str, tmp_path: Path) -> None:
    one = trained(pictures, tmp_path / "one", (98, 1), how="sharded")
    several = trained(pictures, tmp_path / "several", (42, 2), (70, 1), (98, 2), how="sharded")
    assert_close(one, several)
    for line, other in zip(logged(one), logged(several), strict=True):
        assert line == pytest.approx(other, rel=1e-3)
    # Each process has about half of the weights, of both averages and, in the second stage, of the optimizer's two moments.
    shares = [float(line) for line in (several / "values").read_text().split()]
    assert len(shares) == 4 and all(0.4 < share < 0.6 for share in shares)


@pytest.mark.parametrize("how", ["whole", "sharded"])
def test_gradients_summed_in_bfloat16_are_half_the_bytes_and_are_rounded_alone(pictures: str, tmp_path: Path, how: str) -> None:
    """The means of the gradients after one step: two processes against one, each rounded by at most 2⁻⁸ of itself."""
    images = 14 if how == "sharded" else 7
    sent, means = [], []
    for processes, reduce in ((1, "float32"), (2, "float32"), (2, "bfloat16")):
        folder = trained(pictures, tmp_path / f"{reduce}{processes}", (images, processes), how=f"{how} counted {reduce}")
        means.append(torch.cat([each.flatten() for name, each in saved(folder)[1].items() if name.endswith("/exp_avg")]))
        sent.append([json.loads(line) for line in (folder / "sent").read_text().splitlines()])
    _, full, half = sent
    assert len(full) == len(half) == 2
    for each, other in zip(full, half, strict=True):
        assert set(each) == {"torch.float32"} and other["torch.bfloat16"] >= 2 * len(means[0])
        assert 2 * other["torch.bfloat16"] + other.get("torch.float32", 0) == each["torch.float32"]
    one, rounding, rounded = means[0], *((each - means[0]).norm() / means[0].norm() for each in means[1:])
    assert one.norm() > 0 and rounding < 1e-5 < 2**-12 < rounded < 2**-7


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"batch_size": 8, "reduce": "bfloat16", "microbatch": 3}, "would add up pieces in it too"),
        ({"batch_size": 7}, "a batch of 7 cannot be shared evenly by 2 processes"),
        ({"batch_size": 8, "compile": True}, "train.compile is for whole weights"),
        ({"batch_size": 8, "optimizer": OptimizerConfig(method="muon")}, "'muon' needs whole matrices"),
    ],
)
def test_what_cannot_be_sharded_is_refused(pictures: str, settings: dict[str, Any], told: str) -> None:
    run = denoising(pictures, **settings, shard="full", images=96)
    learner, world = run.task.build(torch.device("cpu"), torch.float32), World()
    check_shards(run, learner, world)
    world.size = 2
    with pytest.raises(Problem, match=re.escape(told)):
        check_shards(run, learner, world)
    check_shards(run.replace(train=run.train.replace(shard="none")), learner, world)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_ends_the_others_and_the_run_goes_on_with_any_number(
    pictures: str, alone: Path, tmp_path: Path, how: signal.Signals
) -> None:
    folder = tmp_path / "run"
    running = subprocess.Popen(
        command(pictures, folder, 98, 2, "slowly"),
        env=ENVIRONMENT | ({"LODESTAR_TIMEOUT": "10"} if how == signal.SIGSTOP else {}),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not (folder / STATE).exists():
            assert running.poll() is None
            time.sleep(0.1)
        _, second = sorted(map(int, (folder / "processes").read_text().split()))
        os.kill(second, how)
        # The launcher waits half a minute for a process that does not end when it is told to.
        _, told = running.communicate(timeout=120)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode != 0
    assert len(re.findall("another process of this run has ended, or cannot be reached", told)) == 1, told
    assert_close(alone, trained(pictures, folder, (70, 1), (98, 2)))


def test_what_one_process_refuses_is_told_once(pictures: str, tmp_path: Path) -> None:
    arguments = ("-m", "lodestar", "train", "digits", "--out", str(tmp_path / "run"), "--batch-size", "1")
    done = subprocess.run([*LAUNCH, "2", *arguments], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    assert done.stderr.count("lodestar: batch size 1 for 2 processes: each needs a picture, at least 2") == 1, done.stderr


def left() -> None:
    """Tell of threads that are left when the group has ended: with them, Python's own end is aborted at times."""
    if any("gloo" in thread.read_text() for thread in Path("/proc/self/task").glob("*/comm")):
        print(LEFT, file=sys.stderr)


if __name__ == "__main__":
    from lodestar.tasks.denoise import DenoiseLearner

    atexit.register(left)  # runs last

    DenoiseLearner.preview = lambda _: None  # type: ignore[method-assign, assignment, return-value]
    if "slowly" in sys.argv:
        step = Step.__call__

        def slowly(self: Step, batch: Batch) -> dict[str, torch.Tensor]:
            if (folder := Path(sys.argv[2])).exists() and self.state.counters.images_seen == 0:
                with open(folder / "processes", "a", encoding="utf-8") as file:
                    file.write(f"{os.getpid()}\n")
            time.sleep(0.2)
            return step(self, batch)

        Step.__call__ = slowly  # type: ignore[method-assign]
    run = learning(sys.argv[1], int(sys.argv[3]))
    if "counted" in sys.argv:
        run = run.replace(train=run.train.replace(reduce=sys.argv[-1], microbatch=None))
        sent: dict[str, int] = {}

        def sending(call: Callable[..., Any], tensor: torch.Tensor, *how: Any, **named: Any) -> Any:
            """Count the bytes of a tensor that is summed over processes."""
            sent[str(tensor.dtype)] = sent.get(str(tensor.dtype), 0) + tensor.nbytes
            return call(tensor, *how, **named)

        torch.distributed.all_reduce = partial(sending, torch.distributed.all_reduce)
        scatter = torch.distributed.reduce_scatter_single
        torch.distributed.reduce_scatter_single = lambda input, **named: sending(
            lambda tensor, **others: scatter(input=tensor, **others), input, **named
        )
        taken = Step.__call__

        def told(self: Step, batch: Batch) -> dict[str, torch.Tensor]:
            """Take a step, and write what it sent."""
            sent.clear()
            logged = taken(self, batch)
            with open(Path(sys.argv[2]) / "sent", "a", encoding="utf-8") as file:
                file.write(json.dumps(sent) + "\n")
            return logged

        Step.__call__ = told  # type: ignore[method-assign]
    if "muon" in sys.argv:
        run = run.replace(train=run.train.replace(optimizer=run.train.optimizer.replace(method="muon")))
    if "sharded" in sys.argv:
        run = run.replace(train=run.train.replace(batch_size=14, shard="full"))
        divide = loop.divide

        def counted(state: TrainState, *others: Any) -> None:
            """Write the share of a process's own values in those of the state."""
            whole = sum(map(torch.numel, state.tensors().values()))
            divide(state, *others)
            slots = [slot for each in state.optimizers.values() for slots in each.state.values() for slot in slots.values()]
            mine = [*state.learner.module.parameters(), *(value for each in state.averages for value in each.values), *slots]
            with open(Path(sys.argv[2]) / "values", "a", encoding="utf-8") as file:
                file.write(f"{sum(local(each).numel() for each in mine) / whole}\n")

        loop.divide = counted
    try:
        loop.train(run, sys.argv[2])
    except Problem as problem:
        sys.exit(str(problem))
