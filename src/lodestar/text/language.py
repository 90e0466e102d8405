"""Frozen language models of `transformers` as encoders of text (Imagen, Saharia et al. 2022). Their states are kept on disk."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lodestar import checkpoint
from lodestar.config import Problem, first_line
from lodestar.extras import need
from lodestar.files import cache_folder
from lodestar.text.base import Tokenizer

KEPT = 4 * 2**30
"""Bytes of a model's states on disk beyond which no more are added: drawn captions, as those of `shapes`, have no end."""


class LanguageModel(Tokenizer):
    """A language model with its tokenizer. The states of its last layer, not its tokens, are what a network is told."""

    kind: Literal["language"] = "language"
    model: str
    """Folder of the model, or its name on the hub."""
    digest: str | None = None
    """SHA-256 of the model's weights; None before they are looked at."""
    width: int | None = Field(default=None, ge=1, le=2**20)
    """Channels of the states; None before the model is looked at."""

    @property
    def vocabulary(self) -> int:
        return len(self._tokenizer)

    @property
    def pad(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    def encode(self, text: str) -> list[int]:
        return [int(token) for token in self._tokenizer(text).input_ids]

    def settled(self, captions: Callable[[], Iterable[str]] | None = None) -> Self:
        """The configuration with digest and width of the model. Raises Problem if it cannot be loaded, or has changed."""
        found = _network(self.model)
        if self.digest not in (None, found.digest):
            raise Problem(
                f"language model {self.model!r} is not the one that this model was trained with: "
                f"its SHA-256 is {found.digest}, not {self.digest}"
            )
        return self.replace(digest=found.digest, width=found.width)

    def states(self, texts: Sequence[str], context: int, cut: bool = False) -> Tensor:
        """States of texts float32 [B, L, D + 1], L = `context`: 1 in the last channel at a text's tokens, 0 after them.

        A blank text has no tokens. Any other runs through the model alone, and once: states are kept in the cache folder, up to
        `KEPT` bytes of them. Raises Problem.
        """
        model = self if self.digest is not None else self.settled()
        assert model.digest is not None and model.width is not None
        out = torch.zeros(len(texts), context, model.width + 1)
        path = cache_folder() / "text" / f"{model.digest}.sqlite"
        with closing(_open(path)) as kept:
            room = path.stat().st_size < KEPT
            for row, text in enumerate(texts):
                if text.strip():
                    state = model._state(kept, room, text, context, cut)
                    out[row, : len(state), :-1] = state
                    out[row, : len(state), -1] = 1
        return out

    def _state(self, kept: sqlite3.Connection, room: bool, text: str, context: int, cut: bool) -> Tensor:
        assert self.width is not None
        key = hashlib.sha256(f"{context} {text}".encode()).digest()
        row = kept.execute("SELECT state FROM states WHERE text = ?", (key,)).fetchone()
        if row is not None:
            return torch.from_numpy(np.frombuffer(row[0], np.float32).copy()).view(-1, self.width)
        self.settled()  # raises for another model of this name
        tokens, mask = (each[0] for each in self.batch([text], context, cut))
        tokens = tokens[mask]
        with torch.inference_mode():
            state = _network(self.model).network(tokens[None]).last_hidden_state[0].float()
        if room:
            with kept:
                kept.execute("INSERT OR REPLACE INTO states VALUES (?, ?)", (key, state.numpy().tobytes()))
        return torch.tensor(state.numpy())

    @property
    def _tokenizer(self) -> Any:
        return _tokenizer(self.model)


@dataclass(frozen=True)
class _Network:
    """A loaded model."""

    network: Any
    digest: str
    width: int


@lru_cache(maxsize=2)
def _network(model: str) -> _Network:
    transformers = need("transformers")
    network = _loaded(transformers.AutoModel, model)
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    network = network.requires_grad_(False).float().eval()
    digest = checkpoint.content_digest({"kind": "transformers", "config": network.config.model_type}, network.state_dict())
    return _Network(network, digest, int(network.config.hidden_size))


@lru_cache(maxsize=2)
def _tokenizer(model: str) -> Any:
    return _loaded(need("transformers").AutoTokenizer, model)


def _loaded(kind: Any, model: str) -> Any:
    folder = Path(model).expanduser()
    try:
        return kind.from_pretrained(folder if folder.is_dir() else model)
    # The hub, the network, the cache and the model's files each raise exceptions of their own.
    except Exception as error:
        raise Problem(f"language model {model!r} cannot be loaded: {first_line(error)}") from None


def _open(path: Path) -> sqlite3.Connection:
    """The file with states by the hashes of their texts. Raises Problem if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = sqlite3.connect(path, timeout=60)
        kept.execute("CREATE TABLE IF NOT EXISTS states (text BLOB PRIMARY KEY, state BLOB NOT NULL)")
    except (OSError, sqlite3.Error) as error:
        raise Problem(f"cannot keep states of texts in {path}: {error}") from None
    return kept
