"""VQ-VAEs of one to three levels: they learn, their codes say their pictures, and commands know what they can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import lodestar
from lodestar import checkpoint
from lodestar.__main__ import main
from lodestar.codecs import VQVAECodec
from lodestar.config import Problem, decode
from lodestar.data.batch import Batch
from lodestar.generators.autoencoder import VQVAE
from lodestar.nets.autoencoder import QuantizedConfig
from lodestar.nets.codebook import CodebookConfig
from lodestar.nets.pyramid import PyramidConfig
from lodestar.tasks import OptimizerConfig, Rng, TrainVQVAE
from lodestar.tasks.vqvae import VQVAELearner
from lodestar.training.ema import HalfLife
from lodestar.training.loop import train
from lodestar.training.run import Run
from tests.training.runs import assert_same, denoising, logged, write_pictures


def network(levels: int = 1, **book: Any) -> PyramidConfig:
    settings = {"codes": 12, "channels": 4, **book}
    return PyramidConfig(levels=levels, width=8, blocks=1, hidden=4, book=CodebookConfig(**settings))


def learner(levels: int = 1, **book: Any) -> VQVAELearner:
    torch.manual_seed(0)
    made = TrainVQVAE(model=VQVAECodec(network=network(levels, **book), size=(16, 16))).build(torch.device("cpu"), torch.float32)
    made.module.eval()
    return made


def batch(count: int = 6) -> Batch:
    images = torch.randint(256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return Batch({"image": images})


def rng() -> Rng:
    return Rng(torch.Generator().manual_seed(0), 6)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_codes_say_a_picture_and_levels_have_names(levels: int) -> None:
    made = learner(levels).model
    x = batch().image / 127.5 - 1
    codes = made.codes(x)
    assert [tuple(each.shape) for each in codes] == [(6, 4 >> level, 4 >> level) for level in range(levels)]
    torch.testing.assert_close(made.of_codes(codes), made.reconstruct(x), rtol=1e-4, atol=1e-5)
    for name in made.config.network.names:
        part = made.reconstruct(x, name)
        assert torch.equal(part, made.reconstruct(x)) == (name == "bottom")
    with pytest.raises(Problem, match="level 'middle': choose from" if levels < 3 else "level 'x': choose from"):
        made.reconstruct(x, "middle" if levels < 3 else "x")


def test_one_of_the_u_net_s_parts_has_codes_at_its_coarsest_places_and_learns() -> None:
    book = CodebookConfig(codes=12, channels=4, learning="gradient")
    codec = VQVAECodec(
        network=QuantizedConfig(width=8, multipliers=(1, 2), blocks=1, norm_groups=4, head_channels=4, book=book), size=(16, 16)
    )
    assert decode(VQVAECodec, codec.to_json()) == codec and codec.space == (4, 8, 8)
    torch.manual_seed(0)
    made = TrainVQVAE(model=codec).build(torch.device("cpu"), torch.float32)
    x = batch().image / 127.5 - 1
    torch.testing.assert_close(made.model.of_codes(made.model.codes(x)), made.model.reconstruct(x), rtol=1e-4, atol=1e-5)
    losses = []
    (phase,) = made.phases()
    optimizer = torch.optim.Adam(phase.parameters, 1e-2)
    for _ in range(10):
        loss = made.loss(batch(), rng())
        optimizer.zero_grad()
        loss.total.mean().backward()
        optimizer.step()
        made.remember(loss.noted)
        losses.append(loss.total.mean().item())
    assert losses[-1] < 0.8 * losses[0] and (made.model.network.book(0).size > 0).any()


def test_pieces_are_the_whole() -> None:
    made, drawing = learner(2), rng()
    whole = made.loss(batch(), rng())
    parts = [made.loss(batch()[rows], drawing.piece(rows)) for rows in (slice(0, 4), slice(4, 6))]
    torch.testing.assert_close(torch.cat([part.total for part in parts]), whole.total)
    for name, noted in whole.noted.items():
        torch.testing.assert_close(torch.cat([part.noted[name] for part in parts]), noted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("learning", ["average", "gradient"])
def test_codes_learn_as_they_are_told(learning: str) -> None:
    made = learner(learning=learning, revive=0.0)
    book = made.model.network.book(0)
    (phase,) = made.phases()
    assert any(each is book.codes for each in phase.parameters) == (learning == "gradient")
    losses, before = made.loss(batch(), rng()), book.codes.detach().clone()
    losses.total.mean().backward()
    assert (book.codes.grad is not None) == (learning == "gradient")
    made.remember(losses.noted)
    assert torch.equal(book.codes, before) == (learning == "gradient")
    assert float(book.size.sum()) == pytest.approx(0.01 * 6 * 16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 12)


def run(source: str, levels: int = 1, **settings: Any) -> Run:
    task = TrainVQVAE(model=VQVAECodec(network=network(levels), size=(8, 8)))
    return denoising(source, optimizer=OptimizerConfig(rate=3e-3), **settings).replace(task=task)


def test_as_many_codes_as_pictures_have_distance_zero_and_remember_them(source: str, tmp_path: Path) -> None:
    made = run(source, images=3600, batch_size=12, microbatch=None, log_every=240, save_every=3600, ema=(HalfLife(images=24),))
    wide = network(codes=16, decay=0.9).replace(width=32, hidden=16)
    transforms = made.data.transforms.replace(flip=False, size=(4, 4))
    task = made.task.replace(model=VQVAECodec(network=wide, size=(4, 4)))
    train(made.replace(task=task, data=made.data.replace(transforms=transforms)), tmp_path / "run")
    last = logged(tmp_path / "run")[-1]
    assert last["commitment"] < 1e-3 and last["mse"] < 0.02
    assert last["perplexity/bottom"] > 11.5  # of 12 pictures; the other codes move about among them
    assert last["alive/bottom"] >= 12 / 16


def test_a_resumed_run_ends_with_the_same_bits(source: str, tmp_path: Path) -> None:
    whole = run(source, 2, images=48)
    train(whole, tmp_path / "whole")
    train(whole.replace(train=whole.train.replace(images=32)), tmp_path / "parts")
    text = (tmp_path / "parts" / "run.json").read_text()
    (tmp_path / "parts" / "run.json").write_text(text.replace('"images":32', '"images":48'))
    train(whole, tmp_path / "parts")
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_commands_and_diffusion_in_its_latents(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as stop:
            main([*words])
        told = capsys.readouterr()
        assert stop.value.code == status, told.err
        return told.err

    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    train(run(source, images=32), one)
    train(run(source, 2, images=32), two)
    pictures = [f"{source}/a/0.png", f"{source}/b/1.png"]
    say("edit", "reconstruct", two, *pictures, "--out", str(tmp_path / "r"))
    say("edit", "reconstruct", two, *pictures, "--level", "top", "--out", str(tmp_path / "top"))
    assert json.loads((tmp_path / "top" / "manifest.json").read_text())["manifest"]["request"]["edit"]["level"] == "top"
    say("edit", "interpolate", one, *pictures, "--points", "3", "--out", str(tmp_path / "i"))
    for words, reason in (
        (("sample", one), "a VQ-VAE has codes and no prior of them"),
        (("edit", "interpolate", two, *pictures), "this model has 2 levels of codes, and latents are of one"),
        (("edit", "interpolate", one, "--to-seed", "3"), "no prior of them"),
        (("edit", "reconstruct", two, *pictures, "--level", "middle"), "level 'middle': choose from bottom, top"),
        (
            ("evaluate", one, "--metric", "bpd", "--reference", source),
            "bits per dimension are of diffusion models, VAEs and priors",
        ),
        (("train", "digits", "--data", source, "--codec", two), "the codec has 2 levels of codes"),
    ):
        assert reason in say(*words, status=2), words
    diffusion = denoising(source, images=16, microbatch=None)
    model = lodestar.train(diffusion, out=tmp_path / "latent", codec=one)
    assert model.space == (4, 2, 2) and model.sample(count=2, steps="3").images.shape == (2, 3, 8, 8)
    assert "codec.network.books.0.codes" in checkpoint.load(tmp_path / "latent" / "model.safetensors")[1]
    assert isinstance(lodestar.load(one, "cpu"), VQVAE)
