"""Training steps of autoencoders, priors of codes and denoising diffusion GANs, against the same networks by `torch.nn` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import plain
import torch
import torch.nn.functional as F
from common import CPU, Goal, Setting, own_time, seconds
from rich.table import Table
from torch import Tensor, nn

from lodestar import checkpoint
from lodestar.data import Batch, DataFacts
from lodestar.generators.autoencoder import VQVAE
from lodestar.models.code_prior import CodePriorModel
from lodestar.nets import PixelCnnConfig, PixelSnailConfig, TransformerConfig
from lodestar.nets.autoencoder import AutoencoderConfig
from lodestar.nets.pyramid import PyramidConfig
from lodestar.nets.unet import UNetConfig
from lodestar.presets import RUNS
from lodestar.tasks import Autoencode, TrainCodePrior, TrainDDGan, TrainVQVAE
from lodestar.tasks.denoise import Pinned
from lodestar.training.start import start
from lodestar.training.step import Step

CLASSES, SIZE = 10, 32
KINDS = ("ae", "vae", "vqvae", "vqvae2", "vqvae_pixelcnn", "vqvae_prior", "ddgan", "vqvae_transformer")
"""Kinds of presets."""
Reference = Callable[[], object]


class Plain:
    """A step of AdamW on a loss, with an average of the weights."""

    def __init__(self, network: nn.Module, loss: Callable[[], Tensor]) -> None:
        self.network, self.loss = network, loss
        parameters = list(network.parameters())
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.99))
        self.average = [each.detach().clone() for each in parameters]

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()
        torch._foreach_lerp_(self.average, [each.detach() for each in self.network.parameters()], 1e-3)


class Players:
    """A step of a denoising diffusion GAN's discriminator, with its penalty where it has one, and one of its generator."""

    def __init__(self, task: TrainDDGan, x: Tensor, label: Tensor) -> None:
        model = task.model
        assert isinstance(model.denoiser.network, UNetConfig) and model.denoiser.latent is not None
        self.generator = plain.UNet(model.denoiser.network, CLASSES, model.denoiser.latent)
        self.critic = plain.Critic(task.discriminator, CLASSES)
        self.x, self.label, self.task, self.count = x, label, task, 0
        self.optimizers = [
            torch.optim.AdamW(each.parameters(), lr=1e-4, betas=(0.0, 0.99)) for each in (self.critic, self.generator)
        ]
        self.average = [each.detach().clone() for each in self.generator.parameters()]

    def pair(self, fake: bool) -> tuple[Tensor, Tensor]:
        """Pictures at the beginning of a step beside those at its end, and times; the process is that of four steps in small."""
        time = torch.randint(4, (len(self.x),)).float()
        alpha = (0.9 - 0.2 * time)[:, None, None, None]
        end = alpha * self.x + (1 - alpha.square()).sqrt() * torch.randn_like(self.x)
        x0 = self.generator(end, time, self.label) if fake else self.x
        begin = 0.5 * x0 + 0.3 * end + 0.2 * torch.randn_like(end)
        return torch.cat([begin, end], dim=1), time

    def __call__(self) -> None:
        fast, slow = self.optimizers
        real, time = self.pair(fake=False)
        with torch.no_grad():
            fake, other = self.pair(fake=True)
        loss = F.softplus(-self.critic(real, time, self.label)).mean() + F.softplus(self.critic(fake, other, self.label)).mean()
        if self.count % self.task.r1_every == 0:
            seen = real.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.critic(seen, time, self.label).sum(), seen, create_graph=True)
            loss = loss + 0.5 * self.task.r1 * self.task.r1_every * slope.flatten(1).square().sum(1).mean()
        fast.zero_grad()
        loss.backward()
        fast.step()
        if self.count % self.task.generator_every == 0:
            slow.zero_grad()
            fake, time = self.pair(fake=True)
            F.softplus(-self.critic(fake, time, self.label)).mean().backward()
            slow.step()
            torch._foreach_lerp_(self.average, [each.detach() for each in self.generator.parameters()], 1e-3)
        self.count += 1


