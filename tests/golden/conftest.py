"""The option that says where the reference outputs are."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
DEFAULT = (SHARED / "golden", SHARED / "golden-older")

TOLD = "../shared/golden and ../shared/golden-older"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", metavar="DIR", default=None, help=f"folder of reference outputs (default: {TOLD})")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per JSON file under the folder, whatever its name."""
    if "golden_path" not in metafunc.fixturenames:
        return
    # Where pytest is started on all tests, this file is read too late for its option to exist: then the default holds.
    given = metafunc.config.getoption("--golden", default=None)
    folders = DEFAULT if given is None else (Path(given),)
    paths = {str(path.relative_to(folder.parent).with_suffix("")): path for folder in folders for path in folder.rglob("*.json")}
    if paths:
        metafunc.parametrize("golden_path", [paths[name] for name in sorted(paths)], ids=sorted(paths))
    else:
        where = ", ".join(map(str, folders))
        absent = pytest.param(None, marks=pytest.mark.skip(reason=f"no reference outputs under {where}: give --golden DIR"))
        metafunc.parametrize("golden_path", [absent], ids=["none"])
