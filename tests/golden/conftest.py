"""The option that says where the reference outputs are."""

from __future__ import annotations

from pathlib import Path

import pytest

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", metavar="DIR", default=None, help="folder of reference outputs (default: ../shared/golden)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per JSON file under the folder, whatever its name."""
    if "golden_path" not in metafunc.fixturenames:
        return
    # Where pytest is started on all tests, this file is read too late for its option to exist: then the default holds.
    folder = Path(metafunc.config.getoption("--golden", default=None) or DEFAULT)
    paths = sorted(folder.rglob("*.json"))
    if paths:
        metafunc.parametrize("golden_path", paths, ids=[str(path.relative_to(folder).with_suffix("")) for path in paths])
    else:
        absent = pytest.param(None, marks=pytest.mark.skip(reason=f"no reference outputs under {folder}: give --golden DIR"))
        metafunc.parametrize("golden_path", [absent], ids=["none"])
