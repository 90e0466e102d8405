"""Training a CLIP: on captions, of clean or of noised pictures; or a noised tower after a clean one, without captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.config import Problem
from lodestar.core.level import CLEAN, Level
from lodestar.data.batch import Batch, DataFacts
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.nets.clip import SHARPEST, unit
from lodestar.nets.clip_image import ImageTowerConfig
from lodestar.nets.precision import place
from lodestar.objectives import Losses
from lodestar.tasks.base import BUCKETS, Coupled, Export, Frozen, Learner, Phase, Task, check_size
from lodestar.tasks.rng import Rng


class TrainClip(Task):
    """A CLIP of pictures and captions, by a symmetric contrastive loss; noise-aware if its image tower is."""

    kind: Literal["clip"] = "clip"
    model: ClipModelConfig = ClipModelConfig()

    @property
    def conditions(self) -> bool:
        return False

    @property
    def captions(self) -> bool:
        return True

    def resolve(self, facts: DataFacts) -> Self:
        if not facts.captions:
            raise Problem("captions are missing: a CLIP learns from pictures with texts, and this data has none")
        model, tokenizer = self.model, self.model.tokenizer.settled(facts.texts)
        network = model.network.replace(image=_seeing(model.network.image, facts))
        if tokenizer != model.tokenizer:
            # The tower has a vector for every token that was learned, and no others.
            network = network.replace(text=network.text.replace(vocabulary=tokenizer.vocabulary))
        return self.replace(model=model.replace(network=network, tokenizer=tokenizer))

    def build(self, device: torch.device, dtype: torch.dtype) -> ClipLearner:
        return ClipLearner(self, device, dtype)


def _seeing(image: ImageTowerConfig, facts: DataFacts) -> ImageTowerConfig:
    """The image tower for the data's pictures. Raises Problem."""
    check_size(facts.size, image)
    return image.replace(size=facts.size, in_channels=facts.channels)


class ClipLearner(Learner):
    """The learner of `TrainClip`."""

    def __init__(self, task: TrainClip, device: torch.device, dtype: torch.dtype) -> None:
        self.task, self.device = task, device
        self.module = self.model = place(PictureClip(task.model), device)
        self.model.dtype = dtype

    def phases(self) -> list[Phase]:
        return [Phase("clip", list(self.module.parameters()), Coupled(self.encode, self.grade), self.blunt)]

    def encode(self, batch: Batch, rng: Rng) -> Tensor:
        """Embeddings of length 1 of pictures, at levels and with noise drawn from rng, beside those of captions: [B, 2·E]."""
        x, level = pixels.encode(batch.image.to(self.device)), CLEAN
        if self.task.model.noised:
            level = rng.draw(self.task.model.schedule.draw)
            x = self.task.model.schedule.forward(x, level, rng.normal(*x.shape[1:]))
        return self._codes(x, level, batch)

    def grade(self, codes: Tensor) -> Losses:
        """The mean cross-entropy, for each picture, of its caption among all, and of the picture among all for the caption."""
        seen, said = codes.chunk(2, dim=1)
        logits = self.model.network.scale * seen @ said.T
        right = torch.arange(len(logits), device=logits.device)
        by_picture, by_text = (F.cross_entropy(each, right, reduction="none") for each in (logits, logits.T))
        found = (logits.argmax(dim=1) == right).float()
        return Losses(0.5 * (by_picture + by_text), {"accuracy": found})

    @torch.no_grad()
    def blunt(self, noted: Mapping[str, Tensor]) -> None:
        """Keep the factor of the cosine at most `SHARPEST`."""
        self.model.network.log_scale.clamp_(max=math.log(SHARPEST))

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        """Share of pictures whose caption is the most similar of their batch; of noised ones, amid each quarter of the
        chain. A picture's noise is the same in every validation."""
        schedule, last = self.task.model.schedule, self.task.model.schedule.timesteps - 1
        levels = {"clean": CLEAN}
        if self.task.model.noised:
            places = [round(last * (2 * number + 1) / (2 * BUCKETS)) for number in range(BUCKETS)]
            levels = {f"time {schedule.table[each + 1].time:g}": schedule.table[each + 1] for each in places}
        return {f"accuracy/{name}": self._found(level, batches()) for name, level in levels.items()}

    @torch.no_grad()
    def _found(self, level: Level, batches: Iterable[Batch]) -> float:
        generator = torch.Generator(device=self.device).manual_seed(0)
        found = []
        for batch in batches:
            x0 = pixels.encode(batch.image.to(self.device))
            noise = torch.randn(x0.shape, generator=generator, device=self.device)
            x = self.task.model.schedule.forward(x0, level, noise)
            found.append(self.grade(self._codes(x, level, batch)).terms["accuracy"].cpu())
        return torch.cat(found).double().mean().item()

    def _codes(self, x: Tensor, level: Level, batch: Batch) -> Tensor:
        captions = batch.fields["caption"]
        assert isinstance(captions, tuple), "captions are texts"
        return torch.cat([unit(self.model.image_features(x, level)), unit(self.model.text_features(captions, cut=True))], dim=1)

    def compile(self) -> None:
        self.model.network.image.compile()
        self.model.network.text.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "clip", self.task.model.to_json())}


