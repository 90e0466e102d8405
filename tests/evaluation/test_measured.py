"""Reports that are kept: made once, and again when anything that they depend on is another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lodestar import checkpoint
from lodestar.evaluation import measured as module
from lodestar.evaluation.measured import measured
from lodestar.evaluation.run import Measurement
from lodestar.generators.request import settings
from lodestar.samplers import DDIM

from . import tiny


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each evaluation sampled."""
    counts: list[int] = []
    original = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *args, **more: (counts.append(more["count"]), original(*args, **more))[1])
    return counts


def write(path: Path, seed: int) -> Path:
    model = tiny.diffusion(seed)
    checkpoint.save(path, "diffusion", model.config.to_json(), model.state_dict(), {})
    return path


def test_a_report_is_made_once_for_the_same_settings_and_weights(tmp_path: Path, made: list[int]) -> None:
    model, kept = write(tmp_path / "m.safetensors", 0), tmp_path / "report.json"

    def ask(extractor: int = 2, reference: int = 0, count: int = 6, seed: int = 0, **how: object) -> float:
        report = measured(
            kept, model, tiny.reference(seed=reference), tiny.extractor(extractor), count=count, seed=seed,
            how=settings(**how), run=Measurement(cache=tmp_path),
        )  # fmt: skip
        return report["numbers"]["frechet"]

    first = ask()
    assert ask() == first
    assert made == [6]
    for number, changes in enumerate(
        (
            {"count": 7}, {"extractor": 3}, {"reference": 1}, {"steps": "3"}, {"sampler": DDIM()}, {"seed": 1},
            {"temperature": 0.5}, {"clamp": False},
        ), start=2,
    ):  # fmt: skip
        ask(**changes)  # type: ignore[arg-type]
        assert len(made) == number, changes
    ask()
    write(tmp_path / "m.safetensors", 1)
    before = len(made)
    assert ask() != first
    assert len(made) == before + 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"numbers": 1}'])
def test_a_damaged_one_is_made_again(text: str, tmp_path: Path, made: list[int]) -> None:
    (tmp_path / "report.json").write_text(text)
    model = write(tmp_path / "m.safetensors", 0)
    measured(tmp_path / "report.json", model, tiny.reference(), tiny.extractor(), count=6, run=Measurement(cache=tmp_path))
    measured(tmp_path / "report.json", model, tiny.reference(), tiny.extractor(), count=6, run=Measurement(cache=tmp_path))
    assert made == [6]


def test_one_of_another_number_format_is_made_again(tmp_path: Path, made: list[int]) -> None:
    model = write(tmp_path / "m.safetensors", 0)

    def ask(dtype: str | torch.dtype | None) -> str:
        report = measured(
            tmp_path / "report.json",
            model,
            tiny.reference(),
            tiny.extractor(),
            count=6,
            run=Measurement(cache=tmp_path),
            dtype=dtype,
        )
        return str(report["model_dtype"])

    assert [ask(dtype) for dtype in ("bfloat16", torch.bfloat16, None, "auto", "float32")] == ["bfloat16"] * 4 + ["float32"]
    assert made == [6, 6]
