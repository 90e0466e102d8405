"""Import paths of earlier versions."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import lodestar
from lodestar import moved


def test_an_earlier_path_is_the_module_of_today_and_hides_no_function() -> None:
    from lodestar.convert import diffusers  # type: ignore[import-not-found]
    from lodestar.evaluate.metrics.inception_score import Score  # type: ignore[import-not-found]
    from lodestar.train.run import Run  # type: ignore[import-not-found]

    from lodestar.conversion import diffusers as today
    from lodestar.evaluation.metrics import inception_score
    from lodestar.training import run

    assert diffusers is today and Score is inception_score.Score and Run is run.Run
    assert today.__name__ == today.__spec__.name == "lodestar.conversion.diffusers"
    assert all(type(getattr(lodestar, name)).__name__ == "function" for name in moved.MOVED)


def test_what_there_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"lodestar\.evaluation\.nothing"):
        importlib.import_module("lodestar.evaluate.nothing")


def test_the_earlier_path_may_come_first() -> None:
    code = (
        "from lodestar.evaluate.statistics import Statistics; import lodestar; from lodestar.evaluation import statistics; "
        "assert Statistics is statistics.Statistics and callable(lodestar.evaluate)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