def family(setting: Setting) -> Iterator[Table | Goal]:
    """Steps of the presets for CIFAR-10, at their batches; priors are told no classes, and their codes are random."""
    table = Table("training", "pictures/s, torch.nn", "ours", "times as fast", title="32×32 and codes of 8×8")
    tiny = setting.batches == (2,)
    for name in KINDS[1::2] if tiny else KINDS:
        with TemporaryDirectory() as folder:
            size, rounds, theirs, ours = _pair(name, Path(folder), 2 if tiny else None)
        calls = {"torch.nn": partial(_times, rounds, theirs), "ours": partial(_times, rounds, ours)}
        taken = seconds(calls, setting.repeats, clock=own_time)  # type: ignore[arg-type]
        ratio = taken["torch.nn"] / taken["ours"]
        table.add_row(name, *(f"{rounds * size / taken[each]:.0f}" for each in calls), f"{ratio:.2f}")
        yield Goal(f"training of {name} against torch.nn", ratio, 1.2, 1.2)
    yield table


def _times(count: int, call: Reference) -> None:
    for _ in range(count):
        call()


def _pair(name: str, folder: Path, batch: int | None = None) -> tuple[int, int, Reference, Reference]:
    """Pictures of a batch, the preset's unless told, steps of a round, and a step of each."""
    run = RUNS[f"cifar10.{name}"]()
    run = run.replace(train=run.train.replace(batch_size=batch or run.train.batch_size))
    count, rounds = run.train.batch_size, 1
    images = torch.randint(256, (count, 3, SIZE, SIZE), dtype=torch.uint8)
    fields: dict[str, Tensor] = {"image": images, "label": torch.arange(count) % CLASSES}
    x, facts = images / 127.5 - 1, DataFacts(3, (SIZE, SIZE), tuple(map(str, range(CLASSES))))
    theirs: Plain | Players
    match run.task:
        case Autoencode() as task:
            assert isinstance(task.model.network, AutoencoderConfig)
            network: nn.Module = plain.Autoencoder(task.model.network, 2 if task.model.posterior == "gaussian" else 1)
            theirs = Plain(network, partial(network.loss, x))  # type: ignore[arg-type]
        case TrainVQVAE() as task:
            assert isinstance(task.model.network, PyramidConfig)
            network = plain.Pyramid(task.model.network)
            theirs = Plain(network, partial(network.loss, x))  # type: ignore[arg-type]
        case TrainCodePrior() as task:
            codec = VQVAE(task.model.codec)
            path = folder / "vqvae.safetensors"
            codec.save(path)
            pinned = Pinned(name=str(path), digest=checkpoint.peek(path).digest)
            run = run.replace(task=task.replace(conditional=False, codec=pinned))
            fields, theirs = _codes(task, count)
        case TrainDDGan() as task:
            run, rounds = run.replace(task=task.resolve(facts)), task.r1_every * task.generator_every
            assert isinstance(run.task, TrainDDGan)
            theirs = Players(run.task, x, fields["label"])
    if not isinstance(run.task, TrainDDGan):
        run = run.replace(task=run.task.resolve(facts))
    step = Step(run, start(run, folder / "run", str(CPU)))
    _check(name, step, theirs)
    return count, rounds, theirs, partial(step, Batch(fields))


def _codes(task: TrainCodePrior, count: int) -> tuple[dict[str, Tensor], Plain]:
    """Random codes, and the reference of a prior's network."""
    model = CodePriorModel(task.model)
    config = model.level(0).network.config
    codes = torch.randint(config.codes, (count, *config.size))
    kinds = {PixelCnnConfig: plain.PixelCnn, PixelSnailConfig: plain.PixelSnail, TransformerConfig: plain.Transformer}
    network = kinds[type(config)](config)  # type: ignore[index]
    return {"bottom": codes}, Plain(network, partial(network.loss, codes))


def _check(name: str, step: Step, theirs: Plain | Players) -> None:
    """That the networks are of one size, but for codebooks, which are no parameters of the reference."""
    players = [theirs.network] if isinstance(theirs, Plain) else [theirs.generator, theirs.critic]
    reference = sum(each.numel() for player in players for each in player.parameters())
    ours = sum(each.numel() for phase in step.phases for each in phase.parameters if each.requires_grad)
    assert ours == reference, f"{name}: the networks differ, {ours:,} parameters and {reference:,}"
