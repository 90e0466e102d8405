"""Bits per dimension: of exact models they are the entropy, by the bound and by the ODE; and what a report holds."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from lodestar.conditions import Label
from lodestar.config import Problem
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.exact import Gaussian, Mixture
from lodestar.core.level import Level
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Cosine
from lodestar.data import Source
from lodestar.data.arrays import ArrayRows
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.evaluation.likelihood import Likelihood, measure
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guided import Guided
from lodestar.generators.request import Settings, settings
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.samplers import DDIM, Ancestral

from . import tiny

SHAPE = (3, 8, 8)
LN2 = math.log(2)


def model(variance: str = "learned_range", **settings: Any) -> Diffusion:
    network = UNetConfig(**tiny.BACKBONE, out_channels=3 if variance == "fixed" else 6)
    denoiser = DenoiserConfig(network=network, variance=variance, conditions=conditions(3))  # type: ignore[arg-type]
    given = {"schedule": Cosine(timesteps=12), "size": (8, 8), "names": tiny.NAMES, "droppable": True} | settings
    return tiny.randomized(Diffusion(DiffusionConfig(denoiser=denoiser, **given)), 0)


def pictures(x0: Tensor) -> Source:
    """Data in [−1, 1] as 8-bit pictures."""
    images = ((x0 + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return Source(ArrayRows(images, None, None), "exact", channels=3)


def exactly(monkeypatch: pytest.MonkeyPatch, found: Denoise, plan: str, unknown: Any) -> Diffusion:
    """A model that knows the truth, also of the reverse variance: β̃ + (factor of x₀)²·Var(x₀ | x_t), `unknown` at a level."""
    made = model(schedule=Cosine(), steps="20")
    variance = {
        step.t.time: float(step.small) + float(step.coefficients()[0]) ** 2 * unknown(step.t)
        for step in parse_plan(plan).steps(made.config.schedule)
    }

    def denoise(x: Tensor, level: Level) -> Estimate:
        estimate = found(x, level)
        return replace(estimate, logvar=torch.full_like(x, math.log(variance[level.time])))

    monkeypatch.setattr(Guided, "denoise", lambda *_: denoise)
    return made


def test_of_an_exact_gaussian_both_are_its_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    std, plan = 0.25, "logsnr:60"
    entropy = math.log2(std * math.sqrt(2 * math.pi * math.e) * 255 / 2)
    made = exactly(
        monkeypatch,
        Gaussian(torch.zeros(SHAPE), std**2),
        plan,
        lambda t: std**2 * t.sigma**2 / (t.alpha**2 * std**2 + t.sigma**2),
    )
    source = pictures(std * torch.randn(100, *SHAPE, generator=torch.Generator().manual_seed(0)))
    numbers = measure(made, source, how=settings(steps=plan, clamp=False), count=100).numbers
    assert numbers["bpd"] == pytest.approx(entropy, abs=0.03)
    assert numbers["ode"] == pytest.approx(entropy, abs=0.03)
    assert numbers["bpd"] == pytest.approx(numbers["ode"], abs=0.01)
    # −log p of a Gaussian value has the variance ½; the bound has its draws of noise besides.
    assert numbers["ode_error"] == pytest.approx(math.sqrt(0.5 / (100 * 192)) / LN2, rel=0.3)
    assert numbers["ode_error"] < numbers["bpd_error"] < 0.02


def test_of_an_exact_mixture_both_are_its_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, variance, plan = torch.Generator().manual_seed(0), 0.04, "logsnr:200"
    truth = Mixture(torch.tensor([0.6, 0.4]), 0.3 * torch.randn(2, *SHAPE, generator=rng), torch.full((2,), variance))
    # Which component it is, is known but at the highest levels, where little is decided.
    made = exactly(monkeypatch, truth, plan, lambda t: variance * t.sigma**2 / (t.alpha**2 * variance + t.sigma**2))
    x0 = truth.draw(60, rng).float()
    bits = (-truth.log_density(x0, Level(0.0, 1.0, 0.0)).mean() / 192 / LN2 + math.log2(127.5)).item()
    numbers = measure(made, pictures(x0), how=settings(steps=plan, clamp=False), count=60).numbers
    assert numbers["bpd"] == pytest.approx(bits, abs=0.03)
    assert numbers["ode"] == pytest.approx(bits, abs=0.03)


def test_too_few_steps_for_the_ode_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    std = 0.25
    gaussian, fine, coarse = Gaussian(torch.zeros(SHAPE), std**2), "logsnr:60", "logsnr:12"
    source = pictures(std * torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(0)))
    reports = []
    for plan in (fine, coarse, "logsnr:2"):
        made = exactly(monkeypatch, gaussian, plan, lambda t: std**2 * t.sigma**2 / (t.alpha**2 * std**2 + t.sigma**2))
        reports.append(measure(made, source, how=settings(steps=plan, clamp=False), count=64))
    right, wrong, hopeless = reports
    # An error of the second order is a third of the change.
    assert abs(right.numbers["ode_coarser"]) < 0.02 < 0.05 < abs(wrong.numbers["ode"] - right.numbers["ode"])
    assert abs(wrong.numbers["ode_coarser"]) > abs(wrong.numbers["ode"] - right.numbers["ode"])
    assert "ode_coarser" not in hopeless.numbers
    said = ["too few for the ODE" in " ".join(report.warnings) for report in reports]
    assert said == [False, True, True]


@pytest.mark.parametrize("variance", ["fixed", "learned", "learned_range"])
def test_a_report_has_every_number_and_what_it_depends_on(variance: str, tmp_path: Path) -> None:
    report = measure(
        model(variance), tiny.reference(), how=settings(steps=None if variance == "learned" else "karras:4"), count=5, seed=3
    )
    numbers, terms = report.numbers, report.terms
    assert all(math.isfinite(value) for value in numbers.values())
    assert numbers["bpd"] == pytest.approx(numbers["prior"] + numbers["levels"] + numbers["decoder"], rel=1e-6)
    assert [term.name for term in terms] == ["prior", *["level"] * (report.steps - 1), "decoder"]
    assert sum(term.bits for term in terms) == pytest.approx(numbers["bpd"], rel=1e-6)
    assert (report.count, report.seed, report.classes) == (5, 3, "those of the pictures")
    assert (report.variance, report.steps) == {"fixed": ("small", 4), "learned": ("learned", 12)}.get(variance, ("learned", 4))
    report.save(tmp_path)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "bpd.csv").read_text())))
    assert [line["name"] for line in lines] == [term.name for term in terms]
    assert float(lines[-1]["bits"]) == terms[-1].bits
    assert lines[0]["x0_mse"] == ""
    assert json.loads((tmp_path / "report.json").read_text())["numbers"] == numbers
    assert (tmp_path / "bpd.png").read_bytes().startswith(b"\x89PNG")
    text = io.StringIO()
    Console(file=text, width=100).print(report.table())
    for part in ("bpd", "standard error", "those of the pictures", "noise"):
        assert part in text.getvalue()


def split(given: dict[str, Any]) -> dict[str, Any]:
    """Keywords of `measure`, of which some are settings."""
    how = {name: given[name] for name in given if name in Settings.model_fields}
    return {name: value for name, value in given.items() if name not in how} | {"how": settings(**how)}


def numbers_of(**given: Any) -> dict[str, float]:
    return dict(measure(model(), tiny.reference(), **split({"count": 5, "steps": "logsnr:3"} | given)).numbers)


def test_numbers_depend_on_seeds_and_settings_and_not_on_the_batch_size() -> None:
    plain = numbers_of()
    assert numbers_of(batch_size=3) == pytest.approx(plain, rel=1e-4)
    without = numbers_of(ode=False)
    assert "ode" not in without
    assert without == pytest.approx({name: value for name, value in plain.items() if not name.startswith("ode")})
    for changed in (
        {"seed": 1},
        {"clamp": False},
        {"sampler": Ancestral(variance="large")},
        {"sampler": Ancestral(variance="small")},
    ):
        assert numbers_of(ode=False, **changed)["bpd"] != plain["bpd"]
    assert numbers_of(ode=False, sampler=Ancestral()) == without


def test_in_another_order_other_noise_moves_the_numbers_less_than_their_errors() -> None:
    """The noise of a picture is that of its place, so that the order is one more draw of the noise and nothing else."""
    made, source = model(), tiny.reference(24)
    images, labels = map(np.stack, zip(*(source[k] for k in range(24)), strict=True))
    turned = Source(ArrayRows(images[::-1].transpose(0, 2, 3, 1).copy(), labels[::-1].copy(), tiny.NAMES), "turned", channels=3)
    one, other = (measure(made, each, count=24).numbers for each in (source, turned))
    for name in ("bpd", "ode", "levels", "decoder"):
        assert one[name] != other[name]
        assert one[name] == pytest.approx(other[name], abs=2 * one["bpd_error"])
    assert one["prior"] == pytest.approx(other["prior"], rel=1e-6)


def test_pictures_are_spread_over_the_reference_with_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked, original = model(), list[list[Label]](), Guided.denoise
    monkeypatch.setattr(Guided, "denoise", lambda self, asks: asked.append([ask.label for ask in asks]) or original(self, asks))
    images = np.random.default_rng(0).integers(0, 256, (12, 12, 12, 3), dtype=np.uint8)
    source = Source(ArrayRows(images, np.arange(12) // 4, tiny.NAMES), "sorted", channels=3)
    report = measure(made, source, how=settings(steps="logsnr:2"), count=6, ode=False)
    assert asked == [[0, 0, 1, 1, 2, 2]]
    assert report.warnings == ("the pictures were resized from 12×12 to 8×8, which changes their likelihood",)
    # Of other classes than the model's, it is told nothing.
    other = Source(ArrayRows(images, np.arange(12) // 4, ("a", "b", "c")), "other", channels=3)
    assert measure(made, other, how=settings(steps="trailing:5"), count=6, ode=False).classes == "none"
    assert asked[-1] == [None] * 6


@pytest.mark.parametrize(
    ("made", "given", "said"),
    [
        ({}, {"sampler": DDIM()}, "sampler 'ddim' has none: take ancestral"),
        ({"variance": "fixed"}, {"sampler": Ancestral(variance="learned")}, "this model has none: choose from 'small', 'large'"),
        ({}, {"count": 25}, "count is 25: .* has 24"),
        ({}, {"count": 1}, "need 2 pictures at least"),
        ({"variance": "learned"}, {"steps": "10"}, "variances of its chain's own 12 steps"),
        ({"names": ("a", "b", "c"), "droppable": False}, {}, "never trained without its classes .a, b, c., and noise has cat"),
        ({}, {"steps": "1"}, "hardly noisy"),
    ],
)
def test_what_cannot_be_measured_is_refused(made: dict[str, Any], given: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem, match=said):
        measure(model(**made), tiny.reference(), **split({"count": 4, **given}))


def test_a_pure_noise_level_is_left_out_of_the_plot_alone(tmp_path: Path) -> None:
    made = tiny.randomized(
        Diffusion(
            DiffusionConfig(
                denoiser=DenoiserConfig(
                    network=UNetConfig(**tiny.BACKBONE),
                    prediction={"kind": "v"},  # type: ignore[arg-type]
                ),
                schedule=Cosine(timesteps=12, zero_terminal_snr=True),
                size=(8, 8),
            )
        ),
        0,
    )
    report: Likelihood = measure(made, tiny.reference(), how=settings(steps="3"), count=3)
    assert report.terms[1].alpha == 0
    assert report.classes == "none"
    assert math.isfinite(report.numbers["ode"])
    report.save(tmp_path)
    assert (tmp_path / "bpd.png").exists()
