from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lodestar.tasks.denoise import DenoiseLearner
from lodestar.training.loop import train

from .runs import denoising, write_pictures


@pytest.fixture(scope="package", autouse=True)
def _no_previews() -> Iterator[None]:
    """Runs of this folder do not sample at their end, to be fast; what is done with samples has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DenoiseLearner, "preview", lambda _: None)
        yield


@pytest.fixture(scope="package")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twenty 8×8 pictures in three classes."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="package")
def uninterrupted(pictures: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run from its first image to its last."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train(denoising(pictures), folder)
    return folder
