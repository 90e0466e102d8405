"""Arguments that no call can use are told in one line, whatever their type, and however long a name is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import lodestar
from lodestar.config import Problem
from lodestar.generators.album import Manifest
from tests.evaluation import tiny

LONG = "x" * 5_000
"""No system takes such a name of a file: it is no "not there", but an error."""
MODEL = tiny.diffusion()
GIVEN: Any = {"count": 2, "steps": 2}


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: lodestar.load(None), "model None: the name of a model"),  # type: ignore[call-overload]
        (lambda: lodestar.from_pretrained(f"owner/{LONG}"), ""),
        (lambda: Manifest.read(LONG), "cannot be read"),
        (lambda: lodestar.save(MODEL, 3), "path 3: the name of a model's file"),  # type: ignore[arg-type]
        (lambda: lodestar.save(MODEL, f"{LONG}.safetensors"), "cannot write"),
        (lambda: lodestar.save(MODEL, "s3://bucket/model.safetensors"), "cannot write s3://bucket/model.safetensors: an address"),
        (lambda: lodestar.evaluate(LONG), "no model"),
        (lambda: lodestar.evaluate(MODEL, out=LONG, **GIVEN), "cannot write"),
        (lambda: lodestar.evaluate(MODEL, metrics=[3], **GIVEN), "metric 3: a metric, or its short form"),
        (lambda: lodestar.evaluate(MODEL, seeds=None, **GIVEN), "seeds is None"),  # type: ignore[arg-type]
        (lambda: lodestar.convert(LONG), "no published model"),
        (lambda: lodestar.quantize(MODEL, "digits", f"{LONG}.safetensors"), "cannot write"),  # type: ignore[arg-type]
        (lambda: lodestar.plan(MODEL, None), "steps is None"),  # type: ignore[arg-type]
        (lambda: lodestar.sweep(MODEL, over=3), "over is 3"),  # type: ignore[arg-type]
        (lambda: lodestar.sweep(MODEL, over=[3]), "over is 3"),  # type: ignore[list-item]
        (lambda: lodestar.sweep(MODEL, over={3: [4]}), "sweep over 3: the name of a setting"),  # type: ignore[dict-item]
        (lambda: lodestar.compare(3), "models is 3"),  # type: ignore[arg-type]
        (lambda: lodestar.compare([3]), "model is 3"),  # type: ignore[list-item]
        (lambda: lodestar.bpd(3, "digits"), "model 3: the name of a model"),  # type: ignore[arg-type]
        (lambda: lodestar.bpd(MODEL, tiny.reference(), count=None), "count is None"),  # type: ignore[arg-type]
    ],
)
def test_what_no_call_can_use_is_one_line(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(Problem) as raised:
        call()
    assert told in str(raised.value) and "\n" not in str(raised.value)
