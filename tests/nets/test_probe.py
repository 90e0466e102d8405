"""The choice of a number format by measuring."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lodestar import library
from lodestar.config import Problem
from lodestar.files import cache_folder
from lodestar.nets import precision, probe, winograd

CPU = torch.device("cpu")
NAMES = [probe._named(*shape) for shape in probe.SHAPES]


class Fake:
    """A clock that the work moves: each call of a format takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes: Callable[[str, int], float], names: tuple[str, ...]) -> None:
        self.now, self.calls = 0.0, 0

        def work(name: str, channels: int) -> Callable[[], None]:
            def call() -> None:
                self.calls += 1
                self.now += takes(name, channels)

            return call

        monkeypatch.setattr(
            probe, "_calls", lambda batch, channels, size, purpose: {name: work(name, channels) for name in names}
        )

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, no format in the environment, and no classes of Winograd's, before and after."""
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(precision.VARIABLE, raising=False)
    monkeypatch.setattr(winograd, "wins", frozenset())
    monkeypatch.setattr(probe, "_ENOUGH", 0.0)
    yield tmp_path / "cache" / "probe"


FORMATS = ("float32", "bfloat16", "winograd")


@pytest.mark.parametrize(
    ("takes", "fastest"),
    [
        (lambda name, channels: 1.0 if name == "bfloat16" else 2.0, "bfloat16"),
        (lambda name, channels: 2.0 if name == "bfloat16" else 1.0, "float32"),
        # Slower in a single class: never chosen, however fast it is elsewhere.
        (lambda name, channels: (1.1 if channels == 384 else 0.1) if name == "bfloat16" else 1.0, "float32"),
        # As fast but for noise.
        (lambda name, channels: 0.99 if name == "bfloat16" else 1.0, "float32"),
    ],
)
def test_the_fastest_format_is_chosen_if_no_class_is_slower_in_it(
    takes: Callable[[str, int], float], fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Fake(monkeypatch, takes, FORMATS)
    found = probe.measure("sampling", clock)
    assert found.fastest("float32", "bfloat16") == fastest
    assert found.seconds[NAMES[0]]["float32"] == pytest.approx(takes("float32", 64))
    monkeypatch.setattr(probe, "measure", lambda purpose: found)
    assert precision.choose_dtype(None, CPU) == precision.PRECISIONS[fastest]


def test_a_format_that_the_processor_lacks_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe.measure("training", Fake(monkeypatch, lambda name, channels: 1.0, ("float32",)))
    assert found.fastest("float32", "bfloat16") == "float32" and found.ratio("bfloat16") is None


def test_winograd_is_used_in_the_classes_where_it_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = {"float32": 1.0, "bfloat16": 2.0}
    clock = Fake(monkeypatch, lambda name, channels: takes.get(name, 0.5 if channels == 192 else 1.5), FORMATS)
    found = probe.measure("sampling", clock)
    monkeypatch.setattr(probe, "measure", lambda purpose: found)
    assert precision.choose_dtype("auto", CPU) == torch.float32
    assert winograd.wins == {(192, 64)}
    wide, narrow = torch.empty(1, 192, 64, 64), torch.empty(8, 128, 16, 16)
    with torch.no_grad():
        assert winograd.pays(wide, torch.empty(192, 192, 3, 3))
        assert not winograd.pays(narrow, torch.empty(128, 128, 3, 3))
        assert not winograd.pays(torch.empty(1, 192, 128, 128), torch.empty(192, 192, 3, 3)), "larger than what was measured"


def test_a_probe_is_made_once_for_a_machine_and_a_purpose(monkeypatch: pytest.MonkeyPatch, fresh: Path) -> None:
    clock = Fake(monkeypatch, lambda name, channels: 1.0, FORMATS)
    monkeypatch.setattr(probe, "measure", lambda purpose, measure=probe.measure: measure(purpose, clock))
    first = probe.probe("sampling")
    made = clock.calls
    assert probe.probe("sampling") == first and clock.calls == made
    probe.probe("training")
    assert clock.calls == 2 * made and len(list(fresh.iterdir())) == 2
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        probe.probe("sampling")
    finally:
        torch.set_num_threads(threads)
    assert clock.calls == 3 * made


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"purpose": "sampling", "seconds": {}}', '{"purpose": "sampling", "seconds": {"x": {"float32": -1}}}'],
)
def test_a_damaged_probe_is_made_anew(text: str, monkeypatch: pytest.MonkeyPatch, fresh: Path) -> None:
    Fake(monkeypatch, lambda name, channels: 1.0, FORMATS)
    expected = probe.probe()
    (path,) = fresh.iterdir()
    path.write_text(text)
    assert probe.probe().seconds.keys() == expected.seconds.keys()
    assert probe.decode(probe.Probe, probe.read_json(path)).purpose == "sampling"


