"""A CLIP as a model and as a guide: features, what it refuses, texts encoded once, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lodestar
from lodestar.conditions import Ask
from lodestar.config import Note, Problem
from lodestar.core.level import CLEAN, Level
from lodestar.core.schedule import Cosine, Linear
from lodestar.denoiser import DenoiserConfig
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guide import Critic, Featured, Reader
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.clip import ClipConfig, TextTowerConfig, unit
from lodestar.nets.clip_image import ViT, ViTConfig
from lodestar.nets.unet import UNetConfig
from lodestar.text import ClipTokenizer

CPU = torch.device("cpu")
SCHEDULE = Cosine(timesteps=50)


def config(time: str = "sinusoid", size: int = 8, channels: int = 3, **others: Any) -> ClipModelConfig:
    image = ViTConfig(size=(size, size), in_channels=channels, patch=4, width=16, layers=4, heads=2, embed=8, time=time)  # type: ignore[arg-type]
    text = TextTowerConfig(vocabulary=257, context=12, width=16, layers=1, heads=2)
    return ClipModelConfig(network=ClipConfig(image=image, text=text), schedule=SCHEDULE, **others)


def clip(time: str = "sinusoid", **others: Any) -> PictureClip:
    torch.manual_seed(0)
    return PictureClip(config(time, **others)).eval().requires_grad_(False)


def diffusion(schedule: Any = SCHEDULE, size: int = 8, channels: int = 3) -> Diffusion:
    torch.manual_seed(0)
    network = UNetConfig(width=8, multipliers=(1, 2), blocks=1, attention=(2,), head_channels=8, norm_groups=4)
    denoiser = DenoiserConfig(network=network, channels=channels)
    model = Diffusion(DiffusionConfig(denoiser=denoiser, schedule=schedule, size=(size, size), steps="4"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return model.eval().requires_grad_(False)


def test_it_is_a_critic_with_features_that_reads() -> None:
    made = clip()
    assert isinstance(made, Critic) and isinstance(made, Featured) and isinstance(made, Reader)
    observed = made.observe(torch.randn(2, 3, 8, 8), Level(3.0, 0.8, 0.6))
    assert observed.embedding.shape == (2, 8)
    assert [tuple(each.shape) for each in observed.maps] == [(2, 16, 2, 2)] * 4


@pytest.mark.parametrize("time", ["none", "sinusoid"])
def test_an_embedding_is_the_same_with_maps_and_without(time: str) -> None:
    made, x, level = clip(time), torch.randn(2, 3, 8, 8).requires_grad_(), CLEAN if time == "none" else Level(3.0, 0.8, 0.6)
    (alone, none), (beside, maps) = made.look_at(x, level, maps=False), made.look_at(x, level)
    assert not none and len(maps) == 4
    torch.testing.assert_close(alone, beside)
    torch.testing.assert_close(*(torch.autograd.grad(each.sum(), x)[0] for each in (alone, beside)))


def test_patches_are_embedded_as_by_the_convolution() -> None:
    tower, x = clip().network.image, torch.randn(2, 3, 8, 8)
    assert isinstance(tower, ViT)
    torch.testing.assert_close(tower._patches(x), tower.patch(x).flatten(2).transpose(1, 2))


def test_similarity_is_the_cosine_of_the_embeddings() -> None:
    made, x, texts = clip("none"), torch.randn(3, 3, 8, 8), ["a", "a long one"]
    seen, said = made.image_features(x), made.text_features(texts)
    expected = F.cosine_similarity(seen[:, None], said[None], dim=-1)
    torch.testing.assert_close(made.similarity(x, texts), expected)
    # Whatever follows a text in a batch, its embedding is the same.
    torch.testing.assert_close(made.text_features(["a"]), said[:1])


def test_clean_pictures_of_another_size_are_resized() -> None:
    made, x = clip("none"), torch.randn(2, 3, 16, 16)
    resized = F.interpolate(x, (8, 8), mode="bicubic", antialias=True)
    torch.testing.assert_close(made.image_features(x), made.image_features(resized))


def test_pictures_are_normalised_as_they_are_in_0_to_1() -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    made, x = clip("none", mean=mean, std=std), torch.rand(2, 3, 8, 8) * 2 - 1
    plain = ((x + 1) / 2 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(made.image_features(x), made.network.image(plain, None, torch.float32)[0])


def test_its_gradient_is_that_of_the_scaled_similarity() -> None:
    made, x, level = clip(), torch.randn(2, 3, 8, 8).requires_grad_(), Level(7.0, 0.8, 0.6)
    asks = [Ask(text="a star"), Ask(text="b")]
    said = unit(made.text_features(["a star", "b"]))
    expected = (unit(made.image_features(x, level)) * said).sum(dim=1) / 0.07
    torch.testing.assert_close(made.logp(asks, "noisy", CPU)(x, level), expected)
    clean = made.logp(asks, "clean", CPU)(x, level)
    torch.testing.assert_close(clean, made.logp(asks, "noisy", CPU)(x, CLEAN))


def test_a_text_is_encoded_once_in_a_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made, read = clip(), []
    original = made.network.text.forward

    def counted(tokens: Tensor, *more: Any) -> Tensor:
        read.append(len(tokens))
        return original(tokens, *more)

    monkeypatch.setattr(made.network.text, "forward", counted)
    model = diffusion()
    model.sample(count=5, batch_size=2, guidance="clip:2", guides={"clip": made}, prompt=["a star", "b"])
    assert sum(read) == 2


@pytest.mark.parametrize("guidance", ["clip:2", "clip:2,sees=clean,cuts=2", "content:1,by=clip", "style:1,by=clip"])
def test_a_picture_depends_on_its_own_ask_alone(guidance: str) -> None:
    model, made = diffusion(), clip()
    how: Any = {"guidance": guidance, "guides": {"clip": made}}
    if "clip:" in guidance:
        how |= {"prompt": ["a star", "b", "c"]}
    else:
        how |= {"reference": [torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8).numpy() for _ in range(3)]}
    together = model.sample(count=3, batch_size=3, **how).images
    apart = model.sample(count=3, batch_size=1, **how).images
    assert (together.int() - apart.int()).abs().max() <= 1
    plain = model.sample(count=3).images
    assert (together.int() - plain.int()).abs().max() > 1


@pytest.mark.parametrize(
    ("made", "guidance", "message"),
    [
        (lambda: clip("none"), "clip:2", "trained on clean pictures alone"),
        (lambda: clip(size=16), "clip:2", r"of size \(16, 16\), the model makes \(8, 8\)"),
        (lambda: clip("none", channels=1), "clip:2,sees=clean", "of 1 channels, the model makes 3"),
    ],
)
def test_pictures_that_it_does_not_know_are_refused(made: Any, guidance: str, message: str) -> None:
    with pytest.raises(Problem, match=message):
        diffusion().sample(count=1, guidance=guidance, guides={"clip": made()}, prompt="a")


def test_another_schedule_is_refused() -> None:
    with pytest.raises(Problem, match="another noise schedule"):
        diffusion(Linear(timesteps=50)).sample(count=1, guidance="clip:2", guides={"clip": clip()}, prompt="a")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "picture 0 has no prompt"),
        (["a", None], "has no prompt"),
        ("far too long for it", "more than this CLIP's 12 tokens"),
        ("\udcff", r"prompt '\\udcff' is not valid Unicode \(UTF-8\)$"),
    ],
)
def test_prompts_that_it_cannot_read_are_refused_before_any_work(prompt: Any, message: str) -> None:
    with pytest.raises(Problem, match=message):
        diffusion().sample(count=2, guidance="clip:2", guides={"clip": clip()}, prompt=prompt)


def test_a_prompt_is_cut_where_asked() -> None:
    model, how = diffusion(), {"guidance": "clip:2", "guides": {"clip": clip()}}
    with pytest.warns(Note, match="prompt 'far too long for it' is cut to 'far too long'$"):
        made = model.sample(count=1, prompt="far too long for it", cut_prompt=True, **how)
    assert made.request.asks[0].text == "far too long"[:12]


def test_another_tokenizer_than_the_weights_is_refused() -> None:
    with pytest.raises(Problem, match="tokenizer clip has 49,408 tokens, and the text tower knows 257"):
        config(tokenizer=ClipTokenizer())


def test_its_file_gives_the_same_features(tmp_path: Path) -> None:
    made, x = clip("table"), torch.randn(2, 3, 8, 8)
    loaded = lodestar.load(made.save(tmp_path / "clip.safetensors"), "cpu", dtype="float32")
    assert isinstance(loaded, PictureClip)
    assert loaded.config == made.config
    level = Level(7.5, 0.8, 0.6)
    assert torch.equal(loaded.image_features(x, level), made.image_features(x, level))
    assert torch.equal(loaded.text_features(["a"]), made.text_features(["a"]))
    assert "of noised pictures" in repr(loaded)


def test_lower_precision_is_close() -> None:
    made, x = clip(), torch.randn(2, 3, 8, 8)
    level, exact = Level(3.0, 0.8, 0.6), clip().image_features(x, Level(3.0, 0.8, 0.6))
    assert F.cosine_similarity(made.lower(torch.bfloat16).image_features(x, level), exact).min() > 0.999


def test_between_two_times_of_the_chain_lies_between_their_vectors() -> None:
    made, x = clip("table"), torch.randn(1, 3, 8, 8)
    start = made.network.image.start
    with torch.no_grad():
        start[7] = 0.25 * start[6] + 0.75 * start[8]
    torch.testing.assert_close(
        made.image_features(x, Level(7.0, 0.8, 0.6)),
        made.image_features(x, Level(7.0, 0.5, 0.5)),
    )
    between = made.network.image._start(1, torch.tensor([7.25]))
    torch.testing.assert_close(between[0], 0.75 * start[7] + 0.25 * start[8])
