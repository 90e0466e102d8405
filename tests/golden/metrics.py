"""Adapters for the metrics: Fréchet distance, Inception score, kernel distances, precision and recall."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lodestar.core.neighbours import squared_radii
from lodestar.evaluation.extractors.vit import bicubic
from lodestar.evaluation.metrics.cmmd import CMMD
from lodestar.evaluation.metrics.frechet import frechet_distance, trace_sqrt_product
from lodestar.evaluation.metrics.inception_score import blocks, inception_scores
from lodestar.evaluation.metrics.kid import mmd2, polynomial_kernel, subset_mmd2, unbiased, within
from lodestar.evaluation.metrics.precision_recall import PrecisionRecall
from lodestar.evaluation.statistics import FeatureSet, Moments, Statistics
from lodestar.evaluation.subsets import equal_parts
from lodestar.nets import inception

from .harness import Case, Check, Left, adapter


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"no {pattern!r} in {text!r}"
    return int(found[1])


@adapter("metrics_fid")
def frechet(case: Case) -> Iterator[Check | Left]:
    for name in case.outputs:
        subcase, _, what = name.rpartition("/")
        given = {key.removeprefix(f"{subcase}/"): value for key, value in case.inputs.items() if key.startswith(f"{subcase}/")}
        settings = case.subcases.get(subcase, {})
        one, two = (_gaussian(given, number, settings) for number in "12")
        # Without full rank, matrix square roots agree less well (the JSON's note).
        rtol = 1e-4 if settings.get("rank_deficient") else None
        match what.split("_"):
            case ["mu", number]:
                yield Check(name, _gaussian(given, number, settings)[0])
            case ["sigma", number]:
                yield Check(name, _gaussian(given, number, settings)[1])
            case ["trace", "sqrt"]:
                yield Check(name, trace_sqrt_product(one[1], two[1]), rtol=rtol)
            case _:  # the same number by different implementations
                yield Check(name, frechet_distance(*one, *two), rtol=rtol)


def _gaussian(given: dict[str, Tensor], number: str, settings: dict) -> tuple[Tensor, Tensor]:
    if f"var_{number}" in given:
        return given[f"mu_{number}"], torch.diag(given[f"var_{number}"])
    if f"spatial_{number}" in given:
        spatial = given[f"spatial_{number}"]
        channels = settings["channels_kept"]
        kept = spatial[..., :channels] if settings["layout"] == "NHWC" else spatial[:, :channels]
        moments = Moments.of(kept.flatten(1))
    else:
        moments = Moments.of(given[f"features_{number}"])
    return moments.mean, moments.covariance


@adapter("metrics_is")
def inception_score(case: Case) -> Iterator[Check | Left]:
    probabilities = case.inputs["logits"].double().softmax(1)
    shuffled = probabilities[case.inputs["permutation"]]
    count = len(probabilities)
    for name in case.outputs:
        tool, what = name.split("/")
        if tool == "guided_diffusion":
            scores = inception_scores(probabilities, blocks(count, _number(r"split_size(\d+)", what)))
            yield Check(name, scores.mean(), rtol=1e-5)  # its softmax is float32
            continue
        mean_name, moment = f"{tool}/{what.rpartition('_')[0]}_mean", what.rpartition("_")[2]
        parts = equal_parts(count, _number(r"(\d+) splits", case.description(f"out/{mean_name}")))
        scores = inception_scores(probabilities if what.startswith("noshuffle") else shuffled, parts)
        yield Check(name, scores.mean() if moment == "mean" else scores.std(correction=0))


@adapter("metrics_kid")
def kid(case: Case) -> Iterator[Check | Left]:
    one, two = case.inputs["features_1"], case.inputs["features_2"]
    stored = case.inputs["subset_idx_1"].long(), case.inputs["subset_idx_2"].long()
    of_stored = subset_mmd2(one, two, *stored)
    of_default = _default_run(case, stored)
    for name in case.outputs:
        exact = {"rtol": 1e-9, "atol": 1e-12} if name.endswith("_f64") else {"rtol": 0.0, "atol": 1e-6}
        match re.split(r"[_\d]+", name.removesuffix("_f64")):
            case ["per", "subset", *_]:
                yield Check(name, of_stored, **exact)
            case ["stored", "subsets", moment]:
                yield Check(name, of_stored.mean() if moment == "mean" else of_stored.std(correction=0), **exact)
            case ["default", moment]:
                if of_default is None:
                    yield Left(name, "the case does not give the subsets of this run")
                else:
                    yield Check(name, of_default.mean() if moment == "mean" else of_default.std(correction=0), **exact)
            case ["rbf", *_]:
                sigma, values = _number(r"sigma(\d+)", name), []
                for i in range(_number(r"(\d+)subsets", name)):
                    x, y = one[stored[0][i]].double(), two[stored[1][i]].double()
                    values.append(unbiased(*(gaussian_kernel(*pair, sigma) for pair in ((x, x), (y, y), (x, y)))))
                yield Check(name, torch.stack(values).mean(), **exact)
            case ["k", "diffusion", "full"]:
                yield Check(name, mmd2(one, two))
            case ["mmd", _]:
                rows = _number(r"first (\d+) rows", case.description(f"out/{name}"))
                x, y = one[:rows].double(), two[:rows].double()
                yield Check(name, _mmd2(x, y, name.removeprefix("mmd2_")))


def gaussian_kernel(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """exp(-|x - y|² / 2σ²)."""
    return torch.exp(-(torch.cdist(x, y) ** 2) / (2 * sigma**2))


def _mmd2(x: Tensor, y: Tensor, estimator: str) -> Tensor:
    """MMD² by the estimators of Gretton et al. 2012: the metric's own, and two that it does not use.

    "biased" (eq. 5) keeps the pairs (i, i) within a set; "u-statistic" (eq. 4) drops them between the sets too.
    """
    xx, yy, xy = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
    match estimator:
        case "biased":
            return xx.mean() + yy.mean() - 2 * xy.mean()
        case "u-statistic":
            return within(xx) + within(yy) - 2 * within(xy)
    assert estimator == "unbiased", estimator
    return mmd2(x, y)


def _default_run(case: Case, stored: tuple[Tensor, Tensor]) -> Tensor | None:
    """MMD² of all subsets of torch-fidelity's default run; None where the stored subsets are not its first."""
    seed = _number(r"RandomState\((\d+)\)", " ".join(case.meta["conventions"]))
    subsets = _number(r"(\d+) subsets", case.description("out/default_mean"))
    one, two, size = case.inputs["features_1"], case.inputs["features_2"], stored[0].shape[1]
    rng = np.random.RandomState(seed)
    rows = [[torch.from_numpy(rng.choice(len(features), size, replace=False)) for features in (one, two)] for _ in range(subsets)]
    drawn = [torch.stack(side) for side in zip(*rows, strict=True)]
    same = all(torch.equal(ours[: len(given)], given) for ours, given in zip(drawn, stored, strict=True))
    return subset_mmd2(one, two, *drawn) if same else None


