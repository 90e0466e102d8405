"""Training an autoregressive prior: codes of embeddings after their texts (Ramesh et al. 2022, section 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lodestar.codecs.embeddings import Space
from lodestar.config import Problem
from lodestar.data.batch import Batch, DataFacts
from lodestar.models.autoregressive import AutoregressiveConfig, AutoregressivePrior
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.nets.precision import place
from lodestar.objectives import Losses
from lodestar.tasks.base import Export, Frozen, Learner, Phase, Task
from lodestar.tasks.rng import Rng

_PAIRS = 2_000
"""Number of pairs of text and picture that the levels of similarity are made of, from the first."""


class TrainAutoregressive(Task):
    """An autoregressive prior of a CLIP's embeddings."""

    kind: Literal["autoregressive"] = "autoregressive"
    model: AutoregressiveConfig = AutoregressiveConfig()
    clip: str = "clip"
    """Name of the CLIP, for `lodestar.library.find`."""
    digest: Space | None = None
    """SHA-256 of the CLIP's file; None before it is found."""
    encoder: ClipModelConfig | None = None
    """Configuration of the CLIP; None before it is found."""
    kept: int = Field(default=100_000, ge=2, le=10**9)
    """Number of pictures, from the first, whose embeddings are learned from; all of smaller data."""
    caption_drop: float = Field(default=0.1, ge=0, le=1)
    """Probability of dropping a picture's caption, for classifier-free guidance."""

    @property
    def conditions(self) -> bool:
        return False

    @property
    def captions(self) -> bool:
        return True

    @property
    def prior(self) -> bool:
        """True: its data are embeddings."""
        return True

    def joined(self, clip: ClipModelConfig, digest: str) -> Self:
        """The task with the CLIP's settings. Raises Problem for another CLIP than before, or one of noised pictures."""
        clip.check_space(self.clip, digest, self.digest)
        model = self.model
        text = clip.told(model.text, digest)
        network = model.network.replace(context=text.length)
        return self.replace(model=model.replace(text=text, network=network), digest=digest, encoder=clip)

    def resolve(self, facts: DataFacts) -> Self:
        if not facts.captions:
            raise Problem("captions are missing: a prior learns from pictures with texts, and this data has none")
        codes, count = self.model.network.codes, 0 if facts.embeddings is None else len(facts.embeddings)
        if codes >= count:
            raise Problem(f"task.model.network.codes is {codes}: principal components of {count} embeddings are fewer than those")
        return self

    def build(self, device: torch.device, dtype: torch.dtype) -> AutoregressiveLearner:
        return AutoregressiveLearner(self, device, dtype)


class AutoregressiveLearner(Learner):
    """The learner of `TrainAutoregressive`."""

    def __init__(self, task: TrainAutoregressive, device: torch.device, dtype: torch.dtype) -> None:
        assert task.encoder is not None, "the CLIP is found first"
        self.task, self.device = task, device
        self.module = self.model = place(AutoregressivePrior(task.model), device)
        self.model.dtype = dtype
        self.clip = place(PictureClip(task.encoder).requires_grad_(False).eval(), device)
        self.clip.join(self.model)
        self.frozen = {task.clip: Frozen(self.clip, "clip", task.digest)}

    def begin(self, facts: DataFacts | None = None) -> None:
        """Set components, buckets, and levels of similarity by the data."""
        if facts is None or facts.embeddings is None or facts.examples is None:
            return
        values = torch.from_numpy(facts.embeddings)
        rows = filter(None, map(facts.examples.row, range(min(len(values), _PAIRS))))
        pairs = [(row["embedding"], row["caption"]) for row in rows]
        pictures = torch.stack([torch.from_numpy(picture) for picture, _ in pairs])
        texts = [text if isinstance(text, str) else text[0] for _, text in pairs]
        with torch.no_grad():
            said = self.clip.text_features(texts, cut=True).cpu()
        self.model.fit(values[values.isfinite().all(dim=1)], F.cosine_similarity(pictures, said))

    def phases(self) -> list[Phase]:
        return [Phase("codes", list(self.module.parameters()), self.loss)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        """The mean cross-entropy of the codes of each embedding, in nats; captions are dropped by draws from rng."""
        keep = rng.uniform() >= self.task.caption_drop
        embedding = batch.fields["embedding"]
        assert isinstance(embedding, Tensor), "embeddings are numbers"
        embedding = embedding.to(self.device)
        codes, tokens = self.model.encode(embedding), self.task.model.text.seen(batch.fields, embedding)
        with torch.no_grad():
            level = self.model.level(F.cosine_similarity(embedding, self.clip.said(tokens)[1]))
        logits = self.model.logits(self.model.text(tokens, keep), level, codes)
        each = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")
        return Losses(each.mean(dim=1), {"first": each[:, 0].detach()})

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        """The mean cross-entropy; the same captions are dropped in every validation."""
        generator = torch.Generator(device=self.device).manual_seed(0)
        found = [self.loss(batch, Rng(generator, len(batch))).total.cpu() for batch in batches()]
        return {"held_out/loss": torch.cat(found).double().mean().item()}

    def compile(self) -> None:
        self.model.network.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "autoregressive", self.task.model.to_json())}
