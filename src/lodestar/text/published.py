"""The tokenizers of CLIP (Radford et al. 2021) and GLIDE (Nichol et al. 2022); their vocabularies are files of the user's."""

from __future__ import annotations

import gzip
import hashlib
import html
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

from lodestar.config import Problem, first_line
from lodestar.extras import need
from lodestar.files import cache_folder, reading, regular
from lodestar.text.base import Tokenizer
from lodestar.text.pieces import CONTRACTIONS, WORDS, BytePairs, split

VOCABULARIES = "LODESTAR_VOCABULARIES"
"""The environment variable that names a folder of vocabulary files."""
_PLAIN = re.compile(r"[\x20-\x7e\t\n]*")


class PublishedTokenizer(Tokenizer):
    """A published byte-pair encoding, with merges from a file of its publisher, or fetched from the hub."""

    files: ClassVar[tuple[str, ...]]
    """Names of the publisher's file."""
    hub: ClassVar[str]
    """Repository of the hub with the same merges in its ``merges.txt``."""
    merges: ClassVar[tuple[int, str]]
    """Number of the merges, and their SHA-256."""
    mark: ClassVar[str] = ""
    """Mark of a piece's last symbol."""

    folder: str | None = None
    """Folder of the vocabulary file; None is ``$LODESTAR_VOCABULARIES``, else ``vocabularies`` in the cache, else the hub."""

    @property
    def pairs(self) -> BytePairs:
        """The byte pairs. Raises Problem where the vocabulary is neither here nor on the hub, or is another one."""
        count, digest = self.merges
        return _load(self._find(), count, digest, self.mark)

    @property
    def vocabulary(self) -> int:
        return self.pad + 1

    def _find(self) -> Path:
        given = self.folder or os.environ.get(VOCABULARIES)
        folder = Path(given).expanduser() if given else cache_folder() / "vocabularies"
        for name in self.files:
            if (folder / name).is_file():
                return folder / name
        if given:
            raise Problem(f"tokenizer {self.kind}: {folder} holds no {' or '.join(self.files)}")
        try:
            return Path(need("huggingface_hub").hf_hub_download(self.hub, "merges.txt"))
        except Exception as error:  # the hub's library raises exceptions of its HTTP library
            raise Problem(
                f"tokenizer {self.kind} needs {self.files[0]}: put it into {folder}, or name its folder in ${VOCABULARIES} "
                f"(the hub's {self.hub} cannot be fetched: {first_line(error)})"
            ) from None


@lru_cache
def _load(path: Path, count: int, digest: str, mark: str) -> BytePairs:
    with reading(path):
        data = regular(path).read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        lines = text.split("\n")[1 : 1 + count]
        merges = [(first, second) for first, second in map(str.split, lines)]
    if len(merges) != count or hashlib.sha256("\n".join(lines).encode()).hexdigest() != digest:
        raise Problem(f"{path} is another vocabulary: it has not the {count:,} merges that were published")
    return BytePairs(merges, mark)


class GlideTokenizer(PublishedTokenizer):
    """GLIDE's encoding, that of GPT-2 in lower case. The token 50256 fills up, and is in no text."""

    files: ClassVar[tuple[str, ...]] = ("vocab.bpe.gz", "vocab.bpe")
    hub: ClassVar[str] = "openai-community/gpt2"
    merges: ClassVar[tuple[int, str]] = (
        50_000, "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0",
    )  # fmt: skip

    kind: Literal["glide"] = "glide"

    @property
    def pad(self) -> int:
        return 256 + self.merges[0]

    def encode(self, text: str) -> list[int]:
        pairs = self.pairs
        return [token for piece in split(text.lower(), WORDS, _GLIDE_FIRST) for token in pairs(piece)]


_GLIDE_FIRST = re.compile(CONTRACTIONS)


class ClipTokenizer(PublishedTokenizer):
    """CLIP's encoding: mended by `ftfy`, freed of HTML, in lower case, between the tokens 49406 and 49407; 0 fills up."""

    files: ClassVar[tuple[str, ...]] = ("bpe_simple_vocab_16e6.txt.gz",)
    hub: ClassVar[str] = "openai/clip-vit-base-patch32"
    merges: ClassVar[tuple[int, str]] = (
        48_894, "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a",
    )  # fmt: skip
    mark: ClassVar[str] = "</w>"

    kind: Literal["clip"] = "clip"

    @property
    def vocabulary(self) -> int:
        return 2 * 256 + self.merges[0] + 2

    @property
    def pad(self) -> int:
        return 0

    @property
    def begin(self) -> tuple[int, ...]:
        return (self.vocabulary - 2,)

    @property
    def end(self) -> tuple[int, ...]:
        return (self.vocabulary - 1,)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; see `Tokenizer`. Texts beyond plain ASCII need `ftfy`, which may change them."""
        pairs, special = self.pairs, {"<|startoftext|>": self.begin, "<|endoftext|>": self.end}
        pieces = split(_cleaned(text), _CLIP_WORDS, _CLIP_FIRST)
        return [token for piece in pieces for token in special.get(piece) or pairs(piece)]


_CLIP_FIRST = re.compile(rf"<\|startoftext\|>|<\|endoftext\|>|{CONTRACTIONS}", re.IGNORECASE)
_CLIP_WORDS = re.compile("L+|N|P+")


def _cleaned(text: str) -> str:
    # Nothing of plain ASCII is mended but what HTML stands for, and that is undone below as well.
    mended = text if _PLAIN.fullmatch(text) and "&" not in text else need("ftfy").fix_text(text)
    return " ".join(html.unescape(html.unescape(mended)).split()).lower()
