"""Autoencoders are trained, sampled, edited, measured and used as codecs by the commands that all models have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lodestar
from lodestar import checkpoint
from lodestar.__main__ import main
from lodestar.codecs import AutoencoderCodec
from lodestar.config import Problem
from lodestar.data.batch import Batch
from lodestar.generators.autoencoder import Autoencoder
from lodestar.nets.autoencoder import AutoencoderConfig
from lodestar.presets import RUNS, autoencoders
from lodestar.tasks import Autoencode, OptimizerConfig, Rng, TrainVQVAE
from lodestar.tasks.autoencode import AutoencodeLearner, Corruption
from lodestar.training.loop import train
from lodestar.training.run import Run
from tests.training.runs import assert_same, denoising, write_pictures

SMALL = AutoencoderConfig(width=8, multipliers=(1, 2), blocks=1, norm_groups=4, head_channels=8, latent=3)


def run(source: str, task: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **settings: Any) -> Run:
    chosen = Autoencode(model=AutoencoderCodec(network=SMALL, size=(8, 8)).replace(**(model or {}))).replace(**(task or {}))
    return denoising(source, **settings).replace(task=chosen)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 12)


@pytest.fixture(scope="module")
def folder(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE, trained for a moment."""
    folder = tmp_path_factory.mktemp("run") / "vae"
    train(run(source, images=64, microbatch=None), folder)
    return folder


@pytest.mark.parametrize("name", autoencoders.RUNS)
def test_presets_are_valid_and_small(name: str) -> None:
    task = RUNS[name]().task
    assert isinstance(task, Autoencode | TrainVQVAE)
    assert sum(each.numel() for each in task.model.build().parameters()) < 4_000_000
    assert isinstance(task, TrainVQVAE) == ("vq" in name)
    if isinstance(task, TrainVQVAE):
        assert task.model.network.levels == (2 if name.endswith("2") else 1)
        return
    assert name.endswith(".vae") == (task.model.posterior == "gaussian") and name.endswith(".dae") == bool(task.corruption.noise)


def test_it_learns_in_a_moment(tmp_path: Path) -> None:
    few = {"task.model.network.width": 8, "task.model.network.norm_groups": 4, "task.model.network.head_channels": 8}
    model = lodestar.train("digits.ae", few, "data.workers=0", images=4800, batch_size=48, out=tmp_path / "ae")
    digits = lodestar.data.open_source("digits")
    images = torch.stack([torch.from_numpy(np.array(digits.image(k))) for k in range(0, 1600, 25)])
    x = images / 127.5 - 1
    error = float((model.reconstruct(x) - x).square().mean())
    assert error < 0.6 * float((x - x.mean(0)).square().mean())


def test_a_resumed_run_ends_with_the_same_bits(source: str, tmp_path: Path) -> None:
    settings = {"optimizer": OptimizerConfig(rate=1e-3)}
    task = {"warmup_images": 60, "corruption": Corruption(noise=0.1, masking=0.2, salt=0.1), "free_bits": 0.1}
    whole = run(source, task, images=48, **settings)
    train(whole, tmp_path / "whole")
    train(whole.replace(train=whole.train.replace(images=32)), tmp_path / "parts")
    text = (tmp_path / "parts" / "run.json").read_text()
    (tmp_path / "parts" / "run.json").write_text(text.replace('"images":32', '"images":48'))
    _, tensors = checkpoint.load(tmp_path / "parts" / "state.safetensors")
    assert int(tensors["memory/seen"]) == 32
    train(whole, tmp_path / "parts")
    assert_same(tmp_path / "whole", tmp_path / "parts")


def learner(**task: Any) -> AutoencodeLearner:
    torch.manual_seed(0)
    made = run("digits", task, {"size": (8, 8)}).task.build(torch.device("cpu"), torch.float32)
    assert isinstance(made, AutoencodeLearner)
    return made


def batch(count: int = 6) -> Batch:
    images = torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return Batch({"image": images})


