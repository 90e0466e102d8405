"""An autoregressive prior: embeddings as codes of their principal components (Ramesh et al. 2022, section 2.2).

The components are in the order of falling variance, and each is divided into buckets of equally many training embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from lodestar.conditions import ClipText, Signals
from lodestar.config import Config, Problem
from lodestar.core.noise import generator
from lodestar.models.save import Model
from lodestar.nets.codes import CodesConfig
from lodestar.nets.int8 import between


class AutoregressiveConfig(Config):
    """An autoregressive prior."""

    kind: Literal["autoregressive"] = "autoregressive"
    network: CodesConfig = CodesConfig()
    text: ClipText = ClipText(length=32, width=192)
    """The text's way into the network."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.text.width, self.text.length) != (self.network.width, self.network.context):
            raise Problem(f"text has {self.text.length} tokens of width {self.text.width}, unlike the network's")
        if self.network.codes > self.text.embed:
            raise Problem(f"codes are of {self.network.codes} components: an embedding has {self.text.embed}")
        return self

    def build(self) -> AutoregressivePrior:
        return AutoregressivePrior(self)


class AutoregressivePrior(Model):
    """The weights of an autoregressive prior, with its components and buckets."""

    mean: Tensor
    components: Tensor
    centres: Tensor
    levels: Tensor

    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network.build()
        self.text = config.text.build(config.network.width)
        codes, embed = config.network.codes, config.text.embed
        self.register_buffer("mean", torch.zeros(embed))
        self.register_buffer("components", torch.zeros(codes, embed))
        self.register_buffer("centres", torch.zeros(codes, config.network.buckets))
        self.register_buffer("levels", torch.zeros(config.network.similarities - 1))
        self.dtype = torch.float32
        """Precision of the torso."""

    def fit(self, embeddings: Tensor, similarities: Tensor) -> None:
        """Set components, buckets and levels by embeddings float32 [N, E] and similarities [M] of pairs."""
        codes, buckets = self.config.network.codes, self.config.network.buckets
        values = embeddings.double()
        mean = values.mean(dim=0)
        _, vectors = torch.linalg.eigh(torch.cov((values - mean).T))
        # A vector's sign is arbitrary: its largest entry is positive.
        components = vectors.flip(1)[:, :codes].T
        components = components * components.gather(1, components.abs().argmax(dim=1, keepdim=True)).sign()
        self.mean.copy_(mean)
        self.components.copy_(components)
        places = (torch.arange(buckets, dtype=torch.float64) + 0.5) / buckets
        for number, scores in enumerate(((values - mean) @ components.T).T):
            self.centres[number].copy_(torch.quantile(scores, places.to(scores)))
        inner = torch.arange(1, len(self.levels) + 1, dtype=torch.float64) / (len(self.levels) + 1)
        self.levels.copy_(torch.quantile(similarities.double(), inner.to(similarities.device)))

    def encode(self, embeddings: Tensor) -> Tensor:
        """Codes int64 [B, codes] of embeddings [B, E]."""
        scores = (embeddings - self.mean) @ self.components.T
        between_centres = (self.centres[:, 1:] + self.centres[:, :-1]) / 2
        codes: Tensor = torch.searchsorted(between_centres, scores.T.contiguous()).T
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Embeddings [B, E] of codes int64 [B, codes]."""
        scores = self.centres.gather(1, codes.T).T
        embeddings: Tensor = scores @ self.components + self.mean
        return embeddings

    def projected(self, embeddings: Tensor, count: int) -> Tensor:
        """Embeddings [B, E] as their first `count` principal components tell them. Raises Problem where there are fewer."""
        if not 1 <= count <= len(self.components):
            raise Problem(f"components {count}: {self.name or 'this prior'} has 1 to {len(self.components)} principal components")
        axes = self.components[:count]
        return (embeddings - self.mean) @ axes.T @ axes + self.mean

    def level(self, similarity: Tensor) -> Tensor:
        """Levels int64 [B] of similarities, equally many training pairs in each."""
        levels: Tensor = torch.searchsorted(self.levels, similarity.contiguous())
        return levels

    def logits(self, signals: Signals, level: Tensor, codes: Tensor) -> Tensor:
        """Logits float32 [B, codes, buckets] of all codes int64 [B, codes], each given those before it."""
        assert signals.tokens is not None and signals.emb is not None and signals.mask is not None
        prefix = self.network.prefix(signals.tokens, signals.emb, level)
        x = torch.cat([prefix, self.network.embedded(codes[:, :-1])], dim=1)
        whole: Tensor = self.network(x, signals.mask, dtype=self.dtype)
        return whole[:, prefix.shape[1] - 1 :]

    @torch.inference_mode()
    def sample(
        self, texts: Sequence[str], seeds: Sequence[int], scale: float = 1.0, temperature: float = 1.0, cached: bool = True
    ) -> Tensor:
        """Embeddings float32 [B, E] for texts, each by its own seed; the level of similarity is drawn from the upper half.

        scale: of classifier-free guidance of the logits; 1 is none. cached: keep keys and values of places before.
        """
        device, network = self.mean.device, self.network
        draws = torch.stack([torch.rand(1 + self.config.network.codes, generator=generator(seed)) for seed in seeds]).to(device)
        half = self.config.network.similarities // 2
        level = half + (draws[:, 0] * (self.config.network.similarities - half)).long()
        signals = self.text(self.config.text.read(texts).to(device))
        if scale != 1:
            signals, level = signals.beside(self.text.null(len(texts))), level.repeat(2)
        x = network.prefix(signals.tokens, signals.emb, level)
        past = network.before() if cached else None
        first, codes = 0, torch.zeros(len(texts), 0, dtype=torch.int64, device=device)
        for number in range(self.config.network.codes):
            logits = network(x, signals.mask, first, past, self.dtype)[:, -1]
            if scale != 1:
                cond, null = logits.chunk(2)
                logits = null + scale * (cond - null)
            cumulated = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
            drawn = (cumulated < draws[:, 1 + number, None]).sum(dim=-1).clamp_max(network.config.buckets - 1)
            codes = torch.cat([codes, drawn[:, None]], dim=1)
            if number + 1 < self.config.network.codes:
                told = drawn if scale == 1 else drawn.repeat(2)
                new = network.embedded(told[:, None], number)
                first, x = (first + x.shape[1], new) if cached else (0, torch.cat([x, new], dim=1))
        return self.decode(codes)

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the torso in `dtype`, for inference."""
        self.dtype = between() if dtype == torch.int8 else dtype
        self.network.lower(self.dtype)
        return self
