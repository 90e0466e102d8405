"""A diffusion model that enlarges pictures: what it is given, what it is refused without, and how it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Ask, LowRes, Signals
from lodestar.conditions.low_res import beside
from lodestar.config import Note, Problem
from lodestar.core.schedule import Linear
from lodestar.data import Batch, DataFacts
from lodestar.degradations import BSR, Blur
from lodestar.degradations.base import area
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


def config(classes: int | None = 3, **small: Any) -> DiffusionConfig:
    network = UNetConfig(**BACKBONE, in_channels=6, out_channels=6)
    known = (*conditions(classes), LowRes(size=(4, 4), **small))
    denoiser = DenoiserConfig(network=network, variance="learned_range", conditions=known)
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
    torch.testing.assert_close(area(seen, (4, 4))[:, 3, 0, 0], seen[:, 3, :2, :2].mean(dim=(1, 2)))


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


def test_how_it_is_made_small_is_a_setting_of_the_model() -> None:
    task = TrainDenoiser(model=config(degradation=Blur(share=1.0), augment=0.4), objective=Hybrid())
    resolved = task.resolve(DataFacts(1, (16, 16), ("a", "b")))
    small = resolved.model.denoiser.condition("low_res")
    assert small == LowRes(size=(8, 8), degradation=Blur(share=1.0), augment=0.4)
    with pytest.raises(Problem, match=r"degradation bsr shrinks by a whole number of 2 or more.*not 5×5 from 8×8"):
        bsr = config().denoiser.replace(conditions=(LowRes(size=(5, 5), degradation=BSR()),))
        TrainDenoiser(model=config(None).replace(denoiser=bsr), objective=Hybrid(), conditional=False).resolve(
            DataFacts(3, (8, 8), None)
        )


def test_pieces_of_a_batch_are_made_small_as_the_whole() -> None:
    task = TrainDenoiser(model=config(degradation=Blur(), augment=0.4), objective=Hybrid()).resolve(
        DataFacts(3, (8, 8), ("a", "b", "c"))
    )
    learner = task.build(torch.device("cpu"), torch.float32)
    rng = torch.Generator().manual_seed(0)
    batch = Batch({"image": torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=rng), "label": torch.arange(6) % 3})

    def seen(*pieces: slice) -> Tensor:
        whole = Rng(torch.Generator().manual_seed(1), 6)
        parts = [(batch[rows], whole.piece(rows)) for rows in pieces]
        return torch.cat([learner.condition(part, pixels.encode(part.image), own)[0]["low_res"] for part, own in parts])

    together = seen(slice(0, 6))
    torch.testing.assert_close(seen(slice(0, 1), slice(1, 4), slice(4, 6)), together)
    levels = together[:, -1].flatten(1)
    assert torch.equal(levels, levels[:, :1].expand_as(levels)) and len(levels[:, 0].unique()) == 6
    assert levels.min() >= 0 and levels.max() <= 0.4
    far = (together[:, :-1] - area(pixels.encode(batch.image), (4, 4))).flatten(1).std(dim=1)
    assert far.min() > 0


def test_the_noise_of_small_pictures_is_told_and_has_its_level() -> None:
    small, eps = torch.zeros(3, 3, 4, 4), torch.randn(3, 3, 4, 4)
    level = torch.tensor([0.0, 0.6, 1.0])
    made = LowRes(size=(4, 4), augment=1.0).noised(small + 0.5, level, eps)
    torch.testing.assert_close(made[:, :-1], torch.stack([small[0] + 0.5, 0.4 + 0.6 * eps[1], eps[2]]))
    assert torch.equal(made[:, -1], level[:, None, None].expand(3, 4, 4))
    assert torch.equal(LowRes(size=(4, 4)).noised(small, level, eps), small), "without augmentation nothing is told"
    plain, told = (Diffusion(config(augment=augment)).denoiser.low_res for augment in (0.0, 0.4))
    assert not list(plain.parameters()), "models of before have the same parameters"
    signals = [told(torch.cat([small, small[:, :1] + each], dim=1)) for each in (0.0, 0.3)]
    assert not signals[0].emb.any() and not signals[1].emb.any(), "at first, levels say nothing"
    torch.nn.init.normal_(told.level.linear2.weight)
    first, second = (told(torch.cat([small, small[:, :1] + each], dim=1)).emb for each in (0.0, 0.3))
    assert (first - second).abs().max() > 0.1


def test_a_level_is_chosen_in_sampling() -> None:
    model, pictures = randomized(Diffusion(config(augment=0.4)), 0), small()
    clean, some, other = (model.edit(Upsample(), pictures, [0, 1, 2], augment=each).images for each in (0.0, 0.2, 0.4))
    assert not torch.equal(clean, some) and not torch.equal(some, other)
    alone = model.edit(Upsample(), pictures, [0, 1, 2], augment=0.2, batch_size=1).images
    assert (alone.int() - some.int()).abs().max() <= 1, "the noise depends on the picture's seed alone"
    weak = randomized(Diffusion(config(augment=0.4)), 3)
    guided = model.edit(Upsample(), pictures, [0, 1, 2], augment=0.2, guidance=Autoguidance(scale=3.0), guides={"weak": weak})
    assert guided.request.settings.augment == 0.2 and not torch.equal(guided.images, some)
    untold = randomized(Diffusion(config()), 3)
    with pytest.raises(Problem, match="either both are told one range of noise levels of small pictures, or neither is"):
        model.edit(Upsample(), pictures, [0, 1, 2], guidance=Autoguidance(scale=3.0), guides={"weak": untold})
    with pytest.raises(Problem, match=r"augment is 0.5: this model was trained with levels up to 0.4$"):
        model.edit(Upsample(), pictures, [0, 1, 2], augment=0.5)
    with pytest.raises(
        Problem, match=r"augment is 0.1: this model was trained without noise on its small pictures: leave it out$"
    ):
        untold.edit(Upsample(), pictures, [0, 1, 2], augment=0.1)
    with pytest.raises(Problem, match=r"augment is 0.1: this model makes pictures from noise and enlarges none: leave it out$"):
        tiny.diffusion().sample(count=1, augment=0.1)


def test_windows_are_trained_on_and_wholes_are_made() -> None:
    task = TrainDenoiser(model=config(), objective=Hybrid()).resolve(DataFacts(3, (16, 16), ("a", "b", "c")))
    learner = task.build(torch.device("cpu"), torch.float32)
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=rng)
    cond, _ = learner.condition(Batch({"image": image, "label": torch.zeros(4).long()}), pixels.encode(image), Rng(rng, 4))
    assert cond["low_res"].shape == (4, 3, 4, 4), "a window's own part of the small picture"
    assert task.model.size == (16, 16) and task.model.denoiser.low_res == (8, 8)


def test_tiles_of_a_large_picture_share_its_noise() -> None:
    model, seen = randomized(Diffusion(config(None, augment=0.4)), 0), list[Tensor]()
    model.denoiser.low_res.register_forward_hook(lambda module, given, signals: seen.append(signals.planes))
    large = torch.full((1, 3, 4, 6), 128, dtype=torch.uint8)
    with pytest.warns(Note, match="2 overlapping tiles"):
        made = model.edit(Upsample(overlap=0.5), large, augment=0.3, seed=4).images
    assert made.shape == (1, 3, 8, 12)
    first, second = torch.cat(seen)[-2:]
    # Enlarged by themselves, tiles differ at their borders alone.
    torch.testing.assert_close(first[:, 2:6, 5:7], second[:, 2:6, 1:3])
    assert first[:, 2:6, 5:7].std() > 0.1
