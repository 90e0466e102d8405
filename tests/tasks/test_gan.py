"""Training GANs: resuming, pieces, penalties, lost modes; and sampling from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lodestar
from lodestar.__main__ import main
from lodestar.config import Problem, decode
from lodestar.data.batch import Batch, DataFacts
from lodestar.generators.album import Manifest
from lodestar.generators.gan import Gan
from lodestar.models.gan import GanConfig, truncated
from lodestar.nets.gan import (
    DcganDiscriminatorConfig,
    DcganGeneratorConfig,
    ResidualDiscriminatorConfig,
    ResidualGeneratorConfig,
)
from lodestar.objectives.adversarial import AnyAdversarial, Wasserstein
from lodestar.presets import RUNS
from lodestar.tasks import OptimizerConfig, Rng, TrainGan
from lodestar.tasks.augment import DiffAugment
from lodestar.tasks.gan import GanLearner, modes
from lodestar.training.loop import train
from lodestar.training.run import Run
from tests.evaluation import tiny
from tests.training.runs import assert_same, denoising, logged, write_pictures

SMALL: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "norm_groups": 4}
BLOCKS: dict[str, Any] = {**SMALL, "blocks": 1, "head_channels": 8}
TASK = TrainGan(
    model=GanConfig(network=ResidualGeneratorConfig(**BLOCKS, latent=6)),
    discriminator=ResidualDiscriminatorConfig(**BLOCKS, spectral=True),
    r1=0.5,
    r1_every=2,
    augment=DiffAugment(colour=1, translation=0.125, cutout=0.5),
    discriminator_optimizer=OptimizerConfig(rate=2e-3, clip=None),
)
FACTS = DataFacts(3, (8, 8), tuple("abc"))


def run(source: str, task: TrainGan = TASK, **settings: Any) -> Run:
    return denoising(source, **settings).replace(task=task)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 24)


@pytest.fixture(scope="module")
def trained(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "gan"
    held_out = {"held_out": 0.25}
    whole = run(source, images=64, preview_every=32)
    train(whole.replace(data=whole.data.replace(**held_out)), folder)
    return folder


def learner(**changes: Any) -> GanLearner:
    torch.manual_seed(0)
    made = TASK.replace(**changes).resolve(FACTS).build(torch.device("cpu"), torch.float32)
    for module in made.module.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and not hasattr(module, "parametrizations"):
            module.reset_parameters()
    made.module.train()
    return made


def batch(count: int = 6) -> Batch:
    images = torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return Batch({"image": images, "label": torch.arange(count) % 3})


def rng() -> Rng:
    return Rng(torch.Generator().manual_seed(0), 6)


def command(*words: str, status: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == status


def test_a_run_of_two_optimizers_resumes_to_the_same_bits(source: str, tmp_path: Path) -> None:
    steady = {"optimizer": OptimizerConfig(rate=1e-3)}  # since a rate that falls knows the end of the run
    train(run(source, images=96, **steady), tmp_path / "whole")
    for images in (32, 64, 96):
        train(run(source, images=images, **steady), tmp_path / "parts")
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("loss", ["non_saturating", "hinge", "wasserstein"])
def test_pieces_are_the_whole(loss: str) -> None:
    made = learner(loss=decode(AnyAdversarial, {"kind": loss}))
    for play in (made.tell, made.fool):
        whole, drawing = play(batch(), rng()), rng()
        parts = [play(batch()[rows], drawing.piece(rows)) for rows in (slice(0, 4), slice(4, 6))]
        torch.testing.assert_close(torch.cat([part.total for part in parts]), whole.total, rtol=1e-4, atol=1e-5)


def test_penalties_are_in_the_loss() -> None:
    made = learner(augment=DiffAugment(), r1=3.0)
    losses = made.tell(batch(), rng())
    square = losses.terms["r1"]
    plain = learner(augment=DiffAugment(), r1=0.0).tell(batch(), rng())
    torch.testing.assert_close(losses.total, plain.total + 0.5 * 3.0 * 2 * square, rtol=1e-4, atol=1e-5)
    made.remember({})
    assert "r1" not in made.tell(batch(), rng()).terms  # in every second step
    walled = learner(loss=Wasserstein(penalty=7.0), r1=0.0).tell(batch(), rng())
    gap = walled.terms["fake"] - walled.terms["real"]
    torch.testing.assert_close(walled.total.detach(), gap + 7.0 * walled.terms["penalty"], rtol=1e-4, atol=1e-5)


def test_an_untold_discriminator_loses_twice_log_2() -> None:
    made = learner(r1=0.0)
    with torch.no_grad():
        for name, parameter in made.discriminator.named_parameters():
            if name.startswith(("logit", "table")):
                parameter.mul_(1e-9)
    assert made.discriminator.table is not None
    made.discriminator.logit = torch.nn.Linear(16, 1)
    torch.nn.init.zeros_(made.discriminator.logit.weight)
    torch.nn.init.zeros_(made.discriminator.logit.bias)
    torch.testing.assert_close(made.tell(batch(), rng()).total, torch.full((6,), 2 * math.log(2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("augment", [DiffAugment(colour=1), DiffAugment(translation=0.25), DiffAugment(cutout=0.5)])
def test_augmentation_changes_pictures_and_lets_gradients_through(augment: DiffAugment) -> None:
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = augment(x, rng())
    assert y.shape == x.shape and not torch.allclose(y, x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert gradient.isfinite().all() and (gradient != 0).any()
    assert DiffAugment()(x, rng()) is x


def test_a_shift_moves_and_a_cut_is_a_square() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8).expand(6, 1, 8, 8) + 1
    for row in DiffAugment(translation=0.25)(x, rng()):
        there = row[0] != 0
        height, width = (int(there.any(dim=axis).sum()) for axis in (1, 0))
        assert min(height, width) >= 6
        assert (row[0][there].view(height, width).diff(dim=1) == 1).all()  # neighbours stay neighbours
    for row in DiffAugment(cutout=0.5)(x, rng()):
        cut = row[0] == 0
        assert 1 <= cut.sum() <= 16 and cut.sum() == cut.any(dim=0).sum() * cut.any(dim=1).sum()


def test_truncated_numbers() -> None:
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    found = truncated(noise, 0.7)
    assert found.abs().max() <= 0.7 and torch.equal(found.argsort(), noise.argsort())
    # The variance of a normal distribution within ±b is 1 − 2·b·φ(b)/(2·Φ(b) − 1).
    inside = 2 * torch.special.ndtr(torch.tensor(0.7)) - 1
    variance = 1 - 2 * 0.7 * math.exp(-0.245) / math.sqrt(2 * math.pi) / inside
    assert found.var().item() == pytest.approx(float(variance), rel=0.03)
    torch.testing.assert_close(truncated(noise, 100.0), noise, rtol=1e-5, atol=1e-5)


def test_lost_modes_are_seen() -> None:
    images = torch.randint(256, (64, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    model = Gan(GanConfig(network=DcganGeneratorConfig(width=8, multipliers=(1, 2), norm_groups=4, size=(8, 8), in_channels=1)))

    class Makes(Gan):
        """A generator of these pictures, whatever is asked for."""

        def __init__(self, made: Tensor) -> None:
            super().__init__(model.config)
            self.made = made

        def sample(self, *_: Any, **__: Any) -> Any:
            return type("Made", (), {"images": self.made})

    given = [Batch({"image": images})]
    assert modes(Makes(images), given) == {"held_out/recall": 1.0, "held_out/coverage": 1.0}
    one = modes(Makes(images[:1].expand(64, -1, -1, -1)), given)
    assert one["held_out/coverage"] < 0.3 and one["held_out/recall"] < 0.1
    assert modes(Makes(images), [Batch({"image": images[:3]})]) == {}


def test_modes_are_logged_as_training_goes(trained: Path) -> None:
    lines = [line for line in logged(trained) if "held_out/coverage" in line]
    assert [line["images"] for line in lines] == [32, 64]
    assert len(list((trained / "samples").glob("*.png"))) == 2


def test_samples_have_seeds_and_truncation(trained: Path, tmp_path: Path) -> None:
    model = lodestar.load(trained, "cpu", dtype="float32")
    assert isinstance(model, Gan) and "latents of 6" in repr(model)
    made = model.sample("b", count=5, seed=7).images
    assert torch.equal(model.sample("b", count=5, seed=7, batch_size=2).images, made)
    assert torch.equal(model.sample("b", count=1, seed=10).images[0], made[3])
    assert not torch.equal(model.sample("b", count=5, seed=7, truncation=0.3).images, made)
    out = tmp_path / "album"
    command("sample", str(trained), "--label", "b=3", "--truncation", "0.7", "--out", str(out), "--device", "cpu")
    assert Manifest.read(out).request.settings.truncation == 0.7
    command("remake", str(out), "--picture", "2", "--out", str(tmp_path / "again"), "--device", "cpu")
    assert (tmp_path / "again" / "00002.png").read_bytes() == (out / "00002.png").read_bytes()
    command("info", str(trained))


def test_a_gan_is_evaluated(trained: Path, source: str) -> None:
    report = lodestar.evaluate(
        trained, source, count=12, metrics=["precision_recall", "density_coverage"], extractor=tiny.extractor()
    )
    assert {"precision", "recall", "coverage"} <= report.numbers.keys()


def test_truncation_is_swept_up_to_no_bound(trained: Path, source: str, tmp_path: Path) -> None:
    asked = {"metrics": "precision_recall", "extractor": tiny.extractor(), "count": 12, "out": tmp_path / "sweep"}
    found = lodestar.sweep(trained, source, over="truncation=0.3,none", **asked)
    plain = lodestar.evaluate(trained, source, count=12, metrics="precision_recall", extractor=tiny.extractor())
    assert [row.name for row in found.rows] == ["0.3", "none"] and {row.steps for row in found.rows} == {""}
    assert {name: found.rows[1].numbers[name] for name in ("precision", "recall")} == {
        name: plain.numbers[name] for name in ("precision", "recall")
    }
    assert lodestar.sweep(trained, source, over="truncation=0.3,1,none", **asked).rows[::2] == found.rows, "it goes on"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"steps": 4}, "steps has no effect on .*: a GAN makes a picture in one pass"),
        ({"guidance": "cfg:3"}, "guidance has no effect on"),
        ({"truncation": 0}, "truncation"),
        ({"label": "none"}, "label none: this model was never trained without its classes"),
        ({"label": "a+b"}, "label 'a\\+b': labels are composed by diffusion models alone"),
        ({"label": "d"}, "unknown label 'd'"),
        ({"prompt": "a dog"}, "^prompt 'a dog': .+ knows no text$"),
    ],
)
def test_what_a_gan_cannot_do_is_refused(trained: Path, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(Problem, match=reason):
        lodestar.load(trained, "cpu").sample(**given)


def test_truncation_is_refused_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    command("sample", "cifar10", "--count", "1", "--truncation", "0.7", "--device", "cpu", status=2)
    error = capsys.readouterr().err.strip()
    assert "truncation is 0.7: it bounds a GAN's latents, and cifar10 has none" in error and "\n" not in error


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Problem, match="labels are missing"):
        TASK.resolve(DataFacts(3, (8, 8), None))
    with pytest.raises(Problem, match="size is 9×8: both must be multiples of 2; resize them"):
        TASK.resolve(DataFacts(3, (9, 8), tuple("abc")))
    unconditional = TASK.replace(conditional=False).resolve(DataFacts(1, (8, 8), None))
    assert unconditional.model.network.classes is unconditional.discriminator.classes is None
    assert unconditional.discriminator.in_channels == 1


@pytest.mark.parametrize("name", ["digits.gan", "cifar10.gan", "emoji.gan"])
def test_presets_fit_their_data(name: str) -> None:
    made = RUNS[name]()
    assert isinstance(made.task, TrainGan)
    size = made.task.model.network.size
    made.task.resolve(DataFacts(made.task.model.network.in_channels, size, tuple("ab"))).model.network.build()


def test_a_dcgan_trains(source: str, tmp_path: Path) -> None:
    networks = {
        "model": GanConfig(network=DcganGeneratorConfig(**SMALL, latent=6)),
        "discriminator": DcganDiscriminatorConfig(**SMALL),
    }
    train(run(source, TASK.replace(**networks, conditional=False, generator_every=2), images=32), tmp_path / "run")
    lines = logged(tmp_path / "run")
    assert [("generator/loss" in line, "discriminator/loss" in line) for line in lines] == [(True, True), (False, True)]
    assert lodestar.load(tmp_path / "run", "cpu").sample(count=2).images.shape == (2, 3, 8, 8)
