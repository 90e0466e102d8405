"""Published references, batches as they come, the self-test: with a network in Inception's place that answers in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.config import Problem, parse
from lodestar.data import open_source
from lodestar.evaluation import published as module
from lodestar.evaluation import self_test as test_module
from lodestar.evaluation.extractors import Extractor, InceptionExtractor
from lodestar.evaluation.extractors import inception as inception_module
from lodestar.evaluation.metrics import PUBLISHED, Frechet, Metric, PrecisionRecall, Score, SpatialFrechet
from lodestar.evaluation.metrics.frechet import frechet_distance
from lodestar.evaluation.reference import open_reference
from lodestar.evaluation.run import Measurement, evaluate_batches, evaluate_pictures
from lodestar.evaluation.self_test import self_test
from lodestar.nets.inception import Inception, normalise

from . import tiny

FEATURES, SPATIAL = 12, 7 * 4
RNG = np.random.default_rng(0)
SAMPLES = RNG.integers(0, 256, (40, 8, 8, 3), np.uint8)
REFERENCE = RNG.integers(0, 200, (30, 8, 8, 3), np.uint8)


class Stub(torch.nn.Module):
    """Features that are means over a quarter of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(FEATURES, 5, bias=False)
        torch.nn.init.normal_(self.fc.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = F.adaptive_avg_pool2d(x, 2).flatten(1)
        maps = F.adaptive_avg_pool2d(x.repeat(1, 3, 1, 1), 2)
        return features, features @ self.fc.weight.T, maps


@pytest.fixture(autouse=True)
def extractor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InceptionExtractor:
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "FEATURES", FEATURES)
    monkeypatch.setattr(module, "SPATIAL", SPATIAL)
    monkeypatch.setattr(inception_module, "prepare", lambda pictures: normalise(pictures.float()))  # not resized: in a moment
    return InceptionExtractor("inception", "stub", cast(Inception, Stub().requires_grad_(False)))


