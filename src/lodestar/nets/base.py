"""Networks: a configuration, with the sizes of pictures that fit and the fields that weights do not tell, and a module.

A network of denoisers is a file with both, and a line in `lodestar.nets`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from lodestar.config import Channels, Config, Problem
from lodestar.nets.attention import Gather

Part = Literal["down", "middle", "up"]
"""A part of a network in which attention can be replaced."""


@dataclass
class Kept:
    """Deep features of a network's last whole evaluation, in the place of the next ones' (DeepCache, Ma et al. 2024)."""

    deep: Tensor | None = None
    """The features; without them an evaluation is whole, and keeps its own here."""


class Network(nn.Module, abc.ABC):
    """A network that can compute in a format of 16 bits."""

    @property
    def hidden(self) -> Sequence[nn.Module]:
        """The parts between the first layers and the last, embeddings apart, whose matrices Muon may orthogonalize."""
        return ()

    @abc.abstractmethod
    def lower(self, dtype: torch.dtype) -> None:
        """Keep the weights of the torso in `dtype`, for inference; those of the last layers and of embeddings stay in float32."""


class NetworkConfig(Config, abc.ABC):
    """A network that looks at noised pictures."""

    silent: ClassVar[tuple[str, ...]] = ()
    """Fields that weights do not tell: where they differ, weights of the same names and shapes compute something else."""

    learns: ClassVar[bool] = True
    """False for a network that is read from published files, and not trained."""

    kind: str
    in_channels: Channels = 3

    @property
    def divisor(self) -> int:
        """Height and width of a picture must be multiples of this."""
        return 1

    @property
    def summary(self) -> str:
        """The network in a few words, for a person."""
        return self.kind

    @property
    def ranged(self) -> bool:
        """True if the ranges of activations are known, so that the network can compute in int8."""
        return False

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise Problem for a height and width that the network cannot look at."""
        if any(side < 1 or side % self.divisor for side in size):
            raise Problem(f"size is {size[0]}×{size[1]}: both must be multiples of {self.divisor}")

    def without_ranges(self) -> Self:
        """The network before its activations' ranges were found; weights that are trained on need others."""
        return self

    def disagreement(self, other: NetworkConfig, path: str) -> str | None:
        """Why the weights of `other` compute something else here, and what to set below `path`; None where they do not."""
        if other.kind != self.kind:
            return f"its network is of kind {other.kind!r}, this run's of kind {self.kind!r}"
        for field in self.silent:
            theirs, ours = getattr(other, field), getattr(self, field)
            if theirs != ours:
                return (
                    f"its network's {field} is {theirs!r}, this run's {ours!r}, and weights of one mean nothing to the other: "
                    f"set {path}.{field}={theirs}"
                )
        return None

    @abc.abstractmethod
    def build(self) -> Network:
        """The network, its weights random."""


class DenoiserNetwork(Network):
    """A network that a denoiser can be made of."""

    @abc.abstractmethod
    def forward(
        self,
        x: Tensor,
        time: Tensor,
        emb: Tensor | None = None,
        dtype: torch.dtype | None = None,
        gather: Mapping[Part, Gather] | None = None,
        kept: Kept | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Predict from noisy data.

        x: float32 [B, in_channels, H, W], of a size that `check_size` passes. time: [B], fractional too. emb: float32
        [B, emb_width], the sum of the conditions' embeddings; None is zero. dtype: the precision of the torso (default: x's).
        gather: replacements of attention, by part (PAG, SAG). kept: deep features to keep or to use, of a network that `reuses`.
        tokens: states of a text, float32 [B, L, context], exactly where the network is `told` one. mask: bool [B, L], True at the
        tokens that count; None if all do. Returns float32 [B, out_channels, H, W].
        """


class DenoiserNetworkConfig(NetworkConfig):
    """A network of denoisers. The denoiser sets its channels."""

    out_channels: Channels = 3
    """Channels of the output; twice those of the data where the variance is learned."""

    @property
    @abc.abstractmethod
    def emb_width(self) -> int:
        """Width of the conditions' embedding."""

    @property
    def told(self) -> int | None:
        """Width of the states of a text, for a network that takes one; None for others."""
        return None

    def listening(self, width: int | None) -> Self:
        """The network for a text of states of this width, or for none. Raises Problem for a network that takes no text."""
        raise Problem(f"a network of kind {self.kind!r} takes no text")

    @property
    def attending(self) -> tuple[Part, ...]:
        """The parts in which attention runs, for PAG and SAG; the map of the middle is smaller than x by `divisor`."""
        return ()

    @property
    def reuses(self) -> bool:
        """True if deep features can be kept across evaluations (`Kept`)."""
        return False

    @abc.abstractmethod
    def build(self) -> DenoiserNetwork:
        """The network, its weights random."""
