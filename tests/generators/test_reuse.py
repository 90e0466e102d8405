"""Deep features reused between steps: what is computed, that a picture depends on its seed alone, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import lodestar
from lodestar.conditions import Composed
from lodestar.config import Problem
from lodestar.generators.album import Manifest
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.edits import Interpolate, SDEdit
from lodestar.generators.request import Request, request, settings
from lodestar.nets.base import Kept
from lodestar.nets.unet import UNetConfig
from tests.evaluation import tiny


def ask(*labels: Any, **more: Any) -> Request:
    return request(labels, how=settings(**{"steps": 6, **more}))


def floats(model: Diffusion, asked: Request, **more: Any) -> Tensor:
    return torch.cat([frame.x for frame in model.stream(asked, **more) if frame.final])


def counted(model: Diffusion, asked: Request) -> list[bool]:
    """For each evaluation of a run, True if the middle of the network ran in it."""
    network, whole, deep = model.denoiser.network, list[bool](), list[int]()
    handles = [
        network.middle.get_submodule("0").register_forward_hook(lambda *_: deep.append(1)),
        network.register_forward_hook(lambda *_: whole.append(len(deep) > sum(whole))),
    ]
    floats(model, asked)
    for handle in handles:
        handle.remove()
    return whole


def test_a_network_alone_with_its_deep_features_says_what_it_said() -> None:
    for blocks, multipliers in ((1, (1, 2)), ((2, 1, 1), (1, 2, 2)), (3, (1, 1))):
        network = tiny.randomized(UNetConfig(**tiny.BACKBONE | {"blocks": blocks, "multipliers": multipliers}).build(), 0)
        x, time, kept = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 7.0]), Kept()
        whole = network(x, time)
        assert torch.equal(network(x, time, kept=kept), whole), "a whole evaluation is what it was without"
        assert kept.deep is not None and kept.deep.shape[2:] == x.shape[2:]
        assert torch.equal(network(x, time, kept=kept), whole), "the same features of the same x give the same"
        assert not torch.equal(network(x + 0.1, time, kept=kept), network(x + 0.1, time)), "other x, old features"


def test_one_step_in_so_many_is_whole() -> None:
    model = tiny.diffusion()
    assert counted(model, ask(0, 1)) == [True] * 6
    assert counted(model, ask(0, 1, reuse=2)) == [True, False] * 3
    assert counted(model, ask(0, 1, reuse=4, guidance="cfg:2")) == [True, False, False, False, True, False]
    # Where guidance sets in and ends, other samples are evaluated: old features are of no use.
    ratios = [float(step.t.ratio) for step in model.transitions(settings(steps=6))]
    band = f"interval:{(ratios[3] + ratios[4]) / 2},{(ratios[1] + ratios[2]) / 2}"
    for guidance in ("cfg:2", "cfg:0"):
        assert counted(model, ask(0, 1, reuse=6, guidance=[guidance, band])) == [True, False, True, False, True, False]
    for guidance in ("cfg:0", "cfgpp:0"):  # the unconditional model alone
        assert counted(model, ask(0, 1, reuse=2, guidance=guidance, sampler="ddim")) == [True, False] * 3


@pytest.mark.parametrize("guidance", [(), "cfg:2", "cfgpp:0.6", ["apg:3", "interval:0.5,50"], ["cfg:2", "classifier:3"]])
def test_a_picture_depends_on_its_seed_alone(guidance: Any) -> None:
    model, guides = tiny.diffusion(), {"guides": {"classifier": tiny.classifier()}}
    asked = ask(0, 1, None, Composed(wanted=(0, 2)), guidance=guidance, sampler="ddim", reuse=3)
    together = floats(model, asked, **guides)
    without = floats(model, asked.replace(settings=asked.settings.replace(reuse=1)), **guides)
    assert together.isfinite().all() and not torch.allclose(together, without, atol=1e-3)
    for index in (0, 3):
        torch.testing.assert_close(together[index], floats(model, asked.only(index), **guides)[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together, floats(model, asked, batch_size=3, **guides), atol=1e-4, rtol=1e-4)


def test_it_is_in_the_manifest_and_an_edit_that_goes_once_to_clean_data_takes_it(tmp_path: Any) -> None:
    model = tiny.diffusion()
    made = model.sample(label=0, count=2, steps=4, reuse=2)
    made.save(tmp_path / "a")
    assert Manifest.read(tmp_path / "a").request.settings.reuse == 2
    again = floats(model, Manifest.read(tmp_path / "a").request.only(1))
    assert torch.equal(model.codec.decode(again)[0], made.images[1])
    edited = [model.edit(SDEdit(strength=0.9), made.pil(), label=1, steps=6, reuse=each).images for each in (1, 3)]
    assert not torch.equal(*edited)
    with pytest.raises(Problem, match="reuse is 2: interpolate does not go once from noise to clean data"):
        model.edit(Interpolate(points=3), made.pil(), steps=6, reuse=2)


@pytest.mark.parametrize(
    "sampler", ["ancestral", "ddim", "euler", "euler_ancestral", "lms", "dpmpp:eta=1", "dpmpp_single", "unipc"]
)
def test_samplers_of_one_evaluation_a_step_take_it(sampler: str) -> None:
    assert floats(tiny.diffusion(), ask(0, sampler=sampler, reuse=2)).isfinite().all()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"sampler": "heun"}, "sampler heun does not evaluate the network once a step"),
        ({"sampler": "dpm_adaptive"}, "sampler dpm_adaptive does not evaluate the network once a step"),
        ({"sampler": "predictor_corrector"}, "sampler predictor_corrector does not evaluate the network once a step"),
        ({"guidance": "sag:0.5"}, "guidance sag evaluates the network more than once a step"),
        ({"guidance": "pag:1"}, "guidance pag evaluates"),
        ({"guidance": "autoguidance:2", "guides": {"weak": tiny.diffusion(3)}}, "guidance autoguidance evaluates"),
        ({"guidance": "classifier:2,sees=clean", "guides": {"classifier": tiny.classifier()}}, "guidance classifier evaluates"),
        ({"guidance": lambda inner, context: inner}, "guidance own evaluates"),
    ],
)
def test_what_cannot_take_it_is_refused_in_one_line(how: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem, match=f"^reuse is 2, and {said}") as raised:
        tiny.diffusion().sample(count=1, steps=4, reuse=2, **how)
    assert "\n" not in str(raised.value)


def test_a_network_without_deeper_resolutions_is_refused_by_name() -> None:
    config = tiny.diffusion().config
    flat = config.denoiser.network.replace(multipliers=(1,))
    model = tiny.randomized(Diffusion(config.replace(denoiser=config.denoiser.replace(network=flat))), 0)
    with pytest.raises(Problem, match=r"^reuse is 2: this network \(channels 8; .*\) has no deeper resolutions to be kept$"):
        model.sample(count=1, reuse=2)
    with pytest.raises(Problem, match="reuse has no effect on bits per dimension"):
        lodestar.bpd(tiny.diffusion(), tiny.reference(), count=1, reuse=2)
