"""A codebook: of a list of learned vectors, the nearest stands for a vector (VQ-VAE, van den Oord et al. 2017)."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lodestar.config import Channels, Config
from lodestar.nets.layers import normal

_ROWS = 256
"""Vectors that are compared with all codes at once."""
_PART = 1024
"""Codes that are made ready at once."""
_BLOCK = 32
"""Codes of which the nearest is found at once."""
_MANY = 2048
"""Number of codes from which on a search in 16 bits pays."""
_FEW = 16
"""Mean number of candidates of a vector up to which only they are looked at again."""
Codes = Annotated[int, Field(ge=1, le=2**20)]
"""Number of codes."""


class CodebookConfig(Config):
    """A codebook."""

    codes: Codes = 512
    channels: Channels = 64
    """Channels of a code."""
    learning: Literal["average", "gradient"] = "average"
    """Learning of the codes: as moving averages of the vectors that they stand for (appendix A.1), or by gradient."""
    decay: float = Field(default=0.99, ge=0, lt=1)
    """Share of the moving averages that is kept in a step."""
    eps: float = Field(default=1e-5, ge=0, le=1)
    """Smoothing of the usage that sums are divided by."""
    revive: float = Field(default=0.03, ge=0, lt=1)
    """Share of the mean usage below which a code is dead and moves to a vector of the batch; 0: never."""

    def build(self) -> Codebook:
        return Codebook(self)


class Coded(NamedTuple):
    """Vectors, and the codes that stand for them."""

    values: Tensor
    """The codes' vectors [B, D, ...]; the gradient passes straight through to the given vectors."""
    numbers: Tensor
    """Numbers of the codes, int64 [B, ...]."""
    commitment: Tensor
    """Mean squared distance from the codes [B], with a gradient to the vectors alone."""
    pull: Tensor
    """Mean squared distance from the vectors [B], with a gradient to the codes alone."""


class Codebook(nn.Module):
    """K codes of D channels, with their usage."""

    size: Tensor
    """Moving average of the number of vectors that each code stands for in a batch [K]."""
    total: Tensor
    """Moving average of the sum of these vectors [K, D]."""

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        self.config = config
        averaged = config.learning == "average"
        # A parameter in either case: the averages of a run are of its parameters.
        self.codes = nn.Parameter(normal(config.codes, config.channels), requires_grad=not averaged)
        self.register_buffer("size", torch.zeros(config.codes))
        if averaged:
            self.register_buffer("total", torch.zeros(config.codes, config.channels))

    def forward(self, z: Tensor, dtype: torch.dtype = torch.float32) -> Coded:
        """Vectors float32 [B, D, ...]. dtype: the format in which the search may begin; its result is exact in any."""
        index = nearest(z.detach().movedim(1, -1).flatten(0, -2), self.codes.detach(), dtype)
        index = index.view(len(z), *z.shape[2:])
        values = self.look_up(index)
        commitment, pull = _distance(z, values.detach()), _distance(z.detach(), values)
        return Coded(z + (values - z).detach(), index, commitment, pull)

    def look_up(self, index: Tensor) -> Tensor:
        """The vectors [B, D, ...] of numbers [B, ...]."""
        return F.embedding(index, self.codes).movedim(-1, 1)

    @torch.no_grad()
    def follow(self, z: Tensor, index: Tensor, draws: Tensor | None = None) -> None:
        """Learn from the vectors [B, D, ...] and numbers [B, ...] of a whole batch.

        draws: uniform random numbers [B, ...], by which dead codes choose a vector to move to; None: none is revived.
        """
        vectors, index, config = z.movedim(1, -1).flatten(0, -2), index.flatten(), self.config
        counts = torch.bincount(index, minlength=config.codes).to(self.size)
        far = None if draws is None or config.revive == 0 else (vectors - self.codes[index]).square().sum(1)
        self.size.mul_(config.decay).add_(counts, alpha=1 - config.decay)
        if config.learning == "average":
            sums = torch.zeros_like(self.total).index_add_(0, index, vectors)
            self.total.mul_(config.decay).add_(sums, alpha=1 - config.decay)
            whole = self.size.sum()
            smooth = (self.size + config.eps) / (whole + config.codes * config.eps) * whole
            self.codes.copy_(self.total / smooth[:, None])
        if far is not None and draws is not None:
            self._revive(vectors, far, draws.flatten())

    def _revive(self, vectors: Tensor, far: Tensor, draws: Tensor) -> None:
        """Move dead codes to vectors, drawn without replacement in proportion to squared distances, as k-means++ begins.

        (Arthur and Vassilvitskii 2007; the draw is Efraimidis and Spirakis's, 2006.)
        """
        least = self.config.revive * self.size.mean()
        dead = (self.size < least).nonzero()[:, 0][: len(vectors)]
        keys = draws.clamp(min=torch.finfo(draws.dtype).tiny).log() / far.clamp(min=torch.finfo(far.dtype).tiny)
        chosen = vectors[keys.topk(len(dead)).indices].to(self.codes)
        # As if used a little, so that they have time to be of use before they count as dead again.
        self.codes[dead], self.size[dead] = chosen, 2 * least
        if self.config.learning == "average":
            self.total[dead] = chosen * (2 * least)

    @property
    def perplexity(self) -> Tensor:
        """Number of codes that would be as uncertain if all were used alike: exp of the usage's entropy."""
        share = self.size / self.size.sum().clamp(min=torch.finfo(self.size.dtype).tiny)
        return torch.exp(-torch.xlogy(share, share).sum())

    @property
    def mean(self) -> Tensor:
        """Mean of the codes by usage [D]."""
        share = self.size / self.size.sum().clamp(min=torch.finfo(self.size.dtype).tiny)
        return share @ self.codes

    @property
    def alive(self) -> Tensor:
        """Share of the codes that are used, in [0, 1]."""
        return (self.size > self.config.revive * self.size.mean()).float().mean()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).mean(dim=1)


