"""Ten random kills; ``python -m tests.faults`` makes a hundred."""

from __future__ import annotations

import pytest

from tests.faults.kills import Faults


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("seed", range(1000, 1010))
def test_a_killed_command_ends_as_if_it_had_not_been(faults: Faults, seed: int) -> None:
    faults(seed)
