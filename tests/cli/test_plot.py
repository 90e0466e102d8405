"""`plot`: pictures of schedules, plans and runs, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lodestar.__main__ import main
from lodestar.core.schedule import Linear
from lodestar.evaluation import plot
from lodestar.evaluation.plot import Curve, Ticks
from lodestar.images import load_png
from tests.evaluation import tiny


@pytest.fixture(autouse=True)
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Sequence[Curve]]:
    """The panels that are drawn, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    kept: dict[str, Sequence[Curve]] = {}
    draw = plot.curves

    def curves(path: Path, title: str, x: Ticks, panels: Mapping[str, Sequence[Curve]], own: str = "") -> None:
        kept.update(panels)
        draw(path, title, x, panels, own)

    monkeypatch.setattr(plot, "curves", curves)
    return kept


def plotted(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plot", *arguments, "--out", "a/b.png"])
    assert not stop.value.code and load_png("a/b.png").float().std() > 1


def log(folder: str, *lines: Any) -> None:
    Path(folder).mkdir()
    Path(folder, "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"images": 9, "lo')


def test_schedules(drawn: dict[str, Sequence[Curve]]) -> None:
    tiny.diffusion().save("model.safetensors")
    plotted("schedule", "linear", "cosine:timesteps=40", "model.safetensors")
    (panel,) = drawn.values()
    assert [curve.name for curve in panel] == ["linear", "cosine:timesteps=40", "model.safetensors"]
    assert [len(curve.values) for curve in panel] == [200, 40, 50]
    level = Linear(timesteps=50).table[7]
    assert panel[2].values[6] == pytest.approx(2 * level.half_logsnr)


def test_plans_and_those_of_a_model(drawn: dict[str, Sequence[Curve]]) -> None:
    plotted("plan", "cifar10", "--steps", "optimized:8", "--steps", "trailing:5")
    assert list(drawn) == ["optimized:8: 8 steps", "trailing:5: 5 steps"]
    assert [len(panel[1].values) for panel in drawn.values()] == [8, 5]
    drawn.clear()
    plotted("plan", "linear:timesteps=50", "--steps", "karras:6")
    assert [len(panel[1].values) for panel in drawn.values()] == [6]


def test_runs(drawn: dict[str, Sequence[Curve]]) -> None:
    log("one", {"images": 4, "time": 1, "loss": 0.5, "rate": 1}, {"images": 8, "time": 2, "loss": 0.25, "validation": 0.7})
    log("two", {"images": 4, "time": 1, "loss": 0.75})
    plotted("run", "one", "two")
    assert {name: [(curve.name, curve.places, curve.values) for curve in panel] for name, panel in drawn.items()} == {
        "loss": [("one", [4, 8], [0.5, 0.25]), ("two", [4], [0.75])],
        "validation": [("one", [8], [0.7])],
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("schedule cosin", "no schedule 'cosin': choose from linear, "),
        ("schedule linear:steps=3", "linear"),
        ("schedule cifar10_classifier", "cifar10_classifier is no diffusion model, and has no schedule"),
        ("plan linear --steps karas:9", "steps 'karas:9'"),
        ("plan linear --steps optimized:8", "such a plan is a model's own"),
        ("plan linear:timesteps=40 --steps 90", "90 of them"),
        ("run none", "none/log.jsonl"),
        ("run .", "log.jsonl"),
        ("rum none", "No such command 'rum'"),
    ],
)
def test_the_unknown_is_refused_in_one_line(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plot", *arguments.split()])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and said in line and not Path("out").exists()


def test_a_log_without_numbers_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    log("empty")
    with pytest.raises(SystemExit):
        main(["plot", "run", "empty"])
    assert "empty/log.jsonl has no numbers of a training run" in capsys.readouterr().err
