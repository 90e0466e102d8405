"""Ranges of activations: the candidate of least error, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lodestar.config import Problem
from lodestar.data import Source
from lodestar.data.arrays import ArrayRows
from lodestar.evaluation import ranges
from lodestar.evaluation.ranges import Spread, find_ranges
from lodestar.nets.int8 import Grid
from tests.evaluation.tiny import diffusion, reference


@pytest.mark.parametrize("tail", [0, 2])
def test_the_range_is_the_one_at_which_rounding_errs_least(tail: int) -> None:
    values = torch.nn.functional.silu(torch.randn(200_000, generator=torch.Generator().manual_seed(1)))
    values[:tail] = 60.0  # outliers, which a range up to the maximum would pay for with all others

    def error(high: float) -> float:
        grid = Grid.to(high)
        return float((grid.decode(grid.encode(values)) - values).double().square().sum())

    spread = Spread()
    for part in values.split(7_000):
        spread.add(part)
    best = min(error(2.0 ** (exponent / 16)) for exponent in range(-32, 97))
    assert error(spread.best()) <= 1.1 * best  # it goes by counts, a sixteenth of an octave wide
    if tail:
        assert spread.best() < float(values.max())


def test_nothing_but_zeros_has_a_range_too() -> None:
    spread = Spread()
    spread.add(torch.zeros(100))
    assert 0 < spread.best() < 0.1


def test_ranges_do_not_depend_on_batches_and_follow_the_level() -> None:
    times, whole = find_ranges(diffusion(), reference(), "linspace:4", count=10, batch_size=10)
    same, parts = find_ranges(diffusion(), reference(), "linspace:4", count=10, batch_size=3)
    assert times == same and list(times) == sorted(times) and len(times) == 4
    assert whole.shape == (len(diffusion().denoiser.network.blocks), 2, 4)  # type: ignore[operator,arg-type]
    # A value at the edge of two candidates' counts may be rounded to either side.
    assert (whole / parts).log2().abs().max() <= 1.01 / 16
    assert not torch.equal(whole[..., 0], whole[..., -1])


def test_classes_are_the_datas_where_it_has_the_models() -> None:
    model, named = diffusion(), reference()
    (batch,) = ranges.batches(model, named, 24, 0, 24)
    labels = {bytes(image.numpy()): int(label) for image, label in zip(batch.image, batch.label, strict=True)}  # type: ignore[arg-type]
    for number in range(24):
        assert labels[bytes(named.row(number)["image"])] == number % 3  # type: ignore[index]
    others = Source(ArrayRows(np.zeros((24, 8, 8, 3), dtype=np.uint8)), "unnamed")
    drawn = [torch.cat([batch.label for batch in ranges.batches(model, others, 24, 0, size)]) for size in (5, 24)]  # type: ignore[misc]
    assert drawn[0].unique().tolist() == [0, 1, 2] and torch.equal(*drawn)


def test_a_single_level_is_refused() -> None:
    with pytest.raises(Problem, match="steps '1' have one level: ranges are taken at two or more"):
        find_ranges(diffusion(), reference(), "1", count=2)
