"""The metrics against closed forms, definitions written out, and each other."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem, decode, kinds, parse
from lodestar.core import neighbours
from lodestar.core.neighbours import inside, nearest, squared_radii
from lodestar.evaluation.metrics import (
    CMMD,
    KID,
    DensityCoverage,
    FeatureMetric,
    Frechet,
    Nearest,
    PrecisionRecall,
    Score,
    SpatialFrechet,
)
from lodestar.evaluation.metrics import cmmd as cmmd_module
from lodestar.evaluation.metrics import kid as kid_module
from lodestar.evaluation.metrics.frechet import frechet_distance, trace_sqrt_product
from lodestar.evaluation.metrics.inception_score import blocks, inception_scores
from lodestar.evaluation.metrics.precision_recall import f_score, precision_recall
from lodestar.evaluation.statistics import FeatureSet, Statistics
from lodestar.evaluation.subsets import equal_parts, ordered, shuffled


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def known(features: Tensor) -> Statistics:
    return Statistics.of(FeatureSet(features))


def pictures(count: int, seed: int = 0, dim: int = 6) -> Statistics:
    features, logits, spatial = (normal(count, size, seed=seed + more) for more, size in enumerate((dim, 5, 4)))
    return Statistics.of(FeatureSet(features.float(), logits.float(), spatial.float()))


# Every kind.


@pytest.mark.parametrize("kind", kinds(FeatureMetric))
def test_every_kind_reads_back_and_answers_finite_numbers(kind: str) -> None:
    metric = parse("metric", kind, FeatureMetric)
    assert decode(FeatureMetric, metric.to_json()) == metric
    numbers = metric(pictures(40), pictures(30, seed=7))
    assert numbers and all(isinstance(value, float) and math.isfinite(value) for value in numbers.values())


@pytest.mark.parametrize("kind", kinds(FeatureMetric))
def test_every_kind_answers_the_same_twice(kind: str) -> None:
    metric = parse("metric", kind, FeatureMetric)
    assert metric(pictures(40), pictures(30, seed=7)) == metric(pictures(40), pictures(30, seed=7))


@pytest.mark.parametrize("kind", kinds(FeatureMetric))
def test_every_kind_measures_the_least_pictures_that_it_names(kind: str) -> None:
    metric = parse("metric", kind, FeatureMetric)
    assert all(math.isfinite(value) for value in metric(pictures(metric.least), pictures(metric.least, seed=7)).values())
    if metric.least > 1:
        with pytest.raises(Problem):
            metric(pictures(metric.least - 1), pictures(9))


def test_no_two_kinds_answer_the_same_name() -> None:
    names = [name for kind in kinds(FeatureMetric) for name in parse("metric", kind, FeatureMetric)(pictures(20), pictures(20))]
    assert len(names) == len(set(names))


# Fréchet distance.


def test_frechet_distance_of_commuting_covariances_is_the_closed_form() -> None:
    rotation = torch.linalg.qr(normal(8, 8)).Q
    a, b = normal(8, seed=1).exp(), normal(8, seed=2).exp()
    shift = normal(8, seed=3)
    ours = frechet_distance(torch.zeros(8), rotation * a @ rotation.T, shift, rotation * b @ rotation.T)
    torch.testing.assert_close(ours, (shift**2).sum() + ((a.sqrt() - b.sqrt()) ** 2).sum(), rtol=1e-12, atol=0)


def test_trace_of_the_square_root_is_the_sum_of_the_roots_of_the_eigenvalues_of_the_product() -> None:
    one, two = (pictures(50, seed=seed).moments.covariance for seed in (1, 2))
    expected = torch.linalg.eigvals(one @ two).sqrt().real.sum()
    torch.testing.assert_close(trace_sqrt_product(one, two), expected, rtol=1e-12, atol=0)


def test_frechet_distance_of_a_set_to_itself_is_zero_even_with_fewer_pictures_than_features() -> None:
    few = pictures(12, dim=40)
    assert abs(Frechet()(few, few)["frechet"]) < 1e-10 * float(few.moments.covariance.trace())


def test_covariances_without_full_rank_and_without_common_directions_have_no_root_in_common() -> None:
    rotation = torch.linalg.qr(normal(40, 40)).Q
    one, two = rotation[:, :15] @ rotation[:, :15].T, rotation[:, 20:] @ rotation[:, 20:].T
    assert float(trace_sqrt_product(one, two)) < 1e-12


def test_frechet_distance_is_symmetric_and_grows_by_the_squared_shift() -> None:
    one, two = pictures(60), pictures(50, seed=3)
    there, back = Frechet()(one, two)["frechet"], Frechet()(two, one)["frechet"]
    assert there == pytest.approx(back, rel=1e-12)
    moved = known(one.features.double() + 10.0)
    assert Frechet()(moved, known(one.features.double()))["frechet"] == pytest.approx(6 * 100.0, rel=1e-10)


def test_frechet_distance_of_one_picture_is_a_problem() -> None:
    with pytest.raises(Problem, match="1 picture has no covariance"):
        Frechet()(pictures(1), pictures(9))


# Score.


def test_sure_and_varied_predictions_score_the_number_of_classes_and_equal_ones_score_one() -> None:
    whole = [slice(None)]
    torch.testing.assert_close(
        inception_scores(torch.eye(7, dtype=torch.float64), whole), torch.tensor([7.0], dtype=torch.float64)
    )
    same = normal(1, 7).softmax(1).expand(9, 7)
    torch.testing.assert_close(inception_scores(same, whole), torch.ones(1, dtype=torch.float64))


def test_score_is_the_exponential_of_the_mean_divergence_from_the_mean() -> None:
    p = normal(11, 4).softmax(1)
    divergence = (p * (p / p.mean(0)).log()).sum(1).mean()
    torch.testing.assert_close(inception_scores(p, [slice(None)])[0], divergence.exp())


def test_consecutive_splits_are_the_published_ones() -> None:
    assert blocks(12, 5) == [slice(0, 5), slice(5, 10), slice(10, 12)]
    numbers = Score(split_size=8, splits="consecutive")(pictures(20), pictures(3))
    logits = pictures(20).logits
    assert logits is not None
    each = [Score()(Statistics.of(FeatureSet(part, part)), pictures(3))["score"] for part in logits.split(8)]
    assert numbers["score"] == pytest.approx(sum(each) / 3)
    assert numbers["score_std"] == pytest.approx(float(torch.tensor(each).std(correction=0)), rel=1e-5)


def sure(classes: Tensor) -> Statistics:
    """What a classifier says that is sure of the class of each picture."""
    logits = 50 * torch.nn.functional.one_hot(classes, 10).float()
    return Statistics.of(FeatureSet(logits, logits))


def test_equal_splits_are_as_many_as_are_whole_and_hold_what_is_left_over() -> None:
    assert equal_parts(11, 3) == [slice(0, 3), slice(3, 7), slice(7, 11)]
    for count, parts in ((7, 1), (8, 1), (15, 1), (16, 2), (23, 2), (24, 3)):
        p = shuffled(pictures(count).logits.double().softmax(1), 5)  # type: ignore[union-attr]
        scores = inception_scores(p, equal_parts(count, parts))
        numbers = Score(split_size=8, seed=5)(pictures(count), pictures(3))
        assert numbers == {"score": float(scores.mean()), "score_std": float(scores.std(correction=0))}


@pytest.mark.parametrize("count", [9_990, 10_000, 10_001, 5_001, 4_000])
def test_sure_predictions_of_ten_classes_score_ten_sorted_or_not_and_with_one_picture_more(count: int) -> None:
    """exp of the entropy of the classes, but for what a split of thousands lacks of some: about 9 / 2 of its pictures' number."""
    classes = torch.arange(count) % 10
    for each in (classes, classes.sort().values, classes.flip(0)):
        assert Score()(sure(each), pictures(3))["score"] == pytest.approx(10, abs=0.02)
    published = Score(splits="consecutive")
    assert published(sure(torch.arange(10_000) % 10), pictures(3))["score"] == pytest.approx(10, abs=1e-6)
    assert published(sure(torch.arange(10_000) // 1000), pictures(3))["score"] == pytest.approx(5, abs=1e-6)
    assert published(sure(torch.arange(5_001) % 10), pictures(3))["score"] == pytest.approx((10 + 1) / 2, abs=1e-6)


def test_an_order_of_their_own_is_the_same_for_rows_in_any_order() -> None:
    rows = torch.cat([normal(50, 3), normal(50, 3)[:20], torch.zeros(2, 3)])
    assert torch.equal(ordered(rows), ordered(rows[torch.randperm(72, generator=torch.Generator().manual_seed(1))]))
    assert torch.equal(ordered(rows).sort(0).values, rows.sort(0).values)
    assert not torch.equal(shuffled(rows, 0), shuffled(rows, 1))


def test_score_without_logits_is_a_problem() -> None:
    with pytest.raises(Problem, match="'score' needs class logits"):
        Score()(known(normal(4, 3)), pictures(4))


# Kernel distance.


def test_mmd2_is_its_definition_written_out() -> None:
    x, y = normal(5, 3), normal(4, 3, seed=1)

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    within_x = sum(k(a, b) for a, b in itertools.permutations(x, 2)) / (5 * 4)
    within_y = sum(k(a, b) for a, b in itertools.permutations(y, 2)) / (4 * 3)
    between = sum(k(a, b) for a in x for b in y) / (5 * 4)
    assert float(kid_module.mmd2(x, y)) == pytest.approx(within_x + within_y - 2 * between, rel=1e-12)


def test_the_estimator_is_zero_on_average_for_one_distribution() -> None:
    pairs = [(normal(20, 4, seed=2 * i), normal(20, 4, seed=2 * i + 1)) for i in range(200)]
    values = torch.stack([kid_module.mmd2(x, y) for x, y in pairs])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(len(pairs))


def test_kid_draws_subsets_without_replacement_by_its_seed() -> None:
    one, two = pictures(30), pictures(25, seed=5)
    assert KID(subsets=3, max_subset_size=10, seed=1)(one, two) != KID(subsets=3, max_subset_size=10, seed=2)(one, two)
    # Subsets as large as both sets are the sets themselves, whatever their order.
    whole = KID(subsets=4)(known(one.features[:25]), two)
    assert whole["kid"] == pytest.approx(float(kid_module.mmd2(one.features[:25], two.features)), rel=1e-9)
    assert whole["kid_std"] == pytest.approx(0, abs=1e-12)


def test_kid_of_one_picture_is_a_problem() -> None:
    with pytest.raises(Problem, match="needs at least 2 pictures: 1 measured"):
        KID()(pictures(1), pictures(9))


# Precision and recall.


def test_radii_and_coverage_on_a_line() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert squared_radii(line, k=1).tolist() == [1.0, 1.0, 4.0, 16.0]
    assert squared_radii(line, k=2).tolist() == [9.0, 4.0, 9.0, 36.0]
    points = torch.tensor([[-1.0], [-1.01], [5.0], [11.0], [11.1]])
    assert inside(points, line, squared_radii(line, k=1)).tolist() == [1, 0, 2, 1, 0]


def test_precision_and_recall_are_not_each_other() -> None:
    reference = normal(60, 2)
    generated = 0.3 * normal(50, 2, seed=1)  # faithful, of little variety
    precision, recall = precision_recall(generated, reference)
    assert precision > 0.9 and 0.1 < recall < 0.8
    assert precision_recall(reference, generated) == (recall, precision)
    assert f_score(precision, recall) == pytest.approx(2 / (1 / precision + 1 / recall))


def test_a_set_lies_within_itself_and_not_far_away() -> None:
    near = pictures(30)
    assert PrecisionRecall()(near, near) == {"precision": 1.0, "recall": 1.0, "f_score": 1.0}
    assert PrecisionRecall()(near, known(near.features + 100)) == {"precision": 0.0, "recall": 0.0, "f_score": 0.0}


def test_blocks_and_a_far_origin_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = normal(33, 4), normal(29, 4, seed=1)
    expected = torch.cdist(two, two).sort(1).values[:, 3] ** 2, precision_recall(one, two)
    monkeypatch.setattr(neighbours, "BLOCK", 5)
    torch.testing.assert_close(squared_radii(two + 1e6, 3), expected[0], rtol=1e-7, atol=0)
    assert precision_recall(one + 1e6, two + 1e6) == expected[1]


def test_too_few_pictures_for_k_neighbours_is_a_problem() -> None:
    with pytest.raises(Problem, match="needs at least 4 pictures: 3 measured"):
        PrecisionRecall()(pictures(3), pictures(9))


# Neighbours.


def test_neighbours_are_those_of_all_distances_sorted_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    points, others = normal(23, 3), normal(31, 3, seed=1)
    expected = torch.cdist(points, others).sort(1)
    for block in (1000, 7, 2):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        distances, indices = nearest(points + 1e5, others + 1e5, 4)
        torch.testing.assert_close(distances, expected.values[:, :4] ** 2, rtol=1e-8, atol=0)
        assert torch.equal(indices, expected.indices[:, :4])


# Density and coverage.


def test_density_and_coverage_on_a_line() -> None:
    line = known(torch.tensor([[0.0], [1.0], [3.0], [7.0]]))  # balls to the nearest: 1, 1, 2, 4
    found = DensityCoverage(k=1)(known(torch.tensor([[0.5], [2.0], [100.0]])), line)
    assert found == {"density": pytest.approx(4 / 3), "coverage": 3 / 4}


def test_equal_distributions_have_density_one_and_the_coverage_of_the_paper() -> None:
    found = [DensityCoverage(k=3)(known(normal(300, 4, seed=2 * i)), known(normal(300, 4, seed=2 * i + 1))) for i in range(8)]
    density, coverage = (sum(each[name] for each in found) / 8 for name in ("density", "coverage"))
    assert density == pytest.approx(1, abs=0.05)
    assert coverage == pytest.approx(1 - 2**-3, abs=0.02)


def test_an_outlier_of_the_reference_raises_precision_and_not_density() -> None:
    generated, reference = 8 + normal(50, 2), normal(50, 2, seed=1)
    outlier = torch.cat([reference, torch.full((1, 2), 20.0)])
    assert precision_recall(generated, reference)[0] == 0 and precision_recall(generated, outlier)[0] > 0.9
    assert DensityCoverage()(known(generated), known(outlier))["density"] < 0.25


# Nearest training neighbour.


def test_fresh_pictures_are_as_near_as_training_pictures_to_each_other_and_copies_nearer() -> None:
    training, fresh = normal(400, 3), normal(300, 3, seed=1)
    of_fresh = Nearest()(known(fresh), known(training))
    assert of_fresh["closer"] == pytest.approx(0.5, abs=0.05)
    assert of_fresh["nearest"] == pytest.approx(of_fresh["nearest_reference"], rel=0.15)
    copied = training[:300] + 1e-4 * fresh
    of_copies = Nearest()(known(copied), known(training))
    assert of_copies["closer"] > 0.99 and of_copies["authenticity"] < 0.01
    assert of_copies["authenticity"] < of_fresh["authenticity"]
    assert Nearest()(known(fresh + 50), known(training)) == pytest.approx(
        {**of_fresh, "authenticity": 1.0, "closer": 0.0, "nearest": 50 * 3**0.5}, rel=0.1
    )


def test_ties_are_half_closer() -> None:
    line = known(torch.tensor([[0.0], [1.0], [2.0]]))
    found = Nearest()(known(torch.tensor([[3.0], [-1.0]])), line)
    assert found == {"authenticity": 0.0, "closer": 0.5, "nearest": 1.0, "nearest_reference": 1.0}


# CMMD.


def test_cmmd_is_its_definition_written_out_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (torch.nn.functional.normalize(normal(n, 4, seed=n), dim=1) for n in (7, 5))

    def mean(a: Tensor, b: Tensor) -> float:
        return float(torch.exp(-(torch.cdist(a, b) ** 2) / 200).mean())

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert CMMD()(known(3 * x), known(0.1 * y))["cmmd"] == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(cmmd_module, "BLOCK", 2)
    assert CMMD()(known(x), known(y))["cmmd"] == pytest.approx(expected, rel=1e-9)
    assert CMMD()(known(x), known(x))["cmmd"] == pytest.approx(0, abs=1e-12)


# Spatial features.


def test_spatial_frechet_distance_is_that_of_the_spatial_features() -> None:
    one, two = pictures(40), pictures(30, seed=7)
    swapped = Statistics(two.moments, one.spatial)
    assert SpatialFrechet()(one, two)["spatial_frechet"] > 0.01
    assert SpatialFrechet()(one, swapped)["spatial_frechet"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(Problem, match="'spatial_frechet' needs spatial features"):
        SpatialFrechet()(known(normal(4, 3)), one)
