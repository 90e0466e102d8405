"""Some of the fuzzer's cases, the same in every run; and that it sees what it is to see."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.fuzz.cases import KINDS, case
from tests.fuzz.damage import DEEP, damaged, mutated, text
from tests.fuzz.settings import makeable

ROOT = Path(__file__).parents[2]
COUNT = 2 * len(KINDS)

DOORS = """
import os, sys, time
from pathlib import Path
from tests.fuzz.sandbox import Call, run

def refuse(*lines, leaving=None):
    def do():
        if leaving:
            Path(leaving).touch()
        print(*lines, sep="\\n", file=sys.stderr)
        sys.exit(2)
    return do

doors = {
    "ok": lambda: print("done"),
    "refused": refuse("lodestar: note: it is late", "lodestar: no"),
    "traceback": lambda: 1 / 0,
    "hang": lambda: [None for _ in iter(int, 1)],
    "waits": lambda: time.sleep(100),
    "memory": lambda: bytearray(8 << 30),
    "killed": lambda: os.abort(),
    "status": lambda: sys.exit(1),
    "two lines": refuse("lodestar: no", "lodestar: no"),
    "no line": refuse(),
    "other line": refuse("no"),
    "left behind": refuse("lodestar: no", leaving="x"),
}
calls = [Call(name, number, lambda folder, door=door: door) for number, (name, door) in enumerate(doors.items())]
for outcome in run(calls, Path(sys.argv[1]), jobs=2, seconds=1, wait=2):
    print(f"{outcome.call.kind}: {outcome.verdict}")
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, without threads, from which others can be forked."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)


def test_what_is_damaged_or_absurd_is_refused_in_one_line_and_leaves_nothing_behind() -> None:
    """`make fuzz` goes on where this ends."""
    done = python("-m", "tests.fuzz", "--count", str(COUNT), "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sandbox_sees_what_is_wrong(tmp_path: Path) -> None:
    done = python("-c", DOORS, str(tmp_path))
    assert sorted(done.stdout.splitlines()) == sorted(
        [
            "ok: ok", "refused: refused", "traceback: traceback", "hang: hang", "waits: hang", "memory: memory", "killed: killed",
            "status: traceback", "two lines: lines", "no line: lines", "other line: lines", "left behind: left behind",
        ]
    ), done.stderr  # fmt: skip


def test_a_case_is_a_function_of_its_number_and_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []

    def maker(valid: Any, rng: Random, folder: Path) -> Callable[[], None]:
        found.append(rng.random())
        return lambda: None

    monkeypatch.setattr("tests.fuzz.cases.KINDS", {"picture": maker, "other": maker})
    for number, seed in ((5, 0), (5, 0), (6, 0), (5, 1)):
        case(None, number, seed).prepare(tmp_path)  # type: ignore[arg-type]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_every_configuration_is_damaged() -> None:
    assert not makeable()


def test_damage_is_damage() -> None:
    tree, data = {"a": [1, {"b": None}], "c": "text"}, bytes(range(200))
    assert all(mutated(tree, Random(seed)) != tree for seed in range(200))
    assert tree == {"a": [1, {"b": None}], "c": "text"}
    assert sum(damaged(data, Random(seed)) != data for seed in range(200)) > 190
    assert text({"a": DEEP}, Random(0)).count("[") + text({"a": DEEP}, Random(0)).count("{") > 70
