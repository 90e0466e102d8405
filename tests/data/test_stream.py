from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from lodestar.config import Problem
from lodestar.data import Batch, Shuffled, Source, Transforms, open_source, sequential
from lodestar.data import parquet as parquet_module
from lodestar.data.arrays import ArrayRows
from lodestar.data.stream import permutation

from .pictures import noise, png, write_table

RANDOM = Transforms(size=3, crop="random", flip=True)


@pytest.fixture
def source() -> Source:
    images = np.stack([noise(number) for number in range(10)])
    return Source(ArrayRows(images, np.arange(10), tuple("abcdefghij")), "ten")


def joined(parts: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([part.image for part in parts]), torch.cat([part.label for part in parts])


def test_batches_are_tensors_with_matching_labels(source):
    batch = next(Shuffled(source, 4).batches(0))
    assert batch.image.dtype == torch.uint8 and batch.image.shape == (4, 3, 4, 4)
    assert batch.label.dtype == torch.int64
    assert torch.equal(batch.image[:, 0, 0, 0].long(), batch.label)


def test_every_epoch_has_every_picture_once_in_another_order(source):
    _, labels = joined(list(islice(Shuffled(source, 4).batches(0), 5)))
    epochs = labels.reshape(2, 10)
    assert [sorted(epoch.tolist()) for epoch in epochs] == [list(range(10))] * 2
    assert not torch.equal(epochs[0], epochs[1])
    assert not np.array_equal(permutation(source, 0, 0), permutation(source, 1, 0))


@pytest.mark.parametrize("start", [0, 1, 8, 10, 16, 37])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_start_anywhere_continues_the_uninterrupted_run(source, start, workers):
    images, labels = joined(list(islice(Shuffled(source, 1, RANDOM, 0).batches(5), 60)))
    resumed = islice(Shuffled(source, 4, RANDOM, workers).batches(5, start), 4)
    resumed_images, resumed_labels = joined(list(resumed))
    assert torch.equal(resumed_images, images[start : start + 16])
    assert torch.equal(resumed_labels, labels[start : start + 16])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_size_of_a_batch_may_depend_on_what_was_seen(source, workers):
    whole = joined(list(islice(Shuffled(source, 1, RANDOM, 0).batches(5), 60)))
    growing = Shuffled(source, lambda seen: 2 if seen < 6 else 4 if seen < 14 else 8, RANDOM, workers)
    for start, sizes in ((0, [2, 2, 2, 4, 4, 8, 8]), (6, [4, 4, 8]), (22, [8])):
        parts = list(islice(growing.batches(5, start), len(sizes)))
        assert [len(part) for part in parts] == sizes
        for ours, theirs in zip(joined(parts), whole, strict=True):
            assert torch.equal(ours, theirs[start : start + sum(sizes)])
    shares = [next(growing.batches(5, 6, rank, 2)).label for rank in range(2)]
    assert torch.equal(torch.cat(shares), whole[1][6:10])


def test_a_picture_is_cropped_differently_in_each_epoch():
    one = Source(ArrayRows(noise(0, 12, 12)[None]), "one")
    images = next(Shuffled(one, 8, Transforms(size=4, crop="random"), 0).batches(0)).image
    assert len({image.numpy().tobytes() for image in images}) > 4


def test_row_groups_are_shuffled_by_windows(tmp_path, monkeypatch):
    spec = write_table(tmp_path / "t.parquet", [png(noise(row)) for row in range(64)], group=4)
    source = open_source(spec)
    monkeypatch.setattr(parquet_module, "HELD_BYTES", 2 * max(source.rows._bytes))
    orders = [permutation(source, 0, epoch) for epoch in range(2)]
    assert all(sorted(order) == list(range(64)) for order in orders)
    first_groups = [Counter(order[:8] // 4) for order in orders]
    assert [set(groups.values()) for groups in first_groups] == [{4}, {4}] and first_groups[0] != first_groups[1]
    assert not np.array_equal(orders[0][:4], np.sort(orders[0][:4]))


def test_pictures_without_labels_and_batches_larger_than_the_data():
    source = Source(ArrayRows(np.zeros((3, 2, 2), np.uint8)), "three", channels=1)
    batch = next(Shuffled(source, 8).batches(0))
    assert batch.label is None and batch.image.shape == (8, 1, 2, 2)


def test_sequential_gives_each_picture_once_and_leaves_bad_ones_out(source, tmp_path):
    parts = list(sequential(source, 4))
    assert [len(part.image) for part in parts] == [4, 4, 2]
    assert joined(parts)[1].tolist() == list(range(10))
    spec = write_table(tmp_path / "t.parquet", [png(noise(0)), b"x", b"x", b"x", png(noise(4))], list(range(5)), names="abcde")
    assert [part.label.tolist() for part in sequential(open_source(spec, skip_bad=True), 2)] == [[0], [4]]


def test_a_bad_picture_is_named_in_the_consumer(tmp_path):
    spec = write_table(tmp_path / "t.parquet", [png(noise(0)), b"x"])
    for workers in (0, 2):
        with pytest.raises(Problem, match="row 1 of"):
            list(islice(Shuffled(open_source(spec), 2, workers=workers).batches(0), 2))


def test_a_crop_larger_than_the_pictures_is_refused(source):
    with pytest.raises(Problem, match="4×4 are too small"):
        next(Shuffled(source, 4, Transforms(size=5)).batches(0))


def test_a_batch_is_made_ahead_and_closing_ends_the_threads(source):
    before = threading.active_count()
    stream = Shuffled(source, 4, workers=2).batches(0)
    next(stream)
    assert threading.active_count() > before
    stream.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
