"""A text as a condition: its states as tokens for attention, and its vector added to the embedding of time (GLIDE).

No text is the encoded empty text, so that the null is learned. Tokens, or states of a frozen language model, are encoded once per
text in a whole sampling run.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from lodestar.conditions.ask import Ask
from lodestar.conditions.base import Condition, Encoder, Fields
from lodestar.conditions.signals import Signals
from lodestar.nets.text import TextTransformer, TextTransformerConfig
from lodestar.text import AnyTokenizer, LanguageModel, OwnTokenizer

NOTHING = -1
"""Place after a text, in the place of a token."""
STYLES = 1_000
"""Maximum number of styles."""
_KEPT = 1_000
"""Maximum number of texts whose signals are kept."""


class Texts(Condition, abc.ABC):
    """A text as a condition, in a form given by an encoder."""

    tokenizer: AnyTokenizer = OwnTokenizer()
    styles: tuple[str, ...] = Field(default=(), max_length=STYLES)
    """Styles behind the captions in training: each is a word for a prompt (`lodestar.data.captions.styled`)."""

    @property
    @abc.abstractmethod
    def context(self) -> int:
        """Maximum number of tokens of a text."""

    def asked(self, asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
        """The texts as `read` gives them; none is an empty one."""
        return self.read([ask.text or "" for ask in asks]), None

    def seen(self, fields: Fields, x0: Tensor) -> Tensor:
        captions = fields.get("caption")
        assert isinstance(captions, tuple), "captions are texts"
        return self.read(captions, cut=True).to(x0.device)

    def read(self, texts: Sequence[str], cut: bool = False) -> Tensor:
        """Texts as tokens int64 [B, L], `NOTHING` after each; a blank text has no tokens. Raises Problem for a text that is too
        long, unless it may be cut."""
        tokens, mask = self.tokenizer.batch(texts, self.context, cut)
        mask &= torch.tensor([bool(text.strip()) for text in texts])[:, None]
        return tokens.where(mask, NOTHING)

    def settled(self, captions: Callable[[], Iterable[str]] | None) -> Self:
        """The condition with a tokenizer that is learned from captions, or a language model that is known by its digest.

        Raises Problem without captions to learn from, or without the model.
        """
        return self.replace(tokenizer=self.tokenizer.settled(captions))

    def check(self, text: str, name: str = "prompt") -> None:
        """Raise Problem for a text that is too long, or not valid Unicode."""
        self.tokenizer.check(text, self.context, name, "this model's")

    def cut(self, text: str) -> str:
        """A text, or its longest beginning that is not too long."""
        return self.tokenizer.cut(text, self.context)


class TextCondition(Texts):
    """A text as a condition, encoded by a transformer of the denoiser's own."""

    kind: Literal["text"] = "text"
    network: TextTransformerConfig = TextTransformerConfig()

    @property
    def context(self) -> int:
        return self.network.context

    @property
    def told(self) -> int | None:
        return self.network.width

    def build(self, width: int) -> TextEncoder:
        return TextEncoder(self, width)

    def read(self, texts: Sequence[str], cut: bool = False) -> Tensor:
        """As `Texts.read`; with a language model its states float32 [B, L, D + 1], whose last channel is 1 at the text."""
        if isinstance(self.tokenizer, LanguageModel):
            return self.tokenizer.states(texts, self.context, cut)
        return super().read(texts, cut)


class TextEncoder(Encoder):
    """A text transformer, with what it said of texts before while its weights stay the same."""

    def __init__(self, config: TextCondition, width: int) -> None:
        super().__init__()
        tokenizer = config.tokenizer
        self.language = isinstance(tokenizer, LanguageModel)
        if isinstance(tokenizer, LanguageModel) and tokenizer.width is None:
            tokenizer = tokenizer.settled()
        self.channels = tokenizer.width if isinstance(tokenizer, LanguageModel) else None
        self.pad = 0 if self.channels else tokenizer.pad
        size = self.channels or tokenizer.vocabulary
        self.network = TextTransformer(config.network, size, width, states=self.channels is not None)
        self._kept: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._weights: tuple[tuple[int, int], ...] = ()

    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        """The signals of texts, as `TextCondition.read` gives them."""
        if keep is not None:
            blank = self._blank(len(given)).to(given)
            given = torch.where(keep.view(-1, *(1,) * (given.ndim - 1)), given, blank)
        if torch.is_grad_enabled():
            tokens, emb = self._encode(given)
        else:
            tokens, emb = self._remembered(given)
        return Signals(emb, tokens=tokens)

    def null(self, count: int) -> Signals:
        """The signals of no text: of an empty one, the same for each sample."""
        signals = self(self._blank(1).to(self.network.position.device))
        assert signals.emb is not None and signals.tokens is not None
        return Signals(signals.emb.expand(count, -1), tokens=signals.tokens.expand(count, -1, -1))

    def _blank(self, count: int) -> Tensor:
        places = self.network.config.context
        if self.channels is None:
            return torch.full((count, places), NOTHING)
        return torch.zeros(count, places, self.channels + 1)

    def _encode(self, given: Tensor) -> tuple[Tensor, Tensor]:
        if self.channels is not None:
            tokens, emb = self.network(given[..., :-1], given[..., -1] > 0)
        else:
            mask = given != NOTHING
            tokens, emb = self.network(given.where(mask, self.pad), mask)
        return tokens, emb

    def _remembered(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """The states and vectors of texts; only those that are new run through the network."""
        weights = tuple((each.data_ptr(), 0 if each.is_inference() else each._version) for each in self.parameters())
        if weights != self._weights or len(self._kept) > _KEPT:
            self._kept, self._weights = {}, weights
        kept = self._kept  # of this call, whatever other threads begin anew
        keys = [row.numpy().tobytes() for row in given.cpu()]
        new = {key: row for row, key in enumerate(keys) if key not in kept}
        if new:
            # Ordinary tensors, since what is kept may be needed where gradients are taken through the network.
            with torch.inference_mode(False), torch.no_grad():
                encoded = self._encode(given[list(new.values())].clone())
            kept |= {key: (encoded[0][row], encoded[1][row]) for row, key in enumerate(new)}
        tokens, emb = zip(*(kept[key] for key in keys), strict=True)
        return torch.stack(tokens), torch.stack(emb)
