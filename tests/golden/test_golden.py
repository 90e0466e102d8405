"""Every reference case under --golden DIR, through the adapter of its kind (see harness.py)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import ADAPTERS, Case, judge

for _file in sorted(Path(__file__).parent.glob("*.py")):
    if not _file.stem.startswith(("test_", "conftest", "__", "harness")):
        importlib.import_module(f"{__package__}.{_file.stem}")


def test_golden(golden_path: Path, record_property: Callable[[str, object], None]) -> None:
    if isinstance(json.loads(golden_path.read_text(encoding="utf-8")), list):
        pytest.skip("an index, not a case")
    case = Case(golden_path)
    if case.kind not in ADAPTERS:
        pytest.fail(f"kind {case.kind!r} has no adapter", pytrace=False)
    wrong, left, compared = judge(case, ADAPTERS[case.kind])
    record_property("compared", compared)
    for one in left:
        print(f"left out: {one.name}: {one.reason}")
    if wrong:
        pytest.fail(f"{len(wrong)} of {len(case.outputs)} outputs:\n" + "\n".join(wrong[:50]), pytrace=False)
    if not compared:
        pytest.skip(f"all outputs are left out: {left[0].reason}" if left else "the case has no outputs")
