"""Training a CLIP: its loss, the factor's limit, captions that are missing, and a noised tower after a clean one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lodestar.config import Problem
from lodestar.core.level import Level
from lodestar.core.schedule import Cosine
from lodestar.data import Batch, DataFacts
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.nets.clip import SHARPEST, ClipConfig, TextTowerConfig, unit
from lodestar.nets.clip_image import ResNetConfig, ViTConfig
from lodestar.tasks import MatchClip, OptimizerConfig, Rng, TrainClip
from lodestar.tasks.clip import ClipLearner, MatchLearner
from lodestar.text import OwnTokenizer
from lodestar.training.folder import check_shares
from lodestar.training.run import Run, TrainConfig
from lodestar.training.start import start
from lodestar.training.step import Step

CAPTIONS = ("a red circle", "a blue square", "two green stars", "nothing")
FACTS = DataFacts(3, (16, 16), None, captions=True, texts=lambda: CAPTIONS)


def config(time: str = "none", image: str = "vit") -> ClipModelConfig:
    tower: ViTConfig | ResNetConfig = ViTConfig(size=(16, 16), patch=8, width=16, layers=2, heads=2, embed=8, time=time)  # type: ignore[arg-type]
    if image == "resnet":
        tower = ResNetConfig(size=(32, 32), width=4, layers=(1, 1, 1, 1), embed=8, time=time)  # type: ignore[arg-type]
    text = TextTowerConfig(vocabulary=257, context=24, width=16, layers=1, heads=2)
    return ClipModelConfig(network=ClipConfig(image=tower, text=text), schedule=Cosine(timesteps=20))


def batch(count: int = 4) -> Batch:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=rng)
    return Batch({"image": images, "caption": tuple(CAPTIONS[k % 4] for k in range(count))})


def rng(count: int = 4) -> Rng:
    return Rng(torch.Generator().manual_seed(1), count)


def learner(time: str = "none") -> ClipLearner:
    torch.manual_seed(0)
    return TrainClip(model=config(time)).resolve(FACTS).build(torch.device("cpu"), torch.float32)


def test_the_loss_is_the_mean_of_both_directions() -> None:
    made = learner()
    seen = unit(made.model.image_features(batch().image.float() / 127.5 - 1))
    said = unit(made.model.text_features(CAPTIONS))
    codes = made.encode(batch(), rng())
    torch.testing.assert_close(codes, torch.cat([seen, said], dim=1))
    logits = seen @ said.T / 0.07
    expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
    torch.testing.assert_close(made.grade(codes).total.mean(), expected)


def test_the_factor_stays_below_its_limit() -> None:
    made = learner()
    with torch.no_grad():
        made.model.network.log_scale.fill_(9.0)
    made.blunt({})
    assert made.model.network.scale.item() == pytest.approx(SHARPEST)


@pytest.mark.parametrize("time", ["none", "table", "sinusoid"])
def test_pictures_are_noised_where_the_tower_is_told_the_level(time: str) -> None:
    made = learner(time)
    first, again = made.encode(batch(), rng()), made.encode(batch(), rng())
    assert torch.equal(first, again)
    other = made.encode(batch(), Rng(torch.Generator().manual_seed(2), 4))
    assert torch.equal(first[:, :8], other[:, :8]) == (time == "none")
    assert torch.equal(first[:, 8:], other[:, 8:]), "captions have no noise"


def test_the_tokenizer_learns_from_the_captions() -> None:
    task = TrainClip(model=config()).resolve(FACTS)
    tokenizer = task.model.tokenizer
    assert isinstance(tokenizer, OwnTokenizer) and tokenizer.merges
    assert task.model.network.text.vocabulary == tokenizer.vocabulary
    assert task.model.network.image.size == (16, 16)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (DataFacts(3, (16, 16), ("a",)), "captions are missing: a CLIP learns from pictures with texts"),
        (DataFacts(3, (12, 12), None, captions=True, texts=lambda: CAPTIONS), "multiples of 8"),
    ],
)
def test_what_does_not_fit_is_named(facts: DataFacts, message: str) -> None:
    with pytest.raises(Problem, match=message):
        TrainClip(model=config()).resolve(facts)


def test_a_batch_of_one_is_refused_as_nothing_is_learned_from_it() -> None:
    task = TrainClip(model=config()).resolve(FACTS)
    check_shares(Run(task=task, train=TrainConfig(batch_size=2)), 1)
    with pytest.raises(Problem, match="batch size 1: a CLIP learns which of a batch's captions is a picture's"):
        check_shares(Run(task=task, train=TrainConfig(batch_size=1)), 1)


@pytest.mark.parametrize("time", ["none", "sinusoid"])
def test_it_learns_which_caption_belongs_to_a_picture(time: str, tmp_path: Path) -> None:
    run = Run(
        task=TrainClip(model=config(time)).resolve(FACTS),
        train=TrainConfig(batch_size=4, optimizer=OptimizerConfig(rate=5e-3), precision="float32"),
    )
    state = start(run, tmp_path, "cpu")
    step = Step(run, state)
    losses = [step(batch())["loss"].mean().item() for _ in range(200)]
    assert math.log(4) * 0.5 < losses[0] < 8
    # Of pictures that are nearly noise, nothing tells which is which.
    assert sum(losses[-10:]) / 10 < (0.2 if time == "none" else 0.75) * losses[0]
    assert isinstance(state.learner, ClipLearner)
    names = state.learner.validate(lambda: [batch()])
    assert set(names) == ({"accuracy/clean"} if time == "none" else {f"accuracy/time {t}" for t in (2, 7, 12, 17)})
    assert names["accuracy/clean" if time == "none" else "accuracy/time 2"] >= 0.75


# ------------------------------------------------------------------------------------------- a noised tower after a clean one


@pytest.fixture
def teacher(tmp_path: Path) -> PictureClip:
    torch.manual_seed(0)
    made = PictureClip(config())
    made.save(tmp_path / "teacher.safetensors")
    return made


def matching(folder: Path) -> tuple[Run, MatchLearner, Step]:
    from lodestar import checkpoint

    path = folder / "teacher.safetensors"
    task = MatchClip(teacher=str(path), digest=checkpoint.peek(path).digest, model=config()).resolve(DataFacts(3, (16, 16), None))
    run = Run(task=task, train=TrainConfig(batch_size=4, optimizer=OptimizerConfig(rate=3e-3), precision="float32"))
    state = start(run, folder, "cpu")
    assert isinstance(state.learner, MatchLearner)
    return run, state.learner, Step(run, state)


def test_a_noised_tower_begins_as_the_clean_one(teacher: PictureClip, tmp_path: Path) -> None:
    _, made, _ = matching(tmp_path)
    x = batch().image.float() / 127.5 - 1
    level = Level(3.0, 0.8, 0.6)
    torch.testing.assert_close(made.model.image_features(x, level), teacher.image_features(x))
    torch.testing.assert_close(made.model.text_features(CAPTIONS), teacher.text_features(CAPTIONS))


def test_it_learns_the_embeddings_of_clean_pictures_without_captions(teacher: PictureClip, tmp_path: Path) -> None:
    _, made, step = matching(tmp_path)
    pictures = Batch({"image": batch().image})
    losses = [step(pictures)["loss"].mean().item() for _ in range(60)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    for name, tensor in made.model.network.text.state_dict().items():
        assert torch.equal(tensor, teacher.network.text.state_dict()[name]), "the text tower stays"
    assert made.exports()["model"].kind == "clip"


def test_a_teacher_that_is_noise_aware_is_refused() -> None:
    task = MatchClip(teacher="other", digest="", model=config("sinusoid"))
    with pytest.raises(Problem, match="noise-aware already"):
        task.resolve(DataFacts(3, (16, 16), None))
    with pytest.raises(Problem, match="size"):
        MatchClip(teacher="other", digest="", model=config()).resolve(DataFacts(3, (32, 32), None))


def test_a_resnet_is_told_the_level_too() -> None:
    torch.manual_seed(0)
    made = PictureClip(config("sinusoid", "resnet")).eval()
    x = torch.randn(2, 3, 32, 32)
    low, high = (made.image_features(x, Level(time, 0.8, 0.6)) for time in (1.0, 15.0))
    assert torch.equal(low, high), "zero at first"
    with torch.no_grad():
        for film in made.network.image.film:
            film.weight.normal_(std=0.1)
    low, high = (made.image_features(x, Level(time, 0.8, 0.6)) for time in (1.0, 15.0))
    assert not torch.allclose(low, high)
