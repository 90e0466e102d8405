"""What every metric has in common: it depends on the pictures, and not on their order, the batches or the number format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lodestar.config import kinds, parse, short
from lodestar.core import neighbours
from lodestar.data import Source
from lodestar.data.arrays import ArrayRows
from lodestar.evaluation import statistics
from lodestar.evaluation.metrics import KID, FeatureMetric, Score
from lodestar.evaluation.repeats import half_width
from lodestar.evaluation.run import Measurement, evaluate, evaluate_batches, evaluate_pictures
from lodestar.evaluation.statistics import Collector, FeatureSet, Statistics
from tests.evaluation import tiny

METRICS: list[FeatureMetric] = [parse("metric", kind, FeatureMetric) for kind in kinds(FeatureMetric)]
METRICS += [Score(split_size=16), Score(split_size=16, seed=3), KID(max_subset_size=12, subsets=20)]
"""Every kind of metric of features as it is, and those that draw subsets with subsets far smaller than the sets."""

Set = tuple[Tensor, ...]
"""Features, logits, spatial features of some pictures."""


def rows(count: int, dim: int, seed: int, dtype: torch.dtype = torch.float32) -> Set:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, size, generator=rng, dtype=torch.float64).to(dtype) for size in (dim, 5, 4))


def joined(*sets: Set) -> Set:
    return tuple(torch.cat(each) for each in zip(*sets, strict=True))


def permuted(pictures: Set, seed: int) -> Set:
    order = torch.randperm(len(pictures[0]), generator=torch.Generator().manual_seed(seed))
    return tuple(each[order] for each in pictures)


def batched(pictures: Set, sizes: Sequence[int]) -> Statistics:
    collector = Collector()
    for part in zip(*(each.split(list(sizes)) for each in pictures), strict=True):
        collector.add(FeatureSet(*part))
    return collector.statistics()


def plain(pictures: Set) -> Statistics:
    return Statistics.of(FeatureSet(*pictures))


def sets(name: str) -> tuple[Set, Set]:
    """Generated pictures and a reference, many of them equal among "copies": with each other, and across the two."""
    generated, reference = rows(70, 6, 0), rows(90, 6, 1)
    if name == "copies":
        some = tuple(each[:40] for each in reference)
        return joined(some, generated), joined(reference, some)
    return (rows(70, 200, 0), rows(90, 200, 1)) if name == "fewer than features" else (generated, reference)


SETS = ("distinct", "copies", "fewer than features")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("metric", METRICS, ids=short)
def test_the_order_of_the_pictures_changes_nothing(metric: FeatureMetric, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it where the blocks in which distances are computed fall elsewhere: rounding decides no tie."""
    generated, reference = sets(name)
    expected = metric(plain(generated), plain(reference))
    for seed, block in ((1, 1024), (2, 7), (3, 33)):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        found = metric(plain(permuted(generated, seed)), plain(permuted(reference, seed + 10)))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("metric", METRICS, ids=short)
def test_batches_of_any_sizes_change_nothing(metric: FeatureMetric, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generated, reference = sets(name)
    expected = metric(plain(generated), plain(reference))
    monkeypatch.setattr(statistics, "_BLOCK", 8)
    for sizes in ([1] * len(generated[0]), [len(generated[0])], [3, 64, 1, len(generated[0]) - 68]):
        assert metric(batched(generated, sizes), plain(reference)) == pytest.approx(expected, rel=1e-9, abs=1e-11)
        theirs = batched(reference, [len(reference[0]) - 50, 50])
        assert metric(batched(generated, sizes), theirs) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("metric", METRICS, ids=short)
def test_the_number_format_of_features_changes_what_its_rounding_does_and_no_more(metric: FeatureMetric) -> None:
    """float32 held in float64 gives the same; float64 rounded to float32 the same to 1e-5, and shares of pictures a picture."""
    generated, reference = rows(70, 6, 0, torch.float64), rows(90, 6, 1, torch.float64)
    low = [tuple(each.float() for each in part) for part in (generated, reference)]
    held = [tuple(each.double() for each in part) for part in low]
    expected = metric(*map(plain, low))
    assert metric(*map(plain, held)) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    allowed = 1.01 / 70 if metric.kind in ("precision_recall", "density_coverage", "nearest") else 1e-6
    assert metric(plain(generated), plain(reference)) == pytest.approx(expected, rel=1e-5, abs=allowed)


def test_the_published_score_does_depend_on_the_order_and_says_so() -> None:
    """Or else the tests above could not fail."""
    generated, reference = sets("distinct")
    published = Score(split_size=16, splits="consecutive")
    one, two = (published(plain(each), plain(reference))["score"] for each in (generated, permuted(generated, 1)))
    assert abs(one - two) > 1e-4
    told = "score: splits of 16 pictures in their order, as published"
    assert published.note(64) == told and published.note(70) == f"{told}; the last split has 6 and counts as much"
    assert published.note(16) is None and Score(split_size=16).note(70) is None


def test_no_two_seeds_draw_the_same_subsets() -> None:
    generated, reference = map(plain, sets("distinct"))
    for metric in (Score(split_size=16), KID(max_subset_size=12, subsets=3)):
        numbers = [metric.replace(seed=seed)(generated, reference) for seed in (0, 1, 2**32, 2**32 + 1)]
        values = [next(iter(each.values())) for each in numbers]
        assert len(set(values)) == 4


# From the pictures on.


def source(order: Sequence[int], name: str = "noise") -> Source:
    images = np.random.default_rng(5).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)[list(order)]
    return Source(ArrayRows(images, np.zeros(len(images), np.int64), tiny.NAMES), name)


def test_numbers_of_pictures_are_the_same_in_any_order_and_any_batches(tmp_path: Path) -> None:
    """To the rounding of the network, which is float32, in every kind of metric."""
    extractor, orders = tiny.extractor(), [range(40), range(39, -1, -1), np.random.default_rng(0).permutation(40).tolist()]
    numbers = []
    for order, batch_size in zip(orders, (64, 1, 7), strict=True):
        report = evaluate_pictures(
            source(order),
            tiny.reference(),
            extractor,
            run=Measurement(batch_size=batch_size, metrics=METRICS, cache=tmp_path / str(batch_size)),
        )
        numbers.append(report.numbers)
    images = torch.stack([torch.from_numpy(image.copy()) for image, _ in (source(orders[2])[k] for k in range(40))])
    batches = evaluate_batches(images.split([1, 30, 9]), tiny.reference(), extractor, metrics=METRICS, cache=tmp_path)
    for each in (*numbers[1:], batches.numbers):
        assert each == pytest.approx(numbers[0], rel=2e-4, abs=1e-5)


def test_intervals_are_the_same_in_any_batches_and_any_order_of_the_runs(tmp_path: Path) -> None:
    one, two = (
        evaluate(
            tiny.diffusion(), tiny.reference(), tiny.extractor(), count=12,
            run=Measurement(metrics=METRICS, batch_size=size, repeats=3, cache=tmp_path),
        )
        for size in (5, 64)
    )  # fmt: skip
    assert one.intervals is not None and two.intervals is not None
    # A value of a picture may round to the other of two neighbours, which tells on few pictures.
    assert one.intervals == pytest.approx(two.intervals, rel=0.05, abs=1e-3)
    values = [run["frechet"] for run in one.runs]
    assert half_width(values) == pytest.approx(half_width(values[::-1]), rel=1e-12) == pytest.approx(one.intervals["frechet"])