def statistics(extractor: InceptionExtractor, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """As guided-diffusion's evaluator computes them."""
    found = extractor(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    assert found.spatial is not None
    values: dict[str, np.ndarray] = {}
    for each, end in ((found.features.numpy(), ""), (found.spatial.numpy(), "_s")):
        values |= {f"mu{end}": each.mean(0), f"sigma{end}": np.cov(each, rowvar=False)}
    return values


def distance(extractor: InceptionExtractor, end: str) -> float:
    ours, theirs = statistics(extractor, SAMPLES), statistics(extractor, WHOLE)
    gaussians = [torch.from_numpy(each[f"{name}{end}"]).double() for each in (ours, theirs) for name in ("mu", "sigma")]
    return float(frechet_distance(*gaussians))


WHOLE = RNG.integers(0, 200, (500, 8, 8, 3), np.uint8)
"""The data set, some of whose pictures the reference holds."""


@pytest.fixture
def reference(extractor: InceptionExtractor, tmp_path: Path) -> str:
    path = tmp_path / "VIRTUAL.npz"
    np.savez(path, arr_0=REFERENCE, **statistics(extractor, WHOLE))
    return str(path)


def test_the_score_by_inception_is_the_published_one_unless_it_names_its_splits(
    extractor: InceptionExtractor, samples: str, tmp_path: Path
) -> None:
    def score(form: str | None, by: Extractor) -> float:
        metrics = [Score(split_size=7, splits=form)]  # type: ignore[arg-type]
        return evaluate_pictures(
            open_source(samples), tiny_source(REFERENCE), by, run=Measurement(metrics=metrics, cache=tmp_path)
        ).numbers["score"]

    assert score(None, extractor) == score("consecutive", extractor) != score("shuffled", extractor)
    other = tiny.extractor()
    assert score(None, other) == score("shuffled", other) != score("consecutive", other)
    assert parse("metric", "score:splits=consecutive", Metric) in PUBLISHED


@pytest.fixture
def samples(tmp_path: Path) -> str:
    np.savez(tmp_path / "samples.npz", SAMPLES)
    return str(tmp_path / "samples.npz")


def test_moments_are_the_files_and_neighbours_its_pictures(extractor: InceptionExtractor, reference: str, samples: str) -> None:
    metrics = (Frechet(), SpatialFrechet(), Score(split_size=25), PrecisionRecall())
    against = open_reference(reference, None, extractor, (8, 8))
    report = evaluate_pictures(open_source(samples), against, extractor, run=Measurement(metrics=metrics))
    assert report.numbers["frechet"] == pytest.approx(distance(extractor, ""), rel=1e-4)
    assert report.numbers["spatial_frechet"] == pytest.approx(distance(extractor, "_s"), rel=1e-4)
    plain = evaluate_pictures(open_source(samples), tiny_source(REFERENCE), extractor, run=Measurement(metrics=metrics))
    for name in ("precision", "recall", "score"):
        assert report.numbers[name] == plain.numbers[name]
    assert report.numbers["frechet"] != plain.numbers["frechet"]
    assert any("means and covariances are the file's" in warning and "its 30 pictures" in warning for warning in report.warnings)
    assert report.pictures == samples and report.reference == reference


def tiny_source(pictures: np.ndarray) -> Any:
    from lodestar.data import Source
    from lodestar.data.arrays import ArrayRows

    return Source(ArrayRows(pictures), "pictures")


def test_a_file_of_moments_alone_gives_the_distances_alone(extractor: InceptionExtractor, tmp_path: Path, samples: str) -> None:
    path = tmp_path / "cifar10.npz"
    whole = statistics(extractor, WHOLE)
    np.savez(path, mu=whole["mu"], sigma=np.asfortranarray(whole["sigma"]))
    report = evaluate_pictures(open_source(samples), open_reference(str(path), None, extractor, (8, 8)), extractor)
    assert report.numbers["frechet"] == pytest.approx(distance(extractor, ""), rel=1e-4)
    assert set(report.numbers) == {"frechet", "score", "score_std"}
    assert any("precision_recall needs features" in warning for warning in report.warnings)


def test_pictures_of_a_reference_pass_only_where_a_metric_needs_their_features(
    extractor: InceptionExtractor, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InceptionExtractor, "__call__", lambda *_: pytest.fail("a picture was passed"))
    against = open_reference(reference, None, extractor, (8, 8), metrics=(Frechet(),))
    assert against.of(extractor).features is None  # type: ignore[union-attr]


def test_what_does_not_fit_is_a_problem(extractor: InceptionExtractor, reference: str, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"VIRTUAL.npz holds statistics of Inception's features, not of tiny's: give --extractor"):
        open_reference(reference, None, tiny.extractor(), (8, 8))
    whole, path = statistics(extractor, WHOLE), tmp_path / "bad.npz"

    def complaint(match: str, **changes: Any) -> None:
        np.savez(path, **{name: value for name, value in {**whole, **changes}.items() if value is not None})
        with pytest.raises(Problem, match=match):
            open_reference(str(path), None, extractor, (8, 8))

    complaint(r"bad.npz: mu is float32 \[11\], and Inception's is float \[12\]", mu=whole["mu"][:-1])
    complaint(r"bad.npz: sigma is float64 \[12\], and Inception's is float \[12, 12\]", sigma=whole["sigma"][0])
    complaint(r"bad.npz holds no sigma: it holds mu, mu_s, sigma_s", sigma=None)
    complaint(r"bad.npz: mu_s is not finite", mu_s=whole["mu_s"] * np.nan)
    complaint(r"bad.npz: mu holds Python objects, and reading them could run code", mu=np.array([None] * 12))


def test_batches_are_measured_as_they_come(extractor: InceptionExtractor, samples: str) -> None:
    def arrays() -> Iterator[np.ndarray]:
        yield SAMPLES[:16]
        yield SAMPLES[16:]

    against = tiny_source(REFERENCE)
    expected = evaluate_pictures(open_source(samples), against, extractor).numbers
    assert evaluate_batches(arrays(), against, extractor).numbers == pytest.approx(expected)
    tensors = torch.from_numpy(SAMPLES).permute(0, 3, 1, 2).split(7)
    report = evaluate_batches(tensors, against, extractor, what="mine")
    assert report.numbers == pytest.approx(expected) and (report.count, report.pictures) == (40, "mine")
    for wrong in (SAMPLES[0], SAMPLES / 255, SAMPLES.transpose(0, 3, 1, 2)):
        with pytest.raises(Problem, match=r"batches: one is .*: give tensors uint8 \[B, C, H, W\] or arrays"):
            evaluate_batches([wrong], against, extractor)
    with pytest.raises(Problem, match="there are no pictures to measure"):
        evaluate_batches([], against, extractor)
    with pytest.raises(Problem, match="1 picture has no covariance"):
        evaluate_batches([SAMPLES[:1]], against, extractor)


def test_the_self_test_says_which_files_it_needs_and_where(extractor: InceptionExtractor, tmp_path: Path, samples: str) -> None:
    with pytest.raises(Problem) as found:
        self_test(None, None, extractor)
    expected = r"the self-test needs https://.*/admnet_guided_upsampled_imagenet256.npz: put it at .*/cache/downloads/admnet_"
    assert found.match(expected)
    with pytest.raises(Problem, match=r"needs https://.*/VIRTUAL_imagenet256_labeled.npz: put it at"):
        self_test(samples, None, extractor)


def test_the_self_test_compares_with_the_printed_numbers(
    extractor: InceptionExtractor, samples: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Problem, match=r"the self-test fails: score is .*, printed is 215.837 ± 0.2; .*recall is"):
        self_test(samples, reference, extractor)
    numbers = evaluate_pictures(open_source(samples), open_reference(reference, None, extractor, (8, 8)), extractor).numbers
    monkeypatch.setattr(test_module, "EXPECTED", {name: (numbers[name], 1e-6) for name in test_module.EXPECTED})
    assert self_test(samples, reference, extractor).numbers["frechet"] == numbers["frechet"]
