from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from lodestar.config import Problem
from lodestar.data import Shuffled, Source, divide, open_source, part, sequential
from lodestar.data import parquet as parquet_module
from lodestar.data.stream import permutation

from .pictures import noise, png, write_table


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Sixty-four rows in groups of four; the first pixel of each, and its label, is its number."""
    pictures = [png(noise(row)) for row in range(64)]
    return open_source(write_table(tmp_path / "t.parquet", pictures, list(range(64)), names=[str(row) for row in range(64)]))


@pytest.mark.parametrize(("count", "share", "expected"), [(50_000, 0.02, 1_000), (20, 0.02, 1), (3, 0.6, 2), (2, 0.5, 1)])
def test_a_division_is_whole_and_always_the_same(count: int, share: float, expected: int) -> None:
    kept, apart = divide(count, share)
    assert len(apart) == expected
    assert sorted([*kept, *apart]) == list(range(count))
    assert all((np.diff(indices) > 0).all() for indices in (kept, apart))
    assert all(np.array_equal(*pair) for pair in zip(divide(count, share), (kept, apart), strict=True))


def test_a_division_is_at_random_and_leaves_some_to_train_on() -> None:
    assert divide(10_000, 0.1)[1].mean() == pytest.approx(5_000, abs=300)
    with pytest.raises(Problem, match=r"^data.held_out is 0.98: of 20 pictures that leaves none to train on$"):
        divide(20, 0.98)


def test_a_part_has_its_own_pictures_labels_and_places(source: Source) -> None:
    some = part(source, np.array([3, 40, 41]), None)
    assert (len(some), some.size, some.names) == (3, (4, 4), source.names)
    assert [(some[index][0][0, 0, 0], some[index][1]) for index in range(3)] == [(3, 3), (40, 40), (41, 41)]
    assert [batch.label.tolist() for batch in sequential(some, 2)] == [[3, 40], [41]]
    assert some.rows.where(1) == source.rows.where(40)
    assert part(source, np.array([0]), (2, 2))[0][0].shape == (3, 2, 2)
    parts = [part(source, np.array(rows), None).fingerprint for rows in ([3, 40, 41], [3, 40, 42])]
    assert len({some.fingerprint, source.fingerprint, *parts}) == 3


def test_a_part_is_shuffled_by_the_windows_of_the_whole(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_module, "HELD_BYTES", 2 * max(source.rows._bytes))
    kept, apart = divide(64, 0.25)
    some = part(source, kept, None)
    order = kept[permutation(some, 0, 0)]
    assert sorted(order) == list(kept)
    groups = order // 4
    # Two groups to a window: when the groups of a later one begin, those of an earlier one have ended.
    windows = [{*groups[:1]}]
    for group in groups:
        if group not in windows[-1] and len(windows[-1]) == 2:
            windows.append(set())
        windows[-1].add(group)
    assert sum(map(len, windows)) == len(set(groups))
    uninterrupted = torch.cat([batch.label for batch in islice(Shuffled(some, 8).batches(3), 12)])
    assert not {*uninterrupted.tolist()} & {*apart.tolist()}
    resumed = torch.cat([batch.label for batch in islice(Shuffled(some, 8).batches(3, 40), 7)])
    assert torch.equal(resumed, uninterrupted[40:])
