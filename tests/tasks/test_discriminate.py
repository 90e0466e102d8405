"""Training discriminators against a diffusion model, and guidance by them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import lodestar
from lodestar.__main__ import main
from lodestar.config import Note, Problem
from lodestar.data.batch import DataFacts
from lodestar.models.discriminator import DiscriminatorModelConfig, PictureDiscriminator
from lodestar.nets.gan import ResidualDiscriminatorConfig
from lodestar.python.train import configured
from lodestar.tasks import OptimizerConfig, TrainDiscriminator
from lodestar.training.loop import train
from lodestar.training.run import Run
from tests.evaluation import tiny
from tests.training.runs import SMALL, assert_same, denoising, logged, write_pictures

NETWORK = ResidualDiscriminatorConfig(**SMALL, timed=True)
TASK = TrainDiscriminator(model=DiscriminatorModelConfig(network=NETWORK, size=(8, 8)), made=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a diffusion model of them, and a discriminator of the two."""
    folder = tmp_path_factory.mktemp("runs")
    source = write_pictures(folder / "pictures", 24)
    train(denoising(source, images=16), folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LODESTAR_CACHE", str(folder / "cache"))
        train(run(folder, images=64, preview_every=32), folder / "discriminator")
        for images in (32, 64):
            train(run(folder, images=images, preview_every=32), folder / "parts")
    return folder


def run(folder: Path, **settings: Any) -> Run:
    steady = {"optimizer": OptimizerConfig(rate=1e-3)}
    start = denoising(str(folder / "pictures"), **settings | steady).replace(task=TASK)
    return configured(start.replace(data=start.data.replace(held_out=0.25)), against=str(folder / "model"))


def command(*words: str, status: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == status


def test_a_run_resumes_to_the_same_bits_and_makes_its_pictures_once(folder: Path) -> None:
    assert_same(folder / "discriminator", folder / "parts")
    (made,) = (folder / "cache" / "made").iterdir()
    assert made.name.split("-")[1] == "20"
    last = logged(folder / "discriminator")[-1]
    assert math.isfinite(last["held_out/loss"]) and 0 <= last["held_out/accuracy"] <= 1


def test_it_guides_its_model(folder: Path, tmp_path: Path) -> None:
    guide, model = lodestar.load(folder / "discriminator", "cpu"), lodestar.load(folder / "model", "cpu")
    assert isinstance(guide, PictureDiscriminator) and guide.opponent == model.digest
    plain = model.sample("b", count=2, steps=4).images
    given: dict[str, Any] = {"guidance": "discriminator:30", "guides": {"discriminator": guide}}
    assert not torch.equal(model.sample("b", count=2, steps=4, **given).images, plain)
    words = ("--label", "b=2", "--steps", "4", "--guidance", "discriminator:30", "--device", "cpu", "--out", str(tmp_path / "a"))
    command("sample", str(folder / "model"), *words, "--guide", f"discriminator={folder / 'discriminator'}")
    command("remake", str(tmp_path / "a"), "--picture", "1", "--out", str(tmp_path / "b"), "--device", "cpu")
    assert (tmp_path / "b" / "00001.png").read_bytes() == (tmp_path / "a" / "00001.png").read_bytes()
    command("info", str(folder / "discriminator"))
    model.digest = "0" * 64
    with pytest.warns(Note, match="knows the errors of another model than"):
        model.sample("b", count=1, steps=4, **given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"label": "a+b"}, "this one is told one class of each picture"),
        ({"guidance": "discriminator:1,sees=clean"}, "this discriminator knows the densities of noised pictures"),
        ({"guidance": "classifier:1", "guides": {"classifier": "discriminator"}}, "is of another kind: give a classifier"),
        ({"guides": {"discriminator": "classifier"}}, "is of another kind: give a discriminator"),
        ({"guides": {"discriminator": "model"}}, "is of another kind: give a discriminator"),
    ],
)
def test_what_it_does_not_know_is_refused(folder: Path, given: dict[str, Any], reason: str) -> None:
    guides = {
        "discriminator": lodestar.load(folder / "discriminator", "cpu"),
        "classifier": tiny.classifier(),
        "model": tiny.diffusion(),
    }
    asked = {"label": "b", "guidance": "discriminator:1", "guides": {"discriminator": "discriminator"}} | given
    asked["guides"] = {role: guides[name] for role, name in asked["guides"].items()}
    with pytest.raises(Problem, match=reason):
        lodestar.load(folder / "model", "cpu").sample(**asked, steps=2)


def test_runs_that_do_not_fit_are_refused(folder: Path) -> None:
    facts = DataFacts(3, (8, 8), tuple("abc"))
    with pytest.raises(Problem, match=r"task.against is null: name the model .*, --against MODEL"):
        TASK.resolve(facts)
    with pytest.raises(Problem, match="that is a discriminator, and no diffusion model"):
        configured("digits.discriminator", against=str(folder / "discriminator"))
    with pytest.raises(Problem, match=r"^against has no effect on a task 'gan'$"):
        configured("digits.gan", against=str(folder / "model"))
    task = run(folder).task
    for other, reason in (
        (DataFacts(1, (8, 8), tuple("abc")), "makes pictures of 3 channels and size"),
        (DataFacts(3, (8, 8), tuple("abd")), "knows other classes"),
    ):
        with pytest.raises(Problem, match=reason):
            task.resolve(other)
    assert task.resolve(facts).resolve(facts) == task.resolve(facts)