@adapter("metrics_precision_recall")
def precision_and_recall(case: Case) -> Iterator[Check | Left]:
    for subcase, settings in case.subcases.items():
        real, generated = case.inputs[f"{subcase}/real"], case.inputs[f"{subcase}/generated"]
        ours = PrecisionRecall(k=settings["k"])(*(Statistics.of(FeatureSet(each)) for each in (generated, real)))
        # One picture on the very edge of a ball may fall to either side in float32.
        tie = {"precision": 1.01 / len(generated), "recall": 1.01 / len(real)}
        for name in case.under(f"{subcase}/"):
            what = name.removeprefix(f"{subcase}/")
            fraction = next((fraction for fraction in ours if fraction in what), None)
            if what.endswith("f16_emulated"):
                yield Left(name, "for information: what half-precision distances change")
            elif fraction is None:
                yield Check(name, squared_radii(real if "real" in what else generated, settings["k"]), rtol=1e-4)
            else:
                allowed = 1e-12 if what.endswith("f64") else tie.get(fraction, sum(tie.values()))
                yield Check(name, torch.tensor(ours[fraction], dtype=torch.float64), atol=allowed)


@adapter("metrics_cmmd_clip")
def cmmd(case: Case) -> Iterator[Check | Left]:
    generated, reference = case.inputs["y"], case.inputs["x"]
    for name in case.outputs:
        match name.split("_"):
            case ["cmmd"]:
                yield Check(name, _cmmd(generated, reference))
            case ["cmmd", "float32"]:  # for information: agrees "to about 1e-3 absolute"
                yield Check(name, _cmmd(generated, reference).float(), atol=1e-3)
            case ["cmmd", "unbiased"]:
                pairs = (generated, generated), (reference, reference), (generated, reference)
                ours = unbiased(*(gaussian_kernel(*pair, CMMD().sigma) for pair in pairs))
                yield Check(name, 1000 * ours)
            case _:
                yield Left(name, "a score of texts and pictures, or of projections: no metric here")


def _cmmd(generated: Tensor, reference: Tensor) -> Tensor:
    ours = CMMD()(*(Statistics.of(FeatureSet(each)) for each in (generated, reference)))
    return torch.tensor(ours["cmmd"], dtype=torch.float64)


@adapter("metrics_preprocessing")
def preprocessing(case: Case) -> Iterator[Check | Left]:
    for name, theirs in case.outputs.items():
        given = case.inputs["big" if name.startswith("big_") else "image"].float()
        resized = inception.resize(given, tuple(theirs.shape[-2:]))
        match name.removeprefix("big_"):
            case "tf1_bilinear":
                yield Check(name, resized)
            case "tf1_normalised":
                yield Check(name, inception.normalise(resized))
            case "k_diffusion_input":
                yield Check(name, bicubic(given, tuple(theirs.shape[-2:])))
            case _:
                yield Left(name, "pytorch-fid's, which gives other numbers: pictures are resized as in TensorFlow's graph")
