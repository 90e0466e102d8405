"""`lodestar.plan`: levels that end nearer to many steps than the usual ones, kept in the model's card, and asked for by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lodestar
from lodestar import checkpoint
from lodestar.config import Note, Problem
from lodestar.core.plan import Sigmas, parse_plan
from lodestar.core.prediction import X0
from lodestar.evaluation.optimize import Search
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.optima import CARD
from lodestar.generators.request import Prompts, settings
from lodestar.samplers import DDIM, DPMpp
from tests.evaluation import tiny
from tests.test_cli import refusal, run

GIVEN: Any = {"count": 6, "fine": "trailing:40"}
MEAN, SPREAD = 0.5, 0.25


class Exact(torch.nn.Module):
    """The exact x̂₀ where every value of a picture is drawn from two Gaussians, of whose shares classes decide."""

    def forward(self, x: Tensor, time: Tensor, emb: Tensor | None = None, dtype: Any = None, gather: Any = None) -> Tensor:
        level = tiny.SCHEDULE.at(float(time[0]))
        alpha, sigma = float(level.alpha), float(level.sigma)
        whole = alpha**2 * SPREAD**2 + sigma**2
        lean = torch.zeros(len(x)) if emb is None else emb.sum(1).sign()
        sign = torch.tanh(alpha * MEAN * x / whole + lean[:, None, None, None])
        return (alpha * SPREAD**2 * x + sigma**2 * MEAN * sign) / whole


def exact() -> Diffusion:
    model = tiny.diffusion()
    config = model.config
    model = tiny.randomized(Diffusion(config.replace(denoiser=config.denoiser.replace(prediction=X0()))), 0)
    model.denoiser.network = Exact()  # type: ignore[assignment]
    return model


def test_a_plan_is_nearer_to_many_steps_than_the_usual_ones_on_other_seeds() -> None:
    model = exact()
    found = lodestar.plan(model, [4, 3], **GIVEN)
    assert [each.steps for each in found.plans] == [3, 4] and found.file is None
    for each in found.plans:
        assert each.error < 0.9 * each.usual_error, "held-out seeds"
        plan = parse_plan(each.plan)
        assert isinstance(plan, Sigmas) and len(plan.ratios) == each.steps
        # Seeds that the search knows nothing of.
        fine, few, usual = (
            model.sample(count=12, seed=77, steps=text).images.double() for text in (each.fine, each.plan, each.usual)
        )
        assert (few - fine).square().mean() < 0.9 * (usual - fine).square().mean()
    assert str(found).splitlines()[0].split() == ["steps", "error", "best", "usual", "plan", "its", "error"]


def test_it_is_asked_for_by_name_and_manifests_name_its_levels() -> None:
    model = exact()
    (each,) = lodestar.plan(model, 3, sampler="ddim", guidance="cfg:2", **GIVEN).plans
    (bare,) = lodestar.plan(model, 3, sampler="ddim", **GIVEN).plans
    assert each.plan != bare.plan and each.sampler == DDIM()
    for guidance, mine in (("cfg:2", each), ((), bare), ("cfg:3", bare)):
        made = model.sample(count=2, steps="optimized:3", sampler="ddim", guidance=guidance)
        assert made.request.settings.steps == mine.plan
        assert torch.equal(made.images, model.sample(count=2, steps=mine.plan, sampler="ddim", guidance=guidance).images)
    with pytest.raises(Problem, match="steps 'optimized:4': this model has no such plan for sampler ddim, only those of 3 "):
        model.sample(count=1, steps="optimized:4", sampler="ddim")
    with pytest.raises(Problem, match="steps 'optimized:3': this model has no such plan for sampler dpmpp; lodestar plan"):
        model.sample(count=1, steps="optimized:3")


def test_the_command_puts_plans_into_the_card_and_leaves_the_model_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*words: str) -> str:
        capsys.readouterr()
        assert run(*words) == 0
        return capsys.readouterr().out

    mine = tiny.diffusion().save("mine.safetensors")
    before = checkpoint.peek(mine)
    out = shown("plan", "mine.safetensors", "--steps", "3,2", "--count", "4", "--fine", "trailing:20")
    assert out.startswith("optimized:2 is sigmas:") and out.strip().endswith("mine.safetensors")
    after = checkpoint.peek(mine)
    assert after.digest == before.digest and [each["steps"] for each in after.provenance[CARD]] == [2, 3]
    shown("plan", "mine.safetensors", "--steps", "3", "--count", "5", "--fine", "trailing:20", "--out", "other.safetensors")
    known = {each["steps"]: each["pictures"] for each in checkpoint.peek("other.safetensors").provenance[CARD]}
    assert known == {2: 4, 3: 5}
    shown("sample", "mine.safetensors", "--count", "1", "--steps", "optimized:3", "--out", "a")
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["manifest"]["request"]["settings"]["steps"] == after.provenance[CARD][1]["plan"]
    assert "optimized:3" in shown("info", "mine.safetensors")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("plan nothing", "no model 'nothing'"),
        ("plan cifar10", "cifar10 is embedded in this package: name a file of your own with --out"),
        ("plan mine.safetensors --steps 51", "steps 51: a plan to optimise has 2 steps at least, and the chain's 50 at most"),
        ("plan mine.safetensors --steps 1", "steps 1: a plan to optimise has 2 steps"),
        ("plan mine.safetensors --steps 3,x", "--steps '3,x': numbers of steps, such as 6,8,10,12"),
        ("plan mine.safetensors --steps 9 --fine trailing:9", "fine plan 'trailing:9' has 9 steps: it needs more"),
        ("plan mine.safetensors --sampler dpm_adaptive --fine 40", "sampler dpm_adaptive chooses its own steps"),
        ("plan mine.safetensors --sampler ancestral --fine 40", "sampler ancestral draws noise in its steps"),
        ("plan mine.safetensors --fine 40 --out mine.pt", "the name of a model's file ends in .safetensors"),
        ("plan mine.safetensors --fine 60", "60 of them from a section of 50"),
        ("plan mine.safetensors --guidance classifier:2", "has no classifier of its own"),
        (
            "sample mine.safetensors --steps optimized:8",
            "mine.safetensors has no such plan for sampler dpmpp; lodestar plan",
        ),
        ("sample mine.safetensors --steps sigmas:1,2", "steps 'sigmas': 2 follows 1: they fall"),
    ],
)
def test_what_is_wrong_is_one_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.diffusion().save("mine.safetensors")
    assert said in refusal(capsys, *words.split())


def test_a_card_with_something_else_in_the_place_of_plans_is_refused() -> None:
    model = tiny.diffusion()
    model.provenance = {CARD: [{"steps": "many"}]}
    with pytest.raises(Problem, match=r"^the card plans\.0\.steps is 'many'"):
        model.sample(count=1, steps="optimized:3")


def test_levels_stay_in_their_order_and_in_the_chain() -> None:
    search = Search(tiny.diffusion(), settings(sampler=DPMpp(), steps="trailing:40"), print, count=2)
    logs = search._logs("logsnr:4")
    wild = search._ordered(logs, torch.tensor([99.0, -99.0, 99.0, -99.0], dtype=torch.float64))
    low, high = search._range
    assert bool((wild.diff() < 0).all()) and low <= float(wild[-1]) and float(wild[0]) <= high


def test_plans_of_a_model_of_texts_are_for_pictures_of_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how: Any = {"count": 3, "fine": "trailing:8", "sampler": "ddim", "guidance": "cfg:3"}
    prompts = ["a red circle", "a blue star"]
    found = lodestar.plan(tiny.told(), 2, prompt=prompts, **how)
    with pytest.warns(Note, match="knows texts: without prompts, plans are optimised for pictures of none"):
        assert lodestar.plan(tiny.told(), 2, **how).plans != found.plans
    search = Search(tiny.told(), settings(steps="4"), print, prompts=Prompts.of(prompts), count=3)
    assert [ask.text for ask in (*search.fitted.asks, *search.held.asks)] == [*prompts, prompts[0], prompts[1]]
    path, out = tiny.told().save(tmp_path / "told.safetensors"), tmp_path / "planned.safetensors"
    given = [
        "--steps",
        "2",
        "--count",
        "3",
        "--fine",
        "trailing:8",
        "--sampler",
        "ddim",
        "--guidance",
        "cfg:3",
        "--out",
        str(out),
    ]
    assert run("plan", path, *given, "--prompt", prompts[0], "--prompt", prompts[1]) == 0
    assert checkpoint.peek(out).provenance[CARD][0]["plan"] == found.plans[0].plan
    plain = tiny.diffusion().save(tmp_path / "plain.safetensors")
    assert "knows no text" in refusal(capsys, "plan", plain, *given, "--prompt", "a")
