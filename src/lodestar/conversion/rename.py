"""The rename engine: weights of another project under the names of our modules, by an ordered table, or not at all.

A family of foreign checkpoints is a table of rules. Every rule is a regular expression substitution, applied to the result of the
rules before, with an optional change of the tensor. A resulting name that ends in ``[0]``, ``[1]`` … is a piece of a tensor: the
pieces are joined in order along the first dimension. A state dict fits when every foreign name matched a rule, every name of ours
is filled exactly once, and every shape agrees; otherwise one line tells why not.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lodestar.config import Problem


def matrix(weight: Tensor) -> Tensor:
    """The weight of a 1×1 convolution, [O, I, 1] or [O, I, 1, 1], as the matrix of an affine map, [O, I]."""
    return weight.flatten(1)


@dataclass(frozen=True)
class Rule:
    """A substitution of `replacement` (as in `re.sub`) for `pattern` in a name; if it matched, `change` applies to the tensor."""

    pattern: str
    replacement: str | Callable[[re.Match[str]], str]
    change: Callable[[Tensor], Tensor] | None = None


def rename(
    state: Mapping[str, Tensor], rules: Iterable[Rule], ours: Mapping[str, Tensor], what: str = "weights"
) -> dict[str, Tensor]:
    """The tensors of `state` under the names of `ours`, with equal shapes. `what` names the source in the message.

    Raises Problem naming the first few of the foreign names without a place, our names left empty, and shapes that differ.
    """
    rules = list(rules)
    found: dict[str, dict[int, tuple[str, Tensor]]] = {}
    homeless = []
    for foreign, tensor in state.items():
        name, changed = _apply(rules, foreign, tensor)
        place, number = _piece(name)
        pieces = found.setdefault(place, {}) if place in ours else None
        if pieces is None or number in pieces:
            homeless.append(foreign)
        else:
            pieces[number] = foreign, changed
    renamed: dict[str, Tensor] = {}
    differing = []
    for name, pieces in found.items():
        foreign_names, tensors = zip(*(pieces[number] for number in sorted(pieces)), strict=True)
        joined = _join(tensors)
        if joined is None or joined.shape != ours[name].shape:
            told = " + ".join(f"{foreign} {list(state[foreign].shape)}" for foreign in foreign_names)
            differing.append(f"{told} for {name} {list(ours[name].shape)}")
        renamed[name] = ours[name] if joined is None else joined
    empty = [name for name in ours if name not in renamed]
    complaints = (
        *_complaint(homeless, "has no place in the network", "have no place in the network"),
        *_complaint(empty, "of the network is not filled", "of the network are not filled"),
        *_complaint(differing, "has another shape", "have another shape"),
    )
    if complaints:
        raise Problem(f"{what} does not fit: {'; '.join(complaints)}")
    return renamed


def _apply(rules: list[Rule], name: str, tensor: Tensor) -> tuple[str | None, Tensor]:
    """Our name, None if no rule matched, and the tensor with the rules' changes."""
    met = False
    for rule in rules:
        name, count = re.subn(rule.pattern, rule.replacement, name)
        if count:
            met = True
            # What cannot be changed is of a shape that does not fit, of which `rename` tells.
            with contextlib.suppress(IndexError, RuntimeError):
                tensor = tensor if rule.change is None else rule.change(tensor)
    return name if met else None, tensor


def _piece(name: str | None) -> tuple[str, int]:
    """Our name without the piece's number, and that number; the whole is piece 0. A name without a rule is not ours."""
    match = re.fullmatch(r"(.*)\[(\d+)\]", name or "")
    return (match[1], int(match[2])) if match else (name or "", 0)


def _join(tensors: Sequence[Tensor]) -> Tensor | None:
    """The pieces concatenated; None if their shapes do not fit."""
    if len(tensors) == 1:
        return tensors[0]
    return torch.cat(tuple(tensors)) if len({tensor.shape[1:] for tensor in tensors}) == 1 else None


def _complaint(names: list[str], one: str, several: str) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return [f"{len(names)} {one if len(names) == 1 else several} ({shown})"]
