"""Training a GAN: a generator of pictures from latent vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.config import Problem
from lodestar.core.neighbours import inside, nearest, squared_radii, within
from lodestar.data.batch import Batch, DataFacts
from lodestar.generators.base import Generator
from lodestar.generators.gan import Gan
from lodestar.models.gan import GanConfig
from lodestar.nets.gan import AnyDiscriminator, DcganDiscriminatorConfig
from lodestar.tasks.adversarial import AdversarialLearner, AdversarialTask, Game
from lodestar.tasks.augment import DiffAugment
from lodestar.tasks.base import PREVIEWS, Export, check_learns, check_size
from lodestar.tasks.rng import Rng

HELD_OUT = 1_000
"""Maximum number of held-out pictures in a validation: the first ones."""
NEIGHBOURS = 5
"""Neighbours that a ball of `modes` reaches to."""
COARSE = 8
"""Height and width of pictures as they are compared there."""


class TrainGan(AdversarialTask):
    """A GAN, class-conditional or unconditional."""

    kind: Literal["gan"] = "gan"
    model: GanConfig = GanConfig()
    discriminator: AnyDiscriminator = DcganDiscriminatorConfig()
    augment: DiffAugment = DiffAugment()
    """Augmentation of all that the discriminator sees."""
    conditional: bool = True
    """Condition on the classes of the data."""

    @property
    def conditions(self) -> bool:
        return self.conditional

    def resolve(self, facts: DataFacts) -> Self:
        if self.conditional and facts.names is None:
            raise Problem("labels are missing: this run is conditional and its data has no classes; set task.conditional=false")
        check_learns(self.model.network)
        names = facts.names if self.conditional else None
        for network in (self.model.network, self.discriminator):
            check_size(facts.size, network)
        told = {"in_channels": facts.channels, "classes": None if names is None else len(names)}
        # The number of classes and their names must change together, or the model's check would refuse each alone.
        model = self.model.replace(network=self.model.network.replace(**told, size=facts.size), names=names)
        return self.replace(model=model, discriminator=self.discriminator.replace(**told, timed=False))

    def build(self, device: torch.device, dtype: torch.dtype) -> GanLearner:
        return GanLearner(self, device, dtype)


class GanLearner(AdversarialLearner):
    """The learner of `TrainGan`."""

    def __init__(self, task: TrainGan, device: torch.device, dtype: torch.dtype) -> None:
        self.task, self.model = task, Gan(task.model)
        super().__init__(task, self.model, task.discriminator, device)
        self.model.dtype = dtype

    def game(self, batch: Batch, rng: Rng) -> Game:
        real = pixels.encode(batch.image.to(self.device))
        label = batch.label.to(self.device) if self.task.conditional and batch.label is not None else None
        z = rng.normal(self.task.model.network.latent)

        def logits(x: Tensor, twice: bool) -> Tensor:
            found: Tensor = self.discriminator(self.task.augment(x, rng), None, label, self.model.dtype, twice)
            return found

        return Game(real, partial(self.model, z, label), logits)

    def preview(self) -> Tensor:
        return self.model.sample(count=PREVIEWS).images

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        return modes(self.model, batches())

    def compile(self) -> None:
        self.model.network.compile()
        self.discriminator.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.model, "gan", self.task.model.to_json())}


def modes(model: Generator, batches: Iterable[Batch]) -> dict[str, float]:
    """Recall and coverage of held-out pictures by as many samples of the same classes, which fall where modes are lost.

    Pictures are compared as they look at 8×8: low numbers have a meaning beside those of other moments of a run alone. Coverage
    is the share of pictures with a sample nearer than their fifth neighbour (Naeem et al. 2020), recall the share of pictures
    that are so near to samples (Kynkäänniemi et al. 2019).
    """
    real: list[Tensor] = []
    label: list[int] = []
    for batch in batches:
        real.append(_coarse(batch.image))
        label += [] if batch.label is None else batch.label.tolist()
        if sum(map(len, real)) >= HELD_OUT:
            break
    pictures = torch.cat(real)[:HELD_OUT]
    if len(pictures) <= NEIGHBOURS:
        return {}
    labels = label[:HELD_OUT] if label and model.known[1] is not None else None
    made = _coarse(model.sample(labels, count=len(pictures)).images)
    recall = (inside(pictures, made, squared_radii(made, NEIGHBOURS)) > 0).double().mean()
    coverage = within(nearest(pictures, made)[0][:, 0], squared_radii(pictures, NEIGHBOURS)).double().mean()
    return {"held_out/recall": float(recall), "held_out/coverage": float(coverage)}


def _coarse(images: Tensor) -> Tensor:
    """Rows [N, D] of pictures uint8 [N, C, H, W], averaged to 8×8 if they are larger."""
    x = pixels.encode(images.cpu())
    return F.adaptive_avg_pool2d(x, (min(x.shape[2], COARSE), min(x.shape[3], COARSE))).flatten(1)
