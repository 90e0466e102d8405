"""The models in the package: they are there, small, and do what the front page says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lodestar
from lodestar import bundle, checkpoint, library
from lodestar.__main__ import main
from lodestar.config import parse
from lodestar.data import DataFacts
from lodestar.data.shapes import HELD_OUT_PAIRS, judge
from lodestar.demo import SCALES
from lodestar.evaluation.extractors import DEFAULT, load_extractor
from lodestar.evaluation.kept import kept
from lodestar.generators.diffusion import Diffusion
from lodestar.images import load_png
from lodestar.models.classifier import PictureClassifier
from lodestar.models.clip import ClipModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.presets import RUNS
from lodestar.samplers import AnySampler
from lodestar.tasks import Distill, TrainClip, TrainDenoiser


def test_every_embedded_model_loads_is_small_and_tells_where_it_comes_from() -> None:
    assert {"cifar10", "cifar10_weak", "cifar10_classifier", DEFAULT} <= set(bundle.embedded())
    for name in bundle.embedded():
        path = library.find(name)
        assert path.stat().st_size <= 16 * 2**20
        header = checkpoint.peek(path)
        assert {dtype for key, dtype in header.dtypes.items() if not key.endswith(".ranges")} <= {"F16", "BF16", "I64"}
        assert {"images_seen", "seconds", "data", "preset", "hardware"} <= header.provenance.keys()
        assert "/" not in header.provenance["data"]
        library.load(name, "cpu")


def test_loading_leaves_pytorchs_compiler_alone() -> None:
    code = """
import sys, lodestar
lodestar.load("cifar10", "cpu").companions["classifier"]()
assert "sympy" not in sys.modules, "70 MB and a second of every command"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["cifar10", "cifar10_weak", "cifar10_classifier", DEFAULT])
def test_an_embedded_model_is_what_its_preset_makes(name: str) -> None:
    config = rangeless(name)
    facts = DataFacts(3, (32, 32), config.names)
    assert RUNS[name]().task.resolve(facts).model == config


def rangeless(name: str) -> Any:
    """An embedded model's configuration as it was trained, without the ranges of int8."""
    config = library.config(name)
    assert not isinstance(config, DiffusionConfig) or config.denoiser.network.ranged
    return bare(config)


def bare(config: Any) -> Any:
    """The same without ranges."""
    if isinstance(config, DiffusionConfig):
        config = config.replace(denoiser=config.denoiser.replace(network=config.denoiser.network.without_ranges()))
    return config


def test_the_student_of_one_step_is_what_its_preset_makes_of_the_model() -> None:
    config = rangeless("cifar10_fast")
    task = RUNS["cifar10_fast"]().task
    assert isinstance(task, Distill) and task.teacher == "cifar10"
    assert bare(task.resolve(DataFacts(3, (32, 32), config.names)).model) == config
    model = library.load_diffusion("cifar10_fast", "cpu")
    picture = model.sample(label="ship", count=2, seed=0)
    assert len(picture.steps()[0]) == 2


def test_the_models_of_shapes_are_what_their_presets_make() -> None:
    """But for the tokens, which were learned from captions."""
    model, clip = library.config("shapes"), library.config("shapes_clip")
    assert isinstance(model, DiffusionConfig) and isinstance(clip, ClipModelConfig)
    text, tower, denoiser = model.denoiser.text, clip.network.text, model.denoiser
    assert text is not None and tower.vocabulary == clip.tokenizer.vocabulary
    facts = DataFacts(3, (32, 32), None, True, lambda: iter(()))
    drawing, judging = RUNS["shapes.text"]().task, RUNS["shapes.clip_noised"]().task
    assert isinstance(drawing, TrainDenoiser) and isinstance(judging, TrainClip)
    told = drawing.model.denoiser.replace(conditions=(text,))
    plain = denoiser.replace(network=denoiser.network.without_ranges())
    assert drawing.replace(model=drawing.model.replace(denoiser=told)).resolve(facts).model == model.replace(denoiser=plain)
    network = judging.model.network.replace(text=judging.model.network.text.replace(vocabulary=tower.vocabulary))
    known = judging.model.replace(network=network, tokenizer=clip.tokenizer)
    assert judging.replace(model=known).resolve(facts).model == clip