class MatchClip(Task):
    """A noise-aware CLIP that begins as a clean one, its teacher, and learns without captions (Liu et al. 2021, section 3.4).

    The noised picture's embedding is to be that of the clean picture by the teacher; the text tower stays as it is.
    """

    kind: Literal["match_clip"] = "match_clip"
    teacher: str
    """Name of the clean CLIP, for `lodestar.library.find`."""
    digest: str
    """SHA-256 of the teacher's file, as `lodestar info` shows it: a run is not resumed under another teacher."""
    model: ClipModelConfig
    """Configuration of the teacher, with the schedule of the noise."""

    @property
    def conditions(self) -> bool:
        return False

    def resolve(self, facts: DataFacts) -> Self:
        image = self.model.network.image
        if image.noised:
            raise Problem(f"teacher {self.teacher} is noise-aware already: it has to be a CLIP of clean pictures")
        if (facts.channels, facts.size) != (image.in_channels, image.size):
            raise Problem(
                f"teacher {self.teacher} sees pictures of {image.in_channels} channels and size {image.size}, "
                f"the data has {facts.channels} and {facts.size}: set data.channels and data.transforms.size"
            )
        return self

    @property
    def student(self) -> ClipModelConfig:
        """Configuration of the noise-aware CLIP."""
        network = self.model.network
        return self.model.replace(network=network.replace(image=network.image.replace(time="sinusoid")))

    def build(self, device: torch.device, dtype: torch.dtype) -> MatchLearner:
        return MatchLearner(self, device, dtype)


class MatchLearner(Learner):
    """The learner of `MatchClip`."""

    def __init__(self, task: MatchClip, device: torch.device, dtype: torch.dtype) -> None:
        self.task, self.device = task, device
        self.module = self.model = place(PictureClip(task.student), device)
        self.model.dtype = dtype
        self.teacher = place(PictureClip(task.model).requires_grad_(False).eval(), device)
        self.frozen = {task.teacher: Frozen(self.teacher, "clip", task.digest)}

    def begin(self, facts: DataFacts | None = None) -> None:
        """Begin as the teacher; what tells the level is zero at first, and adds nothing."""
        self.model.load_state_dict(self.teacher.state_dict(), strict=False)
        self.teacher.lower(self.model.dtype)

    def phases(self) -> list[Phase]:
        return [Phase("match", list(self.model.network.image.parameters()), self.loss)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        """One minus the cosine of the noised picture's embedding and the teacher's of the clean one, at levels drawn from rng."""
        x0, schedule = pixels.encode(batch.image.to(self.device)), self.task.model.schedule
        level = rng.draw(schedule.draw)
        x = schedule.forward(x0, level, rng.normal(*x0.shape[1:]))
        with torch.no_grad():
            target = self.teacher.image_features(x0)
        alike = F.cosine_similarity(self.model.image_features(x, level), target)
        return Losses(1 - alike, {"cosine": alike.detach()})

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        """Mean cosine with the teacher's embedding; a picture's noise is the same in every validation."""
        generator = torch.Generator(device=self.device).manual_seed(0)
        with torch.no_grad():
            cosines = [self.loss(batch, Rng(generator, len(batch))).terms["cosine"].cpu() for batch in batches()]
        return {"cosine": torch.cat(cosines).double().mean().item()}

    def compile(self) -> None:
        self.model.network.image.compile()
        self.teacher.network.image.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "clip", self.task.student.to_json())}
