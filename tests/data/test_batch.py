"""Batches of named fields, whatever the fields are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from lodestar.config import Problem
from lodestar.data import Batch, Row, Shuffled, Stream, Transforms, sequential
from lodestar.data.batch import share


class Captioned:
    """Ten captioned pictures with their embeddings and codes, of which those named are bad."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 10

    def row(self, index: int) -> Row | None:
        if index in self.bad:
            return None
        image = np.full((3, 4, 4), index, np.uint8)
        return {
            "image": image,
            "caption": f"number {index}",
            "embedding": np.full(5, index, np.float32),
            "codes": np.arange(index, index + 2),
        }

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        return [np.arange(10)]


def test_a_new_field_goes_through_stream_and_batch_untouched() -> None:
    stream: Stream = Shuffled(Captioned(), 4, Transforms(size=2, crop="centre"))
    batch = next(iter(stream.batches(seed=0)))
    numbers = batch.image[:, 0, 0, 0]
    assert batch.image.shape == (4, 3, 2, 2) and batch.label is None and len(batch) == 4
    assert batch.fields["caption"] == tuple(f"number {number}" for number in numbers)
    embedding, codes = batch.fields["embedding"], batch.fields["codes"]
    assert isinstance(embedding, torch.Tensor) and embedding.dtype == torch.float32
    assert torch.equal(embedding[:, 0].long(), numbers.long())
    assert isinstance(codes, torch.Tensor) and torch.equal(codes[:, 1], numbers.long() + 1)
    part = batch[1:3]
    assert part.fields["caption"] == batch.fields["caption"][1:3] and torch.equal(part.image, batch.image[1:3])
    moved = batch.to(torch.device("meta"))
    assert moved.image.is_meta and moved.fields["caption"] == batch.fields["caption"]


def test_data_without_pictures_is_streamed_too() -> None:
    class Embeddings(Captioned):
        def row(self, index: int) -> Row | None:
            return {"embedding": np.full(5, index, np.float32), "label": index}

    batch = next(Shuffled(Embeddings(), 4, Transforms(flip=True), workers=0).batches(0))
    assert batch.fields.keys() == {"embedding", "label"}
    assert batch.label is not None and batch.label.dtype == torch.int64


def test_a_field_that_a_row_lacks_is_left_out() -> None:
    rows: list[dict[str, Any]] = [{"image": np.zeros((1, 2, 2), np.uint8), "label": 3}, {"image": np.ones((1, 2, 2), np.uint8)}]
    assert Batch.collate(rows).fields.keys() == {"image"}
    assert Batch.collate(rows[:1]).fields.keys() == {"image", "label"}


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_are_given_the_batch_of_one_in_shares(workers: int) -> None:
    def captions(rank: int, world: int) -> list[Any]:
        stream = Shuffled(Captioned(), 7, workers=workers).batches(3, 14, rank, world)
        return [batch.fields["caption"] for batch in islice(stream, 3)]

    whole = captions(0, 1)
    shares = [captions(rank, 3) for rank in range(3)]
    assert [sum(parts, ()) for parts in zip(*shares, strict=True)] == whole
    assert [[len(part) for part in parts] for parts in shares] == [[2] * 3, [2] * 3, [3] * 3]
    assert [range(7)[share(7, rank, 3)] for rank in range(3)] == [range(0, 2), range(2, 4), range(4, 7)]


def test_bad_rows_are_stood_in_for_and_left_out() -> None:
    source = Captioned(bad=(3, 4))
    seen = next(Shuffled(source, 10).batches(0)).fields["caption"]
    assert sorted(seen) == sorted([f"number {number}" for number in (0, 1, 2, 5, 5, 5, 6, 7, 8, 9)])
    parts = [batch.fields["caption"] for batch in sequential(source, 3)]
    assert parts == [("number 0", "number 1", "number 2"), ("number 5",), ("number 6", "number 7", "number 8"), ("number 9",)]
    with pytest.raises(Problem, match="none of the 10 examples can be read"):
        next(Shuffled(Captioned(bad=tuple(range(10))), 2).batches(0))
