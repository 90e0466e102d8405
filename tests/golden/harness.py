"""The golden harness: cases recorded from published implementations, and adapters that compute the same with Lodestar.

A case is NAME.json beside NAME.safetensors. Its kind is what the JSON says: its `kind` (networks), else its `name`
(mathematics); a list of a published model's keys is of kind "manifest" with its repository, and has its counts as outputs.
File names and numbers of cases mean nothing.

An adapter is a generator function in any file of this folder, found by itself:

    @adapter("gd_q", "another_kind")
    def forward_process(case: Case) -> Iterator[Check | Left]:
        for name, settings in case.subcases.items():
            x0 = case.inputs["x_start"]                          # names without their "in/" and "out/"
            yield Check(f"{name}/q_mean", ours)                  # tolerance of the JSON
            yield Check(f"{name}/f64_mean", ours, rtol=1e-12)    # a tolerance that the JSON states in words
        for name in case.under("extra/"):                        # outputs whose names begin so
            yield Left(name, "why it is not compared")

Every output must be named once, by a Check or a Left. A Check holds where max|ours - theirs| ≤ atol + rtol max|theirs|;
integers and shapes must be equal, and what is not finite must be the same in the same places. Settings, sizes and subcases
come from the case, never from the adapter, so that it works on every other case of its kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


class Case:
    """One recorded case: `meta` is its JSON, the tensors are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))

    @property
    def kind(self) -> str:
        if "kind" in self.meta:
            return self.meta["kind"]
        if "checkpoint" in self.meta:
            return f"manifest {self.meta['source']['repo'].rpartition('/')[2]}"
        return self.meta["name"]

    @property
    def config(self) -> dict[str, Any]:
        return self.meta.get("config") or {}

    @property
    def subcases(self) -> dict[str, dict[str, Any]]:
        return self.meta.get("subcases") or {}

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        if "checkpoint" in self.meta:
            return {f"out/{name}": torch.tensor(self.meta[name]) for name in ("tensors", "params_total")}
        if "cases" in self.meta:
            return _strings(self.meta)
        return load_file(self.path.with_suffix(".safetensors"))

    @property
    def state(self) -> dict[str, Tensor]:
        """Parameters of a network by the reference's names."""
        return self._part("state/")

    @property
    def inputs(self) -> dict[str, Tensor]:
        return self._part("in/")

    @property
    def outputs(self) -> dict[str, Tensor]:
        return self._part("out/")

    def under(self, prefix: str) -> list[str]:
        """The names of the outputs that begin with `prefix`."""
        return [name for name in self.outputs if name.startswith(prefix)]

    def description(self, name: str) -> str:
        """What the JSON says of a tensor, named with its "in/" or "out/"."""
        return self.meta["tensors"][name]["desc"]

    def tolerance(self, name: str) -> tuple[float | None, float]:
        """(rtol, atol) that the JSON states for an output; rtol is None where it states them only in words."""
        per_output = self.meta.get("checks", {}).get("outputs", {})
        if name in per_output:
            return per_output[name].get("tolerance_relative_to_max", 0.0), 0.0  # without one it is exact
        stated = self.meta.get("tolerance", {})
        return stated.get("rtol", None if "atol" not in stated else 0.0), stated.get("atol", 0.0)

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


def _strings(meta: dict[str, Any]) -> dict[str, Tensor]:
    """The recorded tokens of a case of tokenizers, as the tensors of other cases."""
    found: dict[str, Tensor] = {}
    for number, each in enumerate(meta["cases"]):
        own, clip = each["glide"], each["clip"]
        found[f"out/{number}/glide"] = torch.tensor(own["ids"], dtype=torch.int64)
        found[f"out/{number}/glide_128"] = torch.tensor([own["padded_128"], own["mask_128"]])
        found[f"out/{number}/clip"] = torch.tensor(clip["ids"], dtype=torch.int64)
        found[f"out/{number}/clip_77"] = torch.tensor([*clip["tokenize_77_truncate"], clip["karlo_mask_77_true_count"]])
        found[f"out/{number}/clip_long"] = torch.tensor(int(clip["tokenize_77_raises_without_truncate"]))
    return found


@dataclass(frozen=True)
class Check:
    """Our value for the output `name`. Either tolerance, if given, replaces both of the JSON's; the other is then 0."""

    name: str
    ours: Tensor
    rtol: float | None = None
    atol: float | None = None


@dataclass(frozen=True)
class Left:
    """An output that is not compared, and why."""

    name: str
    reason: str


Adapter = Callable[[Case], Iterator[Check | Left]]
ADAPTERS: dict[str, Adapter] = {}


def adapter(*kinds: str) -> Callable[[Adapter], Adapter]:
    """Register a function as the adapter of these kinds."""

    def register(function: Adapter) -> Adapter:
        for kind in kinds:
            assert kind not in ADAPTERS, f"kind {kind!r} has two adapters"
            ADAPTERS[kind] = function
        return function

    return register


def compare(case: Case, check: Check) -> str | None:
    """What is wrong with a check, in one line; None where it holds."""
    ours, theirs = check.ours.detach(), case.outputs[check.name]
    if ours.shape != theirs.shape:
        return f"{check.name}: shape {list(ours.shape)}, not {list(theirs.shape)}"
    rtol, atol = case.tolerance(check.name)
    if check.rtol is not None or check.atol is not None:
        rtol, atol = check.rtol or 0.0, check.atol or 0.0
    if not theirs.is_floating_point() and not theirs.is_complex():
        rtol, atol = 0.0, 0.0
    assert rtol is not None, f"{check.name}: the JSON states no rtol, so the adapter must"
    dtype = torch.complex128 if theirs.is_complex() else torch.float64
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    finite = theirs.isfinite()
    if not torch.equal(ours.isfinite(), finite):
        return f"{check.name}: {int((ours.isfinite() != finite).sum())} values are finite in only one of the two"
    if not torch.allclose(ours[~finite], theirs[~finite], equal_nan=True):
        return f"{check.name}: infinities or NaN differ"
    if not finite.any():
        return None
    error = float((ours[finite] - theirs[finite]).abs().max())
    largest = float(theirs[finite].abs().max())
    if error <= atol + rtol * largest:
        return None
    return f"{check.name}: differs by {error:.3g}, allowed {atol + rtol * largest:.3g} (largest value {largest:.3g})"


def judge(case: Case, function: Adapter) -> tuple[list[str], list[Left], int]:
    """Run an adapter: what is wrong, what was left out, and how many outputs were compared."""
    wrong: list[str] = []
    left: list[Left] = []
    seen: set[str] = set()
    compared = 0
    for result in function(case):
        if result.name not in case.outputs:
            wrong.append(f"{result.name}: the case has no such output")
        elif result.name in seen:
            wrong.append(f"{result.name}: named twice by the adapter")
        elif isinstance(result, Left):
            left.append(result)
        else:
            compared += 1
            wrong += filter(None, [compare(case, result)])
        seen.add(result.name)
    wrong += [f"{name}: the adapter says nothing of this output" for name in case.outputs if name not in seen]
    return wrong, left, compared
