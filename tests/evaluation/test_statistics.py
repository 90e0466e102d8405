"""Moments, and what is kept of batches."""

from __future__ import annotations

import pytest
import torch

from lodestar.config import Problem
from lodestar.evaluation import statistics
from lodestar.evaluation.statistics import PARTS, Collector, FeatureSet, Moments


def features(count: int, dim: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_moments_of_parts_add_up_to_those_of_the_whole_far_from_zero_too() -> None:
    whole = features(50).double() + 1e6
    one, two, three = (Moments.of(part) for part in whole.split([7, 1, 42]))
    for moments in (one + two + three, one + (two + three), three + one + two):
        assert moments.count == 50
        torch.testing.assert_close(moments.mean, whole.mean(0), rtol=1e-14, atol=0)
        torch.testing.assert_close(moments.covariance, torch.cov(whole.T), rtol=1e-8, atol=1e-9)


def test_features_that_cannot_be_measured_are_problems() -> None:
    broken = features(4)
    broken[2, 1], broken[3, 0] = float("nan"), float("inf")
    with pytest.raises(Problem, match="the features of 2 of 4 pictures are not finite"):
        FeatureSet(broken)
    with pytest.raises(Problem, match="no pictures"):
        FeatureSet(features(0))


def batches(count: int, size: int, spatial: bool = True) -> list[FeatureSet]:
    tensors = features(count), features(count, 3, seed=1), features(count, 4, seed=2) if spatial else None
    parts = zip(*(each.split(size) if each is not None else [None] * count for each in tensors), strict=False)
    return [FeatureSet(*part) for part in parts]  # type: ignore[arg-type]


def test_a_collector_sums_up_batches_and_keeps_what_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_BLOCK", 16)
    for parts in (PARTS, {"moments"}, {"logits"}):
        collector = Collector(parts)
        for batch in batches(50, 7):
            collector.add(batch)
        found = collector.statistics()
        assert len(found) == 50 and found.parts == {"moments", *parts}
        torch.testing.assert_close(found.moments.covariance, torch.cov(features(50).double().T))
        if parts is PARTS:
            assert found.spatial is not None and torch.equal(found.features, features(50))
            torch.testing.assert_close(found.spatial.covariance, torch.cov(features(50, 4, seed=2).double().T))
    with pytest.raises(Problem, match="no pictures"):
        Collector().statistics()


@pytest.mark.parametrize("wanted", [1, 7, 20, 49, 50])
def test_a_collector_keeps_the_features_of_some_pictures_evenly_chosen(wanted: int) -> None:
    found = Collector(some=(wanted, 50))
    for number in range(50):
        found.add(FeatureSet(torch.full((1, 2), float(number))))
    kept = found.statistics().features
    assert kept is not None and len(kept) == wanted and len(found.statistics()) == 50
    gaps = kept[:, 0].diff()
    assert not len(gaps) or gaps.max() - gaps.min() <= 1
