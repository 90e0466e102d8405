"""Training a discriminator of real pictures against those of a diffusion model, both noised, for guidance (Kim et al. 2023).

The model's pictures are made once, in the order of their seeds and with its own settings, and kept in the cache folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Self

import torch
from pydantic import Field

from lodestar import checkpoint
from lodestar.config import COUNT, Problem
from lodestar.data.batch import Batch, DataFacts
from lodestar.files import cache_folder
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.request import request
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.discriminator import DiscriminatorModelConfig, PictureDiscriminator
from lodestar.nets.precision import name_of, place
from lodestar.objectives import Losses
from lodestar.objectives.adversarial import NonSaturating
from lodestar.progress import progress
from lodestar.tasks.base import Export, Frozen, Learner, Phase, Task
from lodestar.tasks.denoise import Pinned
from lodestar.tasks.rng import Rng

KIND = "made"
"""Kind of the files of made pictures."""


class TrainDiscriminator(Task):
    """A discriminator for the guidance of one diffusion model."""

    kind: Literal["discriminator"] = "discriminator"
    model: DiscriminatorModelConfig = DiscriminatorModelConfig()
    against: Pinned | None = None
    """The diffusion model."""
    opponent: DiffusionConfig | None = None
    """Configuration of the diffusion model."""
    made: int = Field(default=10_000, ge=1, le=COUNT)
    """Number of its pictures."""

    @property
    def conditions(self) -> bool:
        return self.opponent is None or self.opponent.denoiser.classes is not None

    def resolve(self, facts: DataFacts) -> Self:
        if self.against is None or self.opponent is None:
            raise Problem("task.against is null: name the model whose pictures are told from real ones, --against MODEL")
        model, name = self.opponent, self.against.name
        if others := [each.kind for each in model.denoiser.conditions if each.kind != "label"]:
            raise Problem(f"against {name}: it is told {others[0]!r}, and a discriminator knows classes alone")
        channels, *size = model.codec.data_shape((model.denoiser.channels, *model.size))
        if (facts.channels, facts.size) != (channels, tuple(size)):
            raise Problem(
                f"against {name}: it makes pictures of {channels} channels and size {tuple(size)}, "
                f"the data has {facts.channels} and {facts.size}: set data.channels and data.transforms.size"
            )
        classes = model.denoiser.classes
        if classes is not None and (facts.names is None or facts.names != (model.names or facts.names)):
            raise Problem(f"against {name}: it knows other classes ({model.names}) than the data ({facts.names})")
        network = self.model.network.replace(in_channels=model.denoiser.channels, classes=classes, timed=True)
        settled = DiscriminatorModelConfig(
            network=network, schedule=model.schedule, size=model.size, names=model.names, opponent=self.against.digest
        )
        return self.replace(model=settled)

    def build(self, device: torch.device, dtype: torch.dtype) -> DiscriminateLearner:
        return DiscriminateLearner(self, device, dtype)


class DiscriminateLearner(Learner):
    """The learner of `TrainDiscriminator`."""

    def __init__(self, task: TrainDiscriminator, device: torch.device, dtype: torch.dtype) -> None:
        assert task.against is not None and task.opponent is not None, "the model is found first"
        self.task, self.device = task, device
        self.module = self.model = place(PictureDiscriminator(task.model), device)
        self.model.dtype = dtype
        self.opponent = place(Diffusion(task.opponent).requires_grad_(False).eval(), device).lower(dtype)
        self.frozen = {task.against.name: Frozen(self.opponent, "diffusion", task.against.digest)}
        self._images, self._labels = torch.zeros(0), torch.zeros(0)
        """Made pictures uint8 [N, C, H, W], and their classes int64 [N]."""

    def begin(self, facts: DataFacts | None = None) -> None:
        """Make the pictures, or read those that are in the cache folder."""
        assert self.task.against is not None
        asked = request(self.opponent.labels(None, self.task.made))
        self._labels = torch.tensor([label if isinstance(label, int) else 0 for label in asked.labels])
        name = f"{self.task.against.digest[:32]}-{len(asked.asks)}-{name_of(self.opponent.denoiser.dtype)}.safetensors"
        path = cache_folder() / KIND / name
        if path.exists():
            self._images = checkpoint.load(path, KIND)[1]["images"]
            return
        parts = []
        with progress(f"pictures of {self.task.against.name}", len(asked.asks)) as done:
            for frame in self.opponent.stream(asked, batch_size=64):
                done(frame.done)
                parts += [frame.images] if frame.final else []
        self._images = torch.cat(parts)
        checkpoint.save(path, KIND, asked.settings.to_json(), {"images": self._images}, {})

    def phases(self) -> list[Phase]:
        return [Phase("discriminator", list(self.module.parameters()), self.loss)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        """The cross-entropy of a batch, and of as many made pictures at the same levels, drawn from rng."""
        schedule, entropy = self.task.model.schedule, NonSaturating()
        level = rng.draw(schedule.draw)
        rows = rng.integers(len(self._images)).cpu()
        pairs = ((batch.image, batch.label), (self._images[rows], self._labels[rows]))
        logits = []
        for images, label in pairs:
            x0 = self.opponent.codec.encode(images.to(self.device))
            told = None if self.task.model.network.classes is None or label is None else label.to(self.device)
            logits.append(self.model.log_ratio(schedule.forward(x0, level, rng.normal(*x0.shape[1:])), level, told))
        real, made = logits
        right = 0.5 * ((real > 0).float() + (made < 0).float())
        return Losses(entropy.real(real) + entropy.fake(made), {"accuracy": right})

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        """Loss and accuracy; levels, noise and made pictures are the same in every validation."""
        generator = torch.Generator(device=self.device).manual_seed(0)
        found = [self.loss(batch, Rng(generator, len(batch))) for batch in batches()]
        terms = {"loss": [each.total for each in found], "accuracy": [each.terms["accuracy"] for each in found]}
        return {f"held_out/{name}": torch.cat(values).double().mean().item() for name, values in terms.items()}

    def compile(self) -> None:
        self.model.network.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "discriminator", self.task.model.to_json())}
