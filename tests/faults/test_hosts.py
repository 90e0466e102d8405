"""Trainings over two hosts, of which one is cut off, or has a wrong clock; ``python -m tests.faults.hosts`` kills one, too."""

from __future__ import annotations

import shutil

import pytest

from tests.faults.hosts import Trainings, refused


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    if why := refused():
        pytest.skip(why)
    return Trainings(tmp_path_factory.mktemp("hosts"))


@pytest.mark.parametrize("fault", ["cut", "clock"])
def test_a_disturbed_training_stops_with_one_message_and_goes_on(trainings: Trainings, fault: str) -> None:
    if fault == "clock" and shutil.which("cc") is None:
        pytest.skip("no wrong clock without a compiler")
    trainings(fault)