def rng(count: int = 6) -> Rng:
    return Rng(torch.Generator().manual_seed(0), count)


def test_beta_grows_and_the_loss_is_the_bound(source: str) -> None:
    made = learner(beta=2.0, warmup_images=12)
    first = made.loss(batch(), rng())
    torch.testing.assert_close(first.total.detach(), first.terms["distortion"] * math.log(2))  # β is 0 yet
    made.remember(first.noted)
    half = made.loss(batch(), rng())
    torch.testing.assert_close(half.total.detach(), half.terms["bpd"] * math.log(2))
    made.remember(half.noted)
    made.remember(half.noted)
    assert made.beta == 2.0


def test_free_bits_take_the_gradient_of_channels_that_say_little() -> None:
    free = learner(free_bits=1e5)
    losses = free.loss(batch(), rng())
    dimensions, channels = 3 * 8 * 8, 3
    price = (losses.total.detach() / math.log(2) - losses.terms["distortion"]) * dimensions
    torch.testing.assert_close(price, torch.full((6,), 1e5 * channels), rtol=1e-4, atol=0.0)


def test_pieces_draw_as_the_whole() -> None:
    made = learner(corruption=Corruption(noise=0.3, masking=0.2, salt=0.2))
    whole, drawing = made.loss(batch(), rng()).total, rng()
    parts = [made.loss(batch()[rows], drawing.piece(rows)).total for rows in (slice(0, 4), slice(4, 6))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-5)


