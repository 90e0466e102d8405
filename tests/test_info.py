from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lodestar import checkpoint
from lodestar.config import Problem
from lodestar.info import describe
from lodestar.training.run import Run


def told(name: Path) -> str:
    return "".join(segment.text for segment in Console(width=200).render(describe(str(name))))


def test_a_log_whose_last_line_is_cut_is_read_to_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(Run().to_json())
    (tmp_path / "log.jsonl").write_text(json.dumps({"images": 2048, "loss": 0.25}) + '\n{"images": 4096, "lo')
    assert "images 2,048, loss 0.25" in told(tmp_path)
    moment = datetime(2026, 11, 30, 16, 33, 5)
    (tmp_path / "log.jsonl").write_text(json.dumps({"images": 2048, "time": moment.timestamp() + 0.25, "loss": 0.25}))
    assert "images 2,048, time 2026-11-30 16:33:05, loss 0.25" in told(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"images": 1024, "loss": 0.5}\n{"images": 2048, "time": 1e300}')
    assert "images 1,024, loss 0.5" in told(tmp_path)
    (tmp_path / "log.jsonl").write_text("")
    assert "last logged" not in told(tmp_path)


def test_a_runs_state_tells_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, "state", Run().to_json(), {"weights/a": torch.zeros(3)}, {"images_seen": 4096, "steps": 64})
    text = told(path)
    for fact in ("denoise on digits, to 1,000,000 images", "images seen", "4,096", "state"):
        assert fact in text
    checkpoint.save(path, "state", "{}", {}, {})
    with pytest.raises(Problem, match=r"state\.safetensors cannot be read: "):
        describe(str(path))


def test_names_are_told_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "[red]x"
    folder.mkdir()
    run = Run()
    (folder / "run.json").write_text(run.replace(data=run.data.replace(source="[bold]pictures :car:")).to_json())
    assert "denoise on [bold]pictures :car:, to" in told(folder)
