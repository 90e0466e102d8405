"""Byte-pair encoding (Sennrich et al. 2016) of bytes, as in GPT-2: merges in their order, applied to the pieces of a text.

Pieces are found by the classes of characters: letters, numbers, white space, others. Python's tables tell the class, so no
library of regular expressions is needed.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

_NO_SPACE = "\x1c\x1d\x1e\x1f"
"""Separators that are white space to Python, and to no regular expression of Unicode."""
_CACHED = 100_000
"""Maximum number of pieces whose tokens are remembered."""

CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
WORDS = re.compile(r" ?L+| ?N+| ?P+|[ S]+(?![^ S])|[ S]+")
"""Pieces of GPT-2, by classes of characters: words with the space before them; the last space of several belongs to a word."""


class _Classes(dict[int, str]):
    """Class of each character: L a letter, N a number, a space, S other white space, P anything else."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)[0]
        space = "S" if character.isspace() and character not in _NO_SPACE else "P"
        self[code] = " " if character == " " else category if category in "LN" else space
        return self[code]


_CLASSES = _Classes()


def split(text: str, words: re.Pattern[str], first: re.Pattern[str]) -> Iterator[str]:
    """The pieces of a text; `first` matches the text itself, and where it does not, `words` matches the classes of characters.

    Characters without a match are left out.
    """
    classes, place = text.translate(_CLASSES), 0
    while place < len(text):
        found = first.match(text, place) or words.match(classes, place)
        if found is not None:
            yield text[place : found.end()]
        place = place + 1 if found is None else found.end()


def _alphabet() -> dict[int, str]:
    """A printable character for each byte, in the order of their tokens: printable bytes stand for themselves, and come first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + k) for k, byte in enumerate(others)}


ALPHABET = _alphabet()


class BytePairs:
    """Tokens of pieces: of single bytes, of bytes with the mark `end` of a piece's end, if there is a mark, and of merges."""

    def __init__(self, merges: Sequence[tuple[str, str]], end: str = "") -> None:
        symbols = [*ALPHABET.values()]
        symbols += [symbol + end for symbol in symbols] if end else []
        symbols += [first + second for first, second in merges]
        self.end, self.count, self.symbols = end, len(symbols), symbols
        self._tokens = {symbol: token for token, symbol in enumerate(symbols)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._known: dict[str, list[int]] = {}

    def __call__(self, piece: str) -> list[int]:
        """The tokens of a piece."""
        found = self._known.get(piece)
        if found is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[piece] = found = [self._tokens[symbol] for symbol in self._merged(piece)]
        return found

    def _merged(self, piece: str) -> list[str]:
        symbols = [ALPHABET[byte] for byte in piece.encode()]
        symbols[-1] += self.end
        while len(symbols) > 1:
            pairs = list(itertools.pairwise(symbols))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged, place = [], 0
            while place < len(symbols):
                width = 2 if tuple(symbols[place : place + 2]) == best else 1
                merged.append("".join(symbols[place : place + width]))
                place += width
            symbols = merged
        return symbols