def test_the_front_page_in_python() -> None:
    dogs = lodestar.load("cifar10").sample(label="dog", count=2, guidance=lodestar.CFG(scale=3.0), seed=0, steps=2)
    assert dogs.images.shape == (2, 3, 32, 32)
    guided = lodestar.load("cifar10").sample(label="dog", count=1, guidance=lodestar.Classifier(scale=2.0), seed=0, steps=2)
    assert not torch.equal(guided.images[0], dogs.images[0])
    led = lodestar.load("cifar10").sample(label="dog", count=1, guidance=lodestar.Autoguidance(scale=1.5), seed=0, steps=2)
    assert {role: guide.name for role, guide in led.origin.guides.items()} == {"weak": "cifar10_weak"}
    assert not torch.equal(led.images[0], dogs.images[0])


def test_the_model_of_shapes_draws_single_things_that_no_training_caption_has() -> None:
    prompts = [f"a {colour} {shape}" for shape, colour in sorted(HELD_OUT_PAIRS)] * 4
    pictures = lodestar.load("shapes", "cpu").sample(prompt=prompts, guidance="cfg:4", steps="trailing:10", seed=7)
    right = sum(judge(picture.numpy(), prompt).right for picture, prompt in zip(pictures.images, prompts, strict=True))
    assert right >= 12, f"{right} of {len(prompts)}; one in thirty would be by chance"


def test_the_model_of_shapes_tells_whose_colour_and_place_is_meant() -> None:
    pairs = [("red circle", "blue square"), ("yellow star", "purple cross"), ("orange cross", "green circle")]
    told = [f"a {a} {how} a {b}" for a, b in pairs for how in ("left of", "right of", "above", "below")]
    pictures = lodestar.load("shapes", "cpu").sample(prompt=told, guidance="cfg:4", steps="trailing:10", seed=3)
    right = sum(judge(picture.numpy(), prompt).right for picture, prompt in zip(pictures.images, told, strict=True))
    assert right >= 9, f"{right} of {len(told)}; an order by chance has half"


def test_the_classifier_knows_the_classes_of_the_models_samples() -> None:
    """Guided pictures of a class are taken for that class by a classifier that never saw noise."""
    model = library.load("cifar10", "cpu")
    judging = library.load(DEFAULT, "cpu")
    assert isinstance(model, Diffusion)
    assert isinstance(judging, PictureClassifier)
    samples = model.sample(list(range(10)), count=40, guidance=lodestar.CFG(scale=3.0), steps=10, seed=1)
    logits = judging.logits(samples.images.float() / 127.5 - 1)
    right = (logits.argmax(dim=1) == torch.tensor(samples.request.labels)).float().mean()
    assert right >= 0.5, f"{right:.0%} of the samples are recognised; one in ten would be by chance"


def test_solvers_in_epsilon_stay_among_pictures_on_its_cosine_chain() -> None:
    model = library.load("cifar10", "cpu")
    assert isinstance(model, Diffusion)
    assert model.config.schedule.kind == "cosine"
    for text in ("ddim", "dpmpp_single:order=3,target=epsilon,solver=stages", "unipc:target=epsilon", "plms:runge_kutta"):
        images = model.sample("dog", count=1, steps="trailing:7", sampler=parse("sampler", text, AnySampler)).images
        assert ((images == 0) | (images == 255)).float().mean() < 0.2, text


def test_the_kept_reference_belongs_to_the_extractor() -> None:
    reference = kept("cifar10")
    assert reference is not None
    assert len(reference.of(load_extractor(device="cpu"))) == len(reference) >= 1000


def test_the_demo_draws_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--out", str(tmp_path), "--steps", "2"])
    assert not stop.value.code
    assert str(tmp_path / "demo.png") in capsys.readouterr().out
    picture = load_png(tmp_path / "demo.png")
    assert picture.shape[1] > len(SCALES) * 64
    assert picture.float().std() > 20