def nearest(vectors: Tensor, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers int64 [N] of the nearest of codes [K, D] for vectors [N, D], the first of equally near ones.

    dtype: in bfloat16, of many codes, products find those that can be nearest, within a bound of its rounding errors, and float32
    decides between them. Memory grows with K alone.
    """
    centre = codes.mean(dim=0)  # distances stay the same, and rounding errors are those of smaller numbers
    rough = None if dtype == torch.float32 or len(codes) < _MANY else _Rough(codes, centre)
    exact: tuple[Tensor, Tensor] | None = None
    found = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for begin in range(0, len(vectors), _ROWS):
        rows = vectors[begin : begin + _ROWS]
        near = None if rough is None else rough(rows)
        if near is None:
            if exact is None:
                centred = codes - centre
                exact = centred, centred.norm(dim=1).square() / 2
            near = torch.addmm(exact[1], rows - centre, exact[0].T, alpha=-1).argmin(dim=1)
        found[begin : begin + _ROWS] = near
    return found


class _Rough:
    """A search whose scores |code|²/2 − vector·code are of 16 bits."""

    def __init__(self, codes: Tensor, centre: Tensor) -> None:
        self.codes, self.centre = codes, centre
        more = -len(codes) % _BLOCK
        across = codes.new_zeros((len(codes) + more, codes.shape[1]), dtype=torch.bfloat16)
        half = codes.new_full((len(codes) + more,), math.inf, dtype=torch.bfloat16)
        # Lengths of the longest code and of the largest rounding errors; part by part, which saves memory.
        self.longest = self.lost = self.slip = 0.0
        for begin in range(0, len(codes), _PART):
            rows = slice(begin, min(begin + _PART, len(codes)))
            part = codes[rows] - centre
            squares = part.square().sum(dim=1) / 2
            across[rows], half[rows] = part, squares
            self.longest = max(self.longest, _length(part))
            self.lost = max(self.lost, _length(part - across[rows]))
            self.slip = max(self.slip, float((squares - half[rows]).abs().max()))
        self.across, self.half = across.T, half

    def __call__(self, rows: Tensor) -> Tensor | None:
        """The nearest codes of rows [N, D]; None if 16 bits leave many in question."""
        centred = rows - self.centre
        few = centred.to(torch.bfloat16)
        scores = torch.addmm(self.half, few, self.across, alpha=-1)
        blocks = scores.view(len(rows), _BLOCK, -1)  # a block's codes lie apart: so the minimum is taken of whole rows
        least = blocks.amin(dim=1)
        limit = self._limit(centred, few, least.amin(dim=1).float())
        row, block = (least <= limit[:, None]).nonzero().unbind(1)
        if len(row) > _FEW * len(rows):
            return None
        inside, place = (blocks[row, :, block] <= limit[row, None]).nonzero().unbind(1)
        row, code = row[inside], place * blocks.shape[2] + block[inside]
        if len(row) > _FEW * len(rows):
            return None
        distance = (rows[row] - self.codes[code]).square().sum(dim=1)
        shortest = torch.full((len(rows),), math.inf, device=rows.device).scatter_reduce(0, row, distance, "amin")
        best = distance == shortest[row]
        first = torch.full((len(rows),), len(self.codes), dtype=torch.int64, device=rows.device)
        found: Tensor = first.scatter_reduce(0, row[best], code[best], "amin")
        return found

    def _limit(self, rows: Tensor, few: Tensor, least: Tensor) -> Tensor:
        """The largest score, in 16 bits [N], that the nearest code can have where the least is `least`.

        The product's error is that of its rounded factors (Cauchy and Schwarz), and of its sum in float32.
        """
        length, off = rows.norm(dim=1), (rows - few).norm(dim=1)
        half_eps = torch.finfo(torch.bfloat16).eps / 2
        error = off * self.longest + (length + off) * self.lost + self.slip
        error = error + torch.finfo(torch.float32).eps * rows.shape[1] * (length + self.longest) * self.longest
        error = error + half_eps * (least.abs() + 2 * error)
        limit = least + 2 * error
        above: Tensor = limit + 2 * half_eps * limit.abs()  # not below the limit once it is rounded
        return above.to(torch.bfloat16)


def _length(vectors: Tensor) -> float:
    """Length of the longest of vectors [N, D]."""
    return float(vectors.norm(dim=1).max())