def test_damage_is_as_large_as_stated() -> None:
    x = torch.full((64, 3, 16, 16), 0.5)

    def damaged(**settings: float) -> Tensor:
        return Corruption(**settings)(x, rng(64))

    assert float(damaged(noise=0.3).std()) == pytest.approx(0.3, rel=0.02)
    masked = damaged(masking=0.25)
    assert float((masked == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(masked[:, 0], masked[:, 2])  # whole pixels
    salted = damaged(salt=0.2)
    for value in (1.0, -1.0):
        assert float((salted == value).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert torch.equal(damaged(), x)


def test_samples_depend_on_their_seeds_alone(folder: Path) -> None:
    model = lodestar.load(folder, "cpu", dtype="float32")
    assert isinstance(model, Autoencoder) and "latents 3×4×4" in repr(model)
    many = model.sample(count=5, seed=3).images
    assert (many[2:4].int() - model.sample(count=2, seed=5, batch_size=1).images.int()).abs().max() <= 1
    start = torch.zeros(5, 3, 4, 4)
    assert torch.equal(model.sample(count=5, start=start).images[0], model.sample(count=5, start=start).images[4])
    assert model.sample(count=8, temperature=1e-3).images.float().std(0).max() < model.sample(count=8).images.float().std(0).max()


def test_it_is_evaluated_and_swept_as_other_generators_are(folder: Path, source: str, tmp_path: Path) -> None:
    model = lodestar.load(folder, "cpu", dtype="float32")
    report = lodestar.evaluate(model, source, count=12, metrics="frechet", extractor="cifar10_features")
    assert report.sampler is None and report.numbers["frechet"] > 0
    over = {"temperature": [0.5, 1]}
    found = lodestar.sweep(
        model, source, over=over, count=12, metrics="frechet", extractor="cifar10_features", out=tmp_path / "s"
    )
    assert [row.name for row in found.rows] == ["0.5", "1"] and {row.step_count for row in found.rows} == {1}
    assert found.rows[1].numbers["frechet"] == report.numbers["frechet"] != found.rows[0].numbers["frechet"]
    with pytest.raises(Problem, match="steps has no effect on"):
        lodestar.sweep(model, source, over={"steps": [1, 2]}, count=4, out=tmp_path / "t")


def test_commands_sample_edit_measure_and_remake(
    folder: Path, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as stop:
            main([*words])
        told = capsys.readouterr()
        assert stop.value.code == status, told.err
        return told.err if status else told.out

    def made(name: str, picture: int) -> bytes:
        return (tmp_path / name / f"{picture:05d}.png").read_bytes()

    say("sample", str(folder), "--count", "3", "--out", str(tmp_path / "s"))
    pictures = [str(tmp_path / "s" / f"{k:05d}.png") for k in range(3)]
    say("edit", "reconstruct", str(folder), *pictures, "--out", str(tmp_path / "r"))
    say("edit", "interpolate", str(folder), *pictures[:2], "--points", "5", "--out", str(tmp_path / "i"))
    assert made("i", 0) == made("r", 0) and made("i", 4) == made("r", 1) and made("i", 2) not in (made("i", 0), made("i", 4))
    say("edit", "interpolate", str(folder), "--to-seed", "2", "--points", "3", "--out", str(tmp_path / "z"))
    assert made("z", 0) == made("s", 0) and made("z", 2) == made("s", 2)
    say("remake", str(tmp_path / "i"), "--picture", "2", "--out", str(tmp_path / "again"))
    assert made("again", 2) == made("i", 2)
    out = say(
        "evaluate", str(folder), "--metric", "bpd:draws=4", "--reference", source, "--count", "6", "--out", str(tmp_path / "e")
    )
    assert "importance" in out and str(tmp_path / "e" / "report.json") in out
    assert "latents" in say("info", str(folder))
    for words, reason in (
        (("sample", str(folder), "--steps", "4"), "steps has no effect on"),
        (("sample", str(folder), "--guidance", "cfg:2"), "guidance has no effect on"),
        (("sample", str(folder), "--label", "dog"), "label 'dog': this model knows no classes"),
        (("edit", "sdedit", str(folder), pictures[0]), "its edits are reconstruct and interpolate"),
        (("edit", "interpolate", str(folder), pictures[0]), "goes between two pictures, and the number given is 1"),
        (("edit", "interpolate", str(folder)), "needs two pictures, or a seed at the other end"),
        (("edit", "reconstruct", str(folder), pictures[0], "--level", "top"), "level 'top': this model has no levels"),
        (("edit", "reconstruct", "cifar10_classifier", pictures[0]), "a model that makes pictures is needed here"),
        (("train", "digits", "--codec", "cifar10"), "codec cifar10 is a diffusion, and no autoencoder"),
    ):
        assert reason in say(*words, status=2), words


def test_diffusion_in_its_latents_is_one_file(folder: Path, source: str, tmp_path: Path) -> None:
    diffusion = denoising(source, images=32, microbatch=None)
    model = lodestar.train(diffusion, out=tmp_path / "latent", codec=folder)
    assert model.space == (3, 4, 4) and model.shape == (3, 8, 8) and model.limit is None
    theirs = checkpoint.load(folder / "model.safetensors")[1]
    ours = checkpoint.load(tmp_path / "latent" / "model.safetensors")[1]
    assert all(torch.equal(ours[f"codec.{name}"], tensor) for name, tensor in theirs.items())
    assert model.sample(count=2, steps="4").images.shape == (2, 3, 8, 8)
    pictures = torch.randint(256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    by_codec, by_itself = (
        model.edit("reconstruct", pictures).images,
        lodestar.load(folder, dtype="float32").edit("reconstruct", pictures).images,
    )
    assert (by_codec.int() - by_itself.int()).abs().max() <= 1
    with pytest.raises(Problem, match=r"a mask is of pixels, and .* makes latents of 3×4×4"):
        model.edit("inpaint", pictures, mask=torch.ones(8, 8, dtype=torch.bool))
    with pytest.raises(Problem, match="bits per dimension are of pixels, and this model makes latents"):
        lodestar.bpd(model, source, count=2)
    with pytest.raises(Problem, match="codec 'autoencoder' has weights, and no model is named that has them"):
        train(diffusion.replace(task=diffusion.task.replace(model=model.config)), tmp_path / "none")
