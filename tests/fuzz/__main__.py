"""``python -m tests.fuzz``: damaged files and absurd requests, as many as are asked for, and what is wrong with any of them."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import typer.main

from tests.fuzz.cases import KINDS, case, kind_of
from tests.fuzz.sandbox import Call, Outcome, run
from tests.fuzz.valid import Valid, command, make

AHEAD = (
    "lodestar.cli",
    "lodestar.training.loop",
    "lodestar.evaluation.sweep",
    "lodestar.conversion.diffusers",
    "lodestar.presets",
    "lodestar.demo",
    "torch.utils.tensorboard",
    "sklearn.datasets",
    "sklearn.cluster",
    "pyarrow.parquet",
    "matplotlib.pyplot",
    "PIL.PngImagePlugin",
)
"""What calls import, so that they need not."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; 1 where one of them is wrong."""
    asked = _asked(arguments)
    torch.set_num_threads(1)
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # its own one takes 1 GiB of addresses at once, which are limited here
    for module in AHEAD:
        importlib.import_module(module)
    kinds = {kind for kind in KINDS if kind not in asked.skip and (not asked.only or any(part in kind for part in asked.only))}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"LODESTAR_CACHE": f"{scratch}/cache", "HF_HUB_OFFLINE": "1", "MPLCONFIGDIR": f"{scratch}/plots"}
        home = Path(scratch)
        valid = _made(home / "valid")
        _warm(valid, home)
        if asked.case is not None:
            calls: Iterator[Call] = iter([case(valid, asked.case, asked.seed)])
        else:
            calls = _until(asked, (case(valid, number, asked.seed) for number in itertools.count() if kind_of(number) in kinds))
        outcomes = []
        for outcome in run(calls, home / "cases", asked.jobs):
            outcomes.append(outcome)
            if not outcome.good or asked.case is not None or asked.all:
                _tell(outcome, asked.seed)
        if asked.json:
            Path(asked.json).write_text(
                json.dumps([[o.call.kind, o.call.number, o.verdict, o.seconds, o.bytes, o.output] for o in outcomes])
            )
        return _summary(outcomes)


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="so many cases")
    parser.add_argument("--seconds", type=float, help="for so long; default until interrupted")
    parser.add_argument("--only", action="append", help="kinds with this in their name")
    parser.add_argument("--skip", action="append", default=[], help="not this kind")
    parser.add_argument("--case", type=int, help="this one, with all that it says")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--all", action="store_true", help="tell of every case")
    parser.add_argument("--json", help="write what became of each to this file")
    return parser.parse_args(arguments)


def _made(home: Path) -> Valid:
    """The valid things, made in a process of their own, so that this one has no threads."""
    process = os.fork()
    if not process:
        status = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            make(home)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(process, 0)[1] == 0, "the valid things cannot be made"
    return Valid(home)


def _warm(valid: Valid, home: Path) -> None:
    """Do here what every call does, once, so that what is made at the first time is there."""
    typer.main.get_command = functools.cache(typer.main.get_command)
    model = valid.path("model.safetensors")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        for words in (
            ("info", model),
            ("sample", model, "--count", 1, "--out", home / "warm"),
            ("remake", home / "warm", "--picture", 0),
        ):
            with contextlib.suppress(SystemExit):
                command(*words, *(("--out", home / "again") if words[0] == "remake" else ()))()


def _until(asked: argparse.Namespace, calls: Iterator[Call]) -> Iterator[Call]:
    stopped = []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
    began = time.monotonic()
    for number, call in enumerate(calls):
        late = asked.seconds is not None and time.monotonic() - began > asked.seconds
        if stopped or late or (asked.count is not None and number >= asked.count):
            return
        yield call


def _tell(outcome: Outcome, seed: int) -> None:
    call = outcome.call
    used = f"{outcome.seconds:.1f} s, {outcome.bytes >> 20} MiB"
    print(f"--- --seed {seed} --case {call.number}, {call.kind}: {outcome.verdict}, {used}", flush=True)
    if outcome.left:
        print(f"left: {', '.join(outcome.left[:10])}")
    print(outcome.output, flush=True)


def _summary(outcomes: Sequence[Outcome]) -> int:
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    wrong = Counter((outcome.call.kind, outcome.verdict) for outcome in outcomes if not outcome.good)
    print(f"{len(outcomes)} cases: {', '.join(f'{count} {verdict}' for verdict, count in verdicts.most_common())}")
    for (kind, verdict), count in sorted(wrong.items()):
        print(f"  {kind}: {count} {verdict}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
