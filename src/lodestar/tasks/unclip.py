"""Training the parts of DALL·E 2 around a CLIP, which stays as it is: a prior, of its embeddings, and a decoder, told some.

Ramesh et al. 2022, sections 2.1 and 2.2. A prior learns from embeddings that are kept on disk, and is whitened by all of them. A
model of pictures may also be told texts alone as the CLIP reads them, which has learned what they mean with far less work.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from lodestar.codecs import Embeddings, pixels
from lodestar.codecs.embeddings import Space, Whitening
from lodestar.conditions import Ask, ClipText, Condition, Embedding
from lodestar.config import Problem
from lodestar.data.batch import Batch, DataFacts
from lodestar.generators.request import seeded
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.nets.precision import place
from lodestar.nets.prior import PriorConfig
from lodestar.tasks.base import PREVIEWS, Frozen
from lodestar.tasks.denoise import DenoiseLearner, TrainDenoiser
from lodestar.tasks.rng import Rng


class TrainUnclip(TrainDenoiser):
    """A prior, if the model's codec is of embeddings; a decoder, if it is told some; or a model told texts by the CLIP."""

    kind: Literal["unclip"] = "unclip"  # type: ignore[assignment]
    clip: str = "clip"
    """Name of the CLIP, for `lodestar.library.find`."""
    digest: Space | None = None
    """SHA-256 of the CLIP's file; None before it is found."""
    encoder: ClipModelConfig | None = None
    """Configuration of the CLIP; None before it is found."""
    kept: int = Field(default=100_000, ge=2, le=10**9)
    """Number of pictures, from the first, whose embeddings a prior learns from; all of smaller data."""
    embedding_drop: float = Field(default=0.1, ge=0, le=1)
    """Probability of dropping a picture's embedding in training a decoder."""
    conditional: bool = False
    label_drop: float = Field(default=0.0, ge=0, le=1)

    @property
    def prior(self) -> bool:
        """True for a prior."""
        return isinstance(self.model.codec, Embeddings)

    @property
    def decoder(self) -> bool:
        """True for a decoder of embeddings."""
        return self.model.denoiser.embedding is not None

    def joined(self, clip: ClipModelConfig, digest: str) -> Self:
        """The task with the CLIP's settings. Raises Problem for another CLIP than before, or one of noised pictures."""
        clip.check_space(self.clip, digest, self.digest)
        embed, text, denoiser = clip.network.image.embed, clip.network.text, self.model.denoiser

        def settled(condition: Condition) -> Condition:
            if isinstance(condition, ClipText):
                return clip.told(condition, digest)
            return condition.replace(embed=embed, space=digest) if isinstance(condition, Embedding) else condition

        network, codec, channels = denoiser.network, self.model.codec, denoiser.channels
        if isinstance(codec, Embeddings):
            codec, channels = codec.replace(embed=embed, space=digest), embed
        if isinstance(network, PriorConfig):
            network = network.replace(context=text.context)
        conditions = tuple(map(settled, denoiser.conditions))
        denoiser = denoiser.replace(network=network, channels=channels, conditions=conditions)
        return self.replace(model=self.model.replace(denoiser=denoiser, codec=codec), digest=digest, encoder=clip)

    def resolve(self, facts: DataFacts) -> Self:
        assert self.encoder is not None, "the CLIP is found first"
        image = self.encoder.network.image
        if facts.channels != image.in_channels:
            raise Problem(f"{self.clip} sees pictures of {image.in_channels} channels, the data has {facts.channels}")
        if self.prior:
            return super().resolve(replace(facts, channels=image.embed, size=(1, 1), names=None))
        resolved = super().resolve(facts)
        if not self.decoder:
            if not isinstance(self.model.denoiser.text, ClipText):
                raise Problem(
                    "task.model.denoiser.conditions: of the CLIP this model is told nothing: name embedding or clip_text"
                )
            return resolved
        dropping = self.embedding_drop > 0 and (not self.captions or self.caption_drop > 0)
        return resolved.replace(model=resolved.model.replace(droppable=dropping))

    def build(self, device: torch.device, dtype: torch.dtype) -> UnclipLearner:
        return UnclipLearner(self, device, dtype)


class UnclipLearner(DenoiseLearner):
    """The learner of `TrainUnclip`."""

    def __init__(self, task: TrainUnclip, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(task, device, dtype)
        assert task.encoder is not None
        self.how = task
        self.clip = place(PictureClip(task.encoder).requires_grad_(False).eval(), device)
        self.clip.join(self.model)
        self.frozen = {task.clip: Frozen(self.clip, "clip", task.digest)}
        self._embeddings = torch.zeros(0, 0)
        """Embeddings that previews are made of: those of the last batch."""

    def begin(self, facts: DataFacts | None = None) -> None:
        """Set the whitening of a prior's embeddings."""
        if self.how.prior and facts is not None and facts.embeddings is not None:
            values = torch.from_numpy(facts.embeddings).double()
            values = values[values.isfinite().all(dim=1)]
            std, mean = torch.std_mean(values, dim=0)
            if not bool((std > 0).all()):
                raise Problem(f"embeddings of {len(values)} pictures by {self.how.clip} have channels without any variance")
            codec = self.model.codec
            assert isinstance(codec, Whitening)
            codec.mean.copy_(mean)
            codec.std.copy_(std)

    def data(self, batch: Batch) -> Tensor:
        if not self.how.prior:
            return super().data(batch)
        embedding = batch.fields["embedding"]
        assert isinstance(embedding, Tensor), "embeddings are numbers"
        return embedding[:, :, None, None]

    def condition(self, batch: Batch, x0: Tensor, rng: Rng) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if not self.how.decoder:
            return super().condition(batch, x0, rng)
        with torch.no_grad():
            seen = self.clip.image_features(pixels.encode(batch.image.to(self.device)))
        self._embeddings = seen[:PREVIEWS]
        cond, keeps = super().condition(Batch({**batch.fields, "embedding": seen}), x0, rng)
        return cond, {**keeps, "embedding": rng.uniform() >= self.how.embedding_drop}

    def preview(self) -> Tensor | None:
        """Decoded embeddings, or pictures of captions, of the last batch; None of a prior."""
        if not self.how.decoder:
            return None if self.how.prior else super().preview()
        asks = [Ask(others={"embedding": row.tolist()}) for row in self._embeddings]
        frames = self.model.stream(seeded(asks or [Ask()]))
        return torch.cat([frame.images for frame in frames if frame.final])
