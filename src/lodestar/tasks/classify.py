"""Training a classifier: cross-entropy on pictures noised to a random level each, or clean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lodestar.codecs import pixels
from lodestar.config import Problem
from lodestar.core.level import CLEAN, Level
from lodestar.data.batch import Batch, DataFacts
from lodestar.models.classifier import ClassifierModelConfig, PictureClassifier
from lodestar.nets.precision import place
from lodestar.objectives import Losses
from lodestar.tasks.base import BUCKETS, Export, Learner, Phase, Task, check_size
from lodestar.tasks.rng import Rng


class TrainClassifier(Task):
    """A classifier of noised or clean pictures."""

    kind: Literal["classify"] = "classify"
    model: ClassifierModelConfig = ClassifierModelConfig()

    def resolve(self, facts: DataFacts) -> Self:
        if facts.names is None:
            raise Problem("labels are missing: a classifier needs data with classes, in a column 'label' or one folder for each")
        network = self.model.network
        check_size(facts.size, network)
        network = network.replace(in_channels=facts.channels, classes=len(facts.names), size=facts.size)
        # The number of classes and their names must change together, or the model's check would refuse each alone.
        return self.replace(model=self.model.replace(network=network, names=facts.names))

    def build(self, device: torch.device, dtype: torch.dtype) -> ClassifyLearner:
        return ClassifyLearner(self, device, dtype)


class ClassifyLearner(Learner):
    """The learner of `TrainClassifier`."""

    def __init__(self, task: TrainClassifier, device: torch.device, dtype: torch.dtype) -> None:
        self.task, self.device = task, device
        self.module = self.model = place(PictureClassifier(task.model), device)
        self.model.dtype = dtype

    def phases(self) -> list[Phase]:
        return [Phase("classify", list(self.module.parameters()), self.loss)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        """The cross-entropy of a batch, at levels and with noise drawn from rng."""
        label, logits, _ = self._classify(batch, rng)
        return Losses(cross_entropy(logits, label, reduction="none"), {"accuracy": (logits.argmax(1) == label).float()})

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        """Accuracy, for noised pictures also of each quarter of the chain; a picture's noise is the same in every validation."""
        generator = torch.Generator(device=self.device).manual_seed(0)
        right, places = [], []
        for batch in batches():
            label, logits, level = self._classify(batch, Rng(generator, len(batch)))
            right.append((logits.argmax(1) == label).double().cpu())
            if isinstance(level.time, Tensor):
                places.append((level.time / self.task.model.schedule.time_scale).round().long().cpu())
        correct = torch.cat(right)
        if not self.task.model.noised:
            return {"accuracy/clean": correct.mean().item()}
        place, schedule = torch.cat(places), self.task.model.schedule
        numbers: dict[str, float] = {}
        for number in range(BUCKETS):
            first, last = (-(-schedule.timesteps * edge // BUCKETS) for edge in (number, number + 1))
            inside = (first <= place) & (place < last)
            if inside.any():
                times = f"{first * schedule.time_scale:g}-{(last - 1) * schedule.time_scale:g}"
                numbers[f"accuracy/time {times}"] = correct[inside].mean().item()
        return numbers

    def compile(self) -> None:
        self.model.network.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "classifier", self.task.model.to_json())}

    def _classify(self, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor, Level]:
        """Labels [B], logits [B, classes] and the level of the pictures."""
        assert batch.label is not None
        x, level, schedule = pixels.encode(batch.image.to(self.device)), CLEAN, self.task.model.schedule
        if self.task.model.noised:
            level = rng.draw(schedule.draw)
            x = schedule.forward(x, level, rng.normal(*x.shape[1:]))
        return batch.label.to(self.device), self.model.logits(x, level), level
