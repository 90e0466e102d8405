"""Training steps of a GAN against the same networks written with `torch.nn` alone, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from common import CPU, Goal, Setting, own_time, seconds
from rich.table import Table
from torch import Tensor, nn

from lodestar.data import Batch, DataFacts
from lodestar.nets.gan import ResidualGeneratorConfig
from lodestar.presets import RUNS
from lodestar.tasks import TrainGan
from lodestar.tasks.augment import DiffAugment
from lodestar.training.start import start
from lodestar.training.step import Step

CLASSES, SIZE, STEPS = 10, 32, 4
"""A round is four steps, of which the first has the R1 penalty."""


class Block(nn.Module):
    """A residual block, told an embedding or none."""

    def __init__(self, channels: int, out: int, groups: int, emb: int | None) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels), nn.GroupNorm(groups, out)
        self.conv1, self.conv2 = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.emb = None if emb is None else nn.Linear(emb, 2 * out)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.emb is not None:
            scale, shift = self.emb(emb)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        out: Tensor = self.skip(x) + self.conv2(F.silu(h))
        return out


class Generator(nn.Module):
    """The generator of a configuration, of one block a resolution."""

    def __init__(self, config: ResidualGeneratorConfig) -> None:
        super().__init__()
        widths, groups, emb = config.widths, config.norm_groups, config.emb_width
        self.coarsest = SIZE // config.divisor
        self.root = nn.Linear(config.latent, widths[-1] * self.coarsest**2)
        self.told = nn.Sequential(nn.Linear(config.latent, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.table = nn.Embedding(CLASSES, emb)
        before = [widths[-1], *widths[:0:-1]]
        self.middle = nn.ModuleList([Block(widths[-1], widths[-1], groups, emb) for _ in range(2)])
        self.levels = nn.ModuleList(
            nn.ModuleList([Block(last, width, groups, emb), Block(width, width, groups, emb)])
            for last, width in zip(before, reversed(widths), strict=True)
        )
        self.norm, self.head = nn.GroupNorm(groups, widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        emb = F.silu(self.told(z) + self.table(label))
        h = self.root(z).view(len(z), -1, self.coarsest, self.coarsest)
        for block in self.middle:
            h = block(h, emb)
        for number, level in enumerate(self.levels):
            h = F.interpolate(h, scale_factor=2) if number else h
            for block in level:  # type: ignore[attr-defined]
                h = block(h, emb)
        return torch.tanh(self.head(F.silu(self.norm(h))))


class Discriminator(nn.Module):
    """The discriminator of a configuration, of one block a resolution."""

    def __init__(self, config: ResidualGeneratorConfig) -> None:
        super().__init__()
        widths, groups = config.widths, config.norm_groups
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        pairs = zip([widths[0], *widths[:-1]], widths, strict=True)
        self.levels = nn.ModuleList([Block(before, width, groups, None) for before, width in pairs])
        self.middle = nn.Sequential(*(Block(widths[-1], widths[-1], groups, None) for _ in range(2)))
        self.norm, self.logit = nn.GroupNorm(groups, widths[-1]), nn.Linear(widths[-1], 1)
        self.table = nn.Embedding(CLASSES, widths[-1])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.stem(x)
        for number, block in enumerate(self.levels):
            h = block(F.avg_pool2d(h, 2) if number else h)
        features = F.silu(self.norm(self.middle(h))).mean(dim=(2, 3))
        return self.logit(features)[:, 0] + (self.table(label) * features).sum(1)  # type: ignore[no-any-return]


class Plain:
    """Training of these networks, with an average of the generator's weights."""

    def __init__(self, config: ResidualGeneratorConfig, r1: float) -> None:
        self.latent, self.r1 = config.latent, r1
        self.players = Generator(config), Discriminator(config)
        self.optimizers = [torch.optim.AdamW(each.parameters(), lr=1e-4, betas=(0.0, 0.99)) for each in self.players]
        self.average = [each.detach().clone() for each in self.players[0].parameters()]

    def step(self, x: Tensor, label: Tensor, penalized: bool) -> None:
        """A step of the discriminator, then one of the generator."""
        (generator, discriminator), (slow, fast) = self.players, self.optimizers
        with torch.no_grad():
            fake = generator(torch.randn(len(x), self.latent), label)
        loss = F.softplus(-discriminator(x, label)).mean() + F.softplus(discriminator(fake, label)).mean()
        if penalized:
            seen = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(discriminator(seen, label).sum(), seen, create_graph=True)
            loss = loss + 0.5 * self.r1 * STEPS * slope.flatten(1).square().sum(1).mean()
        fast.zero_grad()
        loss.backward()
        fast.step()
        slow.zero_grad()
        F.softplus(-discriminator(generator(torch.randn(len(x), self.latent), label), label)).mean().backward()
        slow.step()
        torch._foreach_lerp_(self.average, [each.detach() for each in generator.parameters()], 1e-3)


def gan(setting: Setting) -> Iterator[Table | Goal]:
    """Steps of `cifar10.gan`, augmentation apart, at the batch of the preset."""
    run = RUNS["cifar10.gan"]()
    assert isinstance(run.task, TrainGan)
    names = tuple(map(str, range(CLASSES)))
    task = run.task.replace(augment=DiffAugment()).resolve(DataFacts(3, (SIZE, SIZE), names))
    network = task.model.network
    assert isinstance(network, ResidualGeneratorConfig) and task.r1_every == STEPS
    images = torch.randint(256, (run.train.batch_size, 3, SIZE, SIZE), dtype=torch.uint8)
    batch = Batch({"image": images, "label": torch.arange(len(images)) % CLASSES})
    x, label = images / 127.5 - 1, batch.label
    assert label is not None
    with TemporaryDirectory() as folder:
        run = run.replace(task=task)
        step = Step(run, start(run, Path(folder) / "run", str(CPU)))
    plain = Plain(network, task.r1)
    assert sum(each.numel() for player in plain.players for each in player.parameters()) == sum(
        each.numel() for each in step.state.learner.module.parameters()
    ), "the networks differ"
    calls = {
        "torch.nn": lambda: [plain.step(x, label, number == 0) for number in range(STEPS)],
        "ours": lambda: [step(batch) for _ in range(STEPS)],
    }
    taken = seconds(calls, setting.repeats, clock=own_time)  # type: ignore[arg-type]
    table = Table("training", "pictures/s", title=f"a GAN, 32×32, batch {len(images)}, R1 in every fourth step")
    for name, each in taken.items():
        table.add_row(name, f"{STEPS * len(images) / each:.0f}")
    yield table
    yield Goal("training of a GAN against torch.nn", taken["torch.nn"] / taken["ours"], 1.2, 1.2)
