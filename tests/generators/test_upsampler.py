"""A diffusion model that enlarges pictures: what it is given, what it is refused without, and how it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Ask, Signals
from lodestar.conditions.low_res import beside, shrink
from lodestar.config import Problem
from lodestar.core.schedule import Linear
from lodestar.data import Batch, DataFacts
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.edits import SDEdit, Upsample
from lodestar.generators.edits.arrange import arrange
from lodestar.generators.edits.request import Material
from lodestar.generators.guided import bind
from lodestar.guidance import CFG, Autoguidance, Classifier
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Hybrid
from lodestar.samplers import Ancestral
from lodestar.tasks import TrainDenoiser
from lodestar.tasks.rng import Rng
from tests.evaluation import tiny
from tests.evaluation.tiny import BACKBONE, randomized

torch.set_num_threads(1)


def config(classes: int | None = 3) -> DiffusionConfig:
    network = UNetConfig(**BACKBONE, in_channels=6, out_channels=6)
    denoiser = DenoiserConfig(network=network, variance="learned_range", conditions=conditions(classes, (4, 4)))
    return DiffusionConfig(
        denoiser=denoiser, schedule=Linear(timesteps=50), size=(8, 8), droppable=classes is not None, steps="3"
    )


def small(count: int = 3) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=rng)


def enlarged(model: Diffusion, pictures: torch.Tensor, batch_size: int = 8) -> torch.Tensor:
    material = Material(pictures)
    request = arrange(model, Upsample(), material, list(range(len(pictures))), None, None, 0)
    frames = model.prepare_edit(request, material).frames(batch_size)
    return torch.cat([frame.x for frame in frames if frame.final])


def test_the_network_sees_the_picture_after_x_and_resized() -> None:
    x, planes = torch.zeros(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    seen = beside(x, planes)
    assert torch.equal(seen[:, :3], x)
    assert torch.equal(seen[:, 3:], F.interpolate(planes, (8, 8), mode="bilinear", align_corners=False))
    torch.testing.assert_close(shrink(seen, (4, 4))[:, 3, 0, 0], seen[:, 3, :2, :2].mean(dim=(1, 2)))


def test_every_picture_is_enlarged_by_itself() -> None:
    model, pictures = randomized(Diffusion(config()), 0), small()
    together = enlarged(model, pictures)
    assert together.shape == (3, 3, 8, 8)
    torch.testing.assert_close(enlarged(model, pictures, batch_size=1), together, rtol=1e-4, atol=1e-4)
    other = enlarged(model, torch.cat([pictures[:2], 255 - pictures[2:]]))
    torch.testing.assert_close(other[:2], together[:2], rtol=1e-4, atol=1e-4)
    assert (other[2] - together[2]).abs().max() > 0.05


def test_a_batch_is_resized_once_and_not_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pictures, sizes = randomized(Diffusion(config()), 0), small(), list[int]()
    expected, resize = enlarged(model, pictures, batch_size=2), F.interpolate

    def counted(x: Tensor, *args: Any, **settings: Any) -> Tensor:
        sizes.extend([len(x)] if settings.get("mode") == "bilinear" else [])
        return resize(x, *args, **settings)

    monkeypatch.setattr(F, "interpolate", counted)
    assert torch.equal(enlarged(model, pictures, batch_size=2), expected)
    assert sizes == [3, 2, 1], "before all work, to see whether it can be done, and for each batch"


def test_both_halves_of_free_guidance_see_the_picture() -> None:
    model = randomized(Diffusion(config()), 0)
    level, x, planes = model.config.schedule.table[20], torch.randn(2, 3, 8, 8), pixels.encode(small(2))
    bound = bind(model, [Ask(label=0), Ask(label=2)], {"low_res": small(2)})
    conditional, unconditional = bound.pair(x, level)
    torch.testing.assert_close(conditional.x0, bound(x, level).x0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(unconditional.x0, model.denoiser(x, level, Signals(None, planes)).x0, rtol=1e-4, atol=1e-4)


def test_it_is_sampled_as_every_model_is() -> None:
    model, pictures, guide = randomized(Diffusion(config()), 0), small(), tiny.classifier()
    guide.config = guide.config.replace(names=None)

    def made(**more: Any) -> torch.Tensor:
        return model.edit(Upsample(), pictures, [0, 1, 2], **more).images

    plain = made()
    assert torch.equal(made(temperature=1.0, guidance=Classifier(scale=0.0), guides={"classifier": guide}), plain)
    weak = randomized(Diffusion(config()), 3)
    changes: tuple[dict[str, Any], ...] = (
        {"guidance": CFG(scale=3.0)}, {"guidance": Classifier(scale=50.0), "guides": {"classifier": guide}},
        {"guidance": Classifier(scale=50.0, sees="clean"), "guides": {"classifier": guide}}, {"temperature": 0.5},
        {"guidance": Autoguidance(scale=3.0), "guides": {"weak": weak}}, {"sampler": Ancestral()}, {"seed": 7},
    )  # fmt: skip
    for more in changes:
        together = made(**more)
        assert not torch.equal(together, plain), more
        assert (made(batch_size=1, **more).int() - together.int()).abs().max() <= 1, more
    several = model.edit(Upsample(), pictures, [0, 1], count=5, seed=4).request
    assert (several.sources, several.labels, several.seeds) == ([0, 1, 2, 0, 1], [0, 1, 0, 1, 0], [4, 5, 6, 7, 8])
    with pytest.raises(Problem, match="cfg needs a model that was also trained without"):
        randomized(Diffusion(config(None)), 0).edit(Upsample(), pictures, guidance=CFG())


def test_without_pictures_it_is_refused() -> None:
    model = randomized(Diffusion(config()), 0)
    with pytest.raises(Problem, match="enlarges pictures of 4×4, and is given none"):
        model.sample(label=0)
    with pytest.raises(Problem, match="enlarges pictures of 4×4, and is given none"):
        model.edit(SDEdit(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 0)
    with pytest.raises(Problem, match=r"picture 0 is \(3, 8, 8\): the model's are \(3, 4, 4\)"):
        model.edit(Upsample(fit=True), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 0)
    with pytest.raises(Problem, match="needs a picture to enlarge"):
        model.edit(Upsample(), label=0)
    with pytest.raises(Problem, match="nothing tells the pictures'"):
        model.edit(Upsample(), small())
    with pytest.raises(Problem, match="makes pictures from noise and enlarges none"):
        tiny.diffusion().edit(Upsample(), small())
    with pytest.raises(
        Problem, match=r"network.in_channels is 5: no number of channels and their conditions' planes add up to that"
    ):
        DenoiserConfig(network=UNetConfig(**BACKBONE, in_channels=5, out_channels=2), conditions=conditions(low_res=(4, 4)))


def test_it_learns_from_pictures_that_are_made_small() -> None:
    task = TrainDenoiser(model=config(), objective=Hybrid()).resolve(DataFacts(1, (16, 16), ("a", "b")))
    denoiser = task.model.denoiser
    assert (denoiser.low_res, denoiser.network.in_channels, denoiser.channels) == ((8, 8), 2, 1)
    learner = task.build(torch.device("cpu"), torch.float32)
    assert learner.preview() is None
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8, generator=rng)
    losses = learner.loss(Batch({"image": image, "label": torch.tensor([0, 1, 0, 1])}), Rng(rng, 4))
    losses.total.mean().backward()
    assert losses.total.shape == (4,)
    assert learner.model.denoiser.network.head.weight.grad is not None
