"""Kept reports of models, so a table of many models is measured once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lodestar import checkpoint, library
from lodestar.config import from_json
from lodestar.data import Source
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.kept import Kept
from lodestar.evaluation.metrics import Frechet
from lodestar.evaluation.run import Measurement, evaluate, settings_told
from lodestar.files import check_writable, write_text
from lodestar.generators.request import Settings


def measured(
    path: Path,
    name: str | Path,
    reference: Source | Kept,
    extractor: Extractor,
    *,
    count: int,
    seed: int = 0,
    how: Settings | None = None,
    device: str | None = None,
    dtype: library.Dtype = None,
    run: Measurement | None = None,
) -> Mapping[str, Any]:
    """The report (`lodestar.evaluation.report.Report`, as data) kept at `path`, or else made now and kept there.

    It is of the model `name` (`lodestar.library.find`) and its Fréchet distance; how: settings of sampling. device,
    dtype: as for `lodestar.library.load`. run: how it is made. One of other settings, of another number format than the one asked
    for, or of other weights, is made again. Raises Problem.
    """
    how, config, found = how or Settings(), library.config(name), library.find(name)
    asked = {
        "model_digest": checkpoint.peek(found).digest,
        "count": count,
        "seed": seed,
        **settings_told(how.replace(steps=how.steps or config.steps, sampler=how.sampler or config.sampler)),
        "extractor_digest": extractor.digest,
        "extractor_dtype": extractor.dtype,
        "reference_fingerprint": reference.fingerprint,
        "captions": run.captions.spec or None if run is not None and run.captions else None,
    }
    if dtype not in (None, "auto"):
        asked["model_dtype"] = str(dtype).removeprefix("torch.")
    there = _read(path)
    if there is not None and all(there.get(key) == value for key, value in asked.items()):
        return there
    check_writable(path)
    report = evaluate(
        library.load_diffusion(name, device, dtype),
        reference,
        extractor,
        how,
        count=count,
        seed=seed,
        run=replace(run or Measurement(), metrics=(Frechet(),)),
    )
    write_text(path, report.to_json() + "\n")
    kept: Mapping[str, Any] = json.loads(report.to_json())
    return kept


def _read(path: Path) -> dict[str, Any] | None:
    """The kept report; None if missing or unreadable."""
    try:
        found = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("numbers"), dict) else None