def test_a_cache_that_cannot_be_written_to_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Fake(monkeypatch, lambda name, channels: 1.0, FORMATS)
    monkeypatch.setattr(probe, "measure", lambda purpose, measure=probe.measure: measure(purpose, clock))
    cache_folder().write_text("a file in the folder's place")
    assert probe.probe().fastest("float32", "bfloat16") == "float32"


@pytest.mark.parametrize("home", ["read-only", "nowhere"])
def test_a_home_that_takes_nothing_is_done_without(home: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("LODESTAR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    if home == "nowhere":  # as that of accounts of services; also for a superuser, who may write into what is read-only
        monkeypatch.setenv("HOME", "/dev/null")
    else:
        (tmp_path / "home").mkdir(mode=0o500)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
    clock = Fake(monkeypatch, lambda name, channels: 0.5 if name == "bfloat16" else 1.0, FORMATS)
    monkeypatch.setattr(probe, "measure", lambda purpose, measure=probe.measure: measure(purpose, clock))
    assert probe.probe().fastest("float32", "bfloat16") == "bfloat16"
    made = clock.calls
    assert precision.choose_dtype(None, CPU) == torch.bfloat16
    if home == "nowhere":
        assert clock.calls == 2 * made, "nothing is kept"


def test_two_processes_may_measure_at_once(fresh: Path) -> None:
    code = "from lodestar.nets import probe; probe.SHAPES = probe.SHAPES[2:3]; probe.probe()"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [each.wait(120) for each in both] == [0, 0]
    assert [path.suffix for path in fresh.iterdir()] == [".json"]


def test_what_is_asked_for_comes_before_the_environment_and_that_before_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "measure", None)
    monkeypatch.setenv(precision.VARIABLE, "bfloat16")
    assert precision.choose_dtype("float32", CPU) == precision.choose_dtype(torch.float32, CPU) == torch.float32
    assert precision.choose_dtype(None, CPU) == precision.choose_dtype("auto", CPU) == torch.bfloat16
    assert library.load("cifar10_weak", "cpu").precision == "bfloat16"
    assert library.load("cifar10_weak", "cpu", dtype="float32").precision == "float32"
    with pytest.raises(
        Problem, match="unknown precision 'float16': choose from float32, bfloat16, int8; did you mean 'bfloat16'"
    ):
        library.load("cifar10_weak", "cpu", dtype=torch.float16)
    monkeypatch.setenv(precision.VARIABLE, "bfloat61")
    with pytest.raises(Problem, match="did you mean 'bfloat16'"):
        precision.choose_dtype(None, CPU)


def test_the_real_work_of_every_class_runs() -> None:
    for purpose in ("sampling", "training"):
        calls = probe._calls(*probe.SHAPES[2], purpose)  # type: ignore[arg-type]
        assert next(iter(calls)) == "float32"
        for call in calls.values():
            call()
    assert "winograd" in probe._calls(*probe.SHAPES[1], "sampling")
