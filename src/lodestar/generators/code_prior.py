"""A prior of codes as a generator: codes drawn one after another, coarse levels first, and decoded by their VQ-VAE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import InstanceOf
from torch import Tensor

from lodestar.conditions import Ask, Composed, Texts
from lodestar.config import Problem, checked
from lodestar.core.noise import generator
from lodestar.generators.base import Generator
from lodestar.generators.decoding import Decoding
from lodestar.generators.guide import Critic, Guides
from lodestar.generators.request import Request, Settings
from lodestar.guidance import CFG, Sees
from lodestar.models.code_prior import CodePriorModel
from lodestar.models.labels import spell
from lodestar.models.look import look
from lodestar.nets import MapConfig
from lodestar.nets.maps import Walk
from lodestar.nets.precision import Precision, name_of

_USED = ("guidance", "temperature", "top_k", "top_p")
"""Settings that count for codes."""


class CodePrior(CodePriorModel, Generator):
    """A prior of codes that answers requests."""

    def __repr__(self) -> str:
        sizes = ", ".join("×".join(map(str, network.size)) for network in self.config.networks)
        return look(self, self.shape, self.config.classes, self.codec.dtype, f"codes {sizes}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.config.codec.channels, *self.config.codec.size)

    @property
    def text(self) -> Texts | None:
        return self.config.text

    @property
    def precision(self) -> Precision:
        return name_of(self.codec.dtype)

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        return self.config.names or (), self.config.classes

    @property
    def defaults(self) -> Settings:
        return Settings()

    def agree(self, guide: Critic, sees: Sees) -> None:
        raise Problem("no guide knows the pictures of a prior of codes: guides are of diffusion models")

    @property
    def droppable(self) -> bool:
        return self.config.droppable

    def prepare(self, asked: Request, guides: Guides | None = None) -> Decoding:
        how = checked("request", asked, InstanceOf[Request]).settings
        scale = self._scale(how)
        if asked.later:
            raise Problem(f"settings are given for {1 + len(asked.later)} stages: {self.name or 'this model'} is one")
        for label in dict.fromkeys(ask.label for ask in asked.asks):
            if isinstance(label, Composed):
                raise Problem(f"label {spell(label, self.config.names)!r}: a prior of codes is told one class, or none")
            self.label(label, {})
        for text in dict.fromkeys(ask.text for ask in asked.asks):
            self.check_text(text)
        self.eval()

        def pictures(rows: slice, start: Tensor | None) -> Tensor:
            if start is not None:
                raise Problem("start has no effect: codes are drawn by seeds, and begin with no noise")
            return self.codec.of_codes(self.draw(asked.asks[rows], how, scale))

        return Decoding(asked.asks, pictures)

    def _scale(self, how: Settings) -> float:
        """The scale of guidance. Raises Problem for settings without an effect on codes."""
        name = self.name or "this model"
        how.check_effective(name, "codes are drawn one after another, without noise levels", *_USED)
        if len(how.guidance) > 1 or not all(isinstance(each, CFG) and each.rescale == 0 for each in how.guidance):
            raise Problem(f"guidance {how.guidance[-1].kind}: codes are guided by cfg:SCALE alone, without rescaling")
        scale = next((each.scale for each in how.guidance if isinstance(each, CFG)), 1.0)
        if scale != 1 and not self.config.droppable:
            raise Problem(f"guidance cfg: {name} was never trained without its conditions, or has none")
        return scale

    @torch.inference_mode()
    def draw(self, asks: Sequence[Ask], how: Settings, scale: float = 1.0, cached: bool = True) -> list[Tensor]:
        """Codes int64 [B, h, w] by level from the finest, each map by the seed of its ask.

        scale: of classifier-free guidance of the logits; 1 is none. cached: keep what was computed for the places before.
        """
        asked = {str(each.kind): each.asked(asks) for each in self.config.conditions}
        cond = {kind: values.to(self.device) for kind, (values, _) in asked.items()}
        keep = {kind: mask.to(self.device) for kind, (_, mask) in asked.items() if mask is not None}
        generators, found = [generator(ask.seed) for ask in asks], list[Tensor]()
        for number in reversed(range(len(self.levels))):
            level, coarser = self.level(number), found[0] if found else None
            signals = level.encode(cond, keep, len(asks))
            if scale != 1:
                signals = signals.beside(level.encode({}, count=len(asks)))
                coarser = None if coarser is None else coarser.repeat(2, 1, 1)
            told, count = level.told(signals, coarser), len(asks) * (1 if scale == 1 else 2)
            walk = (level.network.walk if cached else level.network.retrace)(count, told, signals.tokens)
            found.insert(0, _drawn(walk, level.network.config, generators, how, scale))
        return found


def _drawn(walk: Walk, config: MapConfig, generators: Sequence[torch.Generator], how: Settings, scale: float) -> Tensor:
    """Codes int64 [B, h, w] of a walk over B maps, or with guidance over 2·B, the unconditional ones last.

    A code is the largest of logits with Gumbel noise, which two batches of other roundings hardly ever see differently.
    """
    height, width = config.size
    codes, logits = list[Tensor](), next(walk)
    for place in range(height * width):
        if place % width == 0:
            rows = [torch.empty(width, config.codes).exponential_(generator=each) for each in generators]
            noise = -torch.stack(rows).log().to(logits)
        if scale != 1:
            cond, null = logits.chunk(2)
            logits = null + scale * (cond - null)
        likely = likeliest(logits / how.temperature, how.top_k, how.top_p)
        codes.append((likely + noise[:, place % width]).argmax(dim=1))
        if place + 1 < height * width:
            logits = walk.send(codes[-1] if scale == 1 else codes[-1].repeat(2))
    return torch.stack(codes, dim=1).view(-1, height, width)


def likeliest(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Logits [B, K] of the k likeliest codes, and of these the fewest with a probability of p together; −∞ of all others."""
    if top_k is not None and top_k < logits.shape[1]:
        least = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        falling, order = logits.sort(dim=1, descending=True)
        shares = falling.softmax(dim=1)
        beyond = shares.cumsum(dim=1) - shares >= top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    return logits
