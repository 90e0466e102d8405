"""Ways of damaging bytes and JSON. All are functions of a generator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

DEEP = "@deep@"
"""Stands in a tree for a value that is nested too deep to be one."""


def flipped(data: bytes, rng: Random) -> bytes:
    """Some bits, up to sixteen, are another."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 4, 16))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data) + 1)]


def swelled(data: bytes, rng: Random) -> bytes:
    """Bytes are put in somewhere."""
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 7, 1000))) + data[place:]


def replaced(data: bytes, rng: Random) -> bytes:
    """A stretch is nothing but zeros, ones or noise."""
    begin, length = rng.randrange(len(data) + 1), rng.choice((1, 8, 64, 4096))
    fill = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return data[:begin] + fill[: len(data) - begin] + data[begin + length :]


def other(_: bytes, rng: Random) -> bytes:
    """Something else altogether."""
    return rng.choice((b"", b"\0", b"plain text", b"\x89PNG\r\n\x1a\n" + bytes(50), b"PK\x03\x04" + bytes(60), b"\x80\x02}",
                       b"{}",
                       b"PAR1" + bytes(20) + b"PAR1", rng.randbytes(500), b"\xef\xbb\xbf{}", b"[" * 100_000))  # fmt: skip


_BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (flipped, flipped, flipped, cut, swelled, replaced, other)


def damaged(data: bytes, rng: Random) -> bytes:
    """One of these."""
    return rng.choice(_BYTES)(data, rng)


NUMBERS: tuple[Any, ...] = (0, -1, 10**8, 10**30, -(10**30), 0.5, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**63, 2**64)
"""Numbers that no person means."""
VALUES: tuple[Any, ...] = (None, True, False, "", "x", "NaN", "1", [], {}, [[]], [None], {"a": 1}, ["a", "b"], [1, 2, 3, 4, 5],
                           {"kind": "x"}, {"kind": None}, {"kind": []}, "\ud800", "\0", "x" * 100_000, DEEP, DEEP)  # fmt: skip


def absurd(rng: Random) -> Any:
    """A value that is wrong nearly everywhere."""
    return rng.choice(rng.choice((NUMBERS, VALUES)))


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values of a tree, its own first."""
    yield path
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        yield from places(value, (*path, key))


def mutated(tree: Any, rng: Random) -> Any:
    """JSON with one of its values another, missing, or one too many. The tree given stays as it is."""
    tree = json.loads(json.dumps(tree))
    path = rng.choice(list(places(tree)))
    if not path:
        return absurd(rng)
    node = tree
    for key in path[:-1]:
        node = node[key]
    key, value = path[-1], node[path[-1]]
    match rng.randrange(8):
        case 0:
            del node[key]
        case 1:
            node[key] = [value]
        case 2:
            node[key] = {"x": value}
        case 3 if isinstance(node, dict):
            node["unheard of"] = absurd(rng)
        case 4 if isinstance(value, int | float) and not isinstance(value, bool):
            node[key] = rng.choice((str(value), -value, value + 1, value * 2, value / 3))
        case _:
            node[key] = absurd(rng)
    return tree


def text(tree: Any, rng: Random) -> str:
    """A tree as JSON, with what is nested too deep."""
    depth = rng.choice((70, 300, 2_000, 100_000))
    left, right = rng.choice((("[", "]"), ('{"a":', "}")))
    return json.dumps(tree).replace(f'"{DEEP}"', left * depth + "1" + right * depth)
