"""The harness itself: an adapter that is wrong, or says too little, must not pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .harness import Case, Check, Left, judge

B = torch.tensor([1.0, -4.0, float("inf")])


@pytest.fixture
def case(tmp_path: Path) -> Case:
    meta = {"name": "any", "tensors": {}, "tolerance": {"rtol": 1e-3, "atol": 1e-3, "note": "words"}}
    (tmp_path / "file.v2.json").write_text(json.dumps(meta))
    save_file({"in/a": torch.zeros(2), "out/sub/b": B, "out/n": torch.tensor([3, 4])}, tmp_path / "file.v2.safetensors")
    return Case(tmp_path / "file.v2.json")


def wrong(case: Case, *results: Check | Left) -> list[str]:
    def function(_: Case) -> Iterator[Check | Left]:
        yield from results

    return judge(case, function)[0]


N = Check("n", torch.tensor([3, 4]))


def test_what_agrees_passes_and_is_counted(case: Case) -> None:
    left = Left("n", "reason")

    def function(_: Case) -> Iterator[Check | Left]:
        yield Check("sub/b", B + 0.0049)
        yield left

    assert judge(case, function) == ([], [left], 1)
    assert list(case.inputs) == ["a"] and case.under("sub/") == ["sub/b"]


@pytest.mark.parametrize(
    ("ours", "complaint"),
    [
        (B + 0.0051, "differs by 0.0051, allowed 0.005"),
        (B[:2], "shape [2], not [3]"),
        (torch.tensor([1.0, -4.0, 9.0]), "finite in only one"),
        (torch.tensor([1.0, float("nan"), float("inf")]), "finite in only one"),
        (torch.tensor([1.0, -4.0, -float("inf")]), "infinities or NaN differ"),
    ],
)
def test_what_differs_is_named(case: Case, ours: torch.Tensor, complaint: str) -> None:
    (found,) = wrong(case, Check("sub/b", ours), N)
    assert found.startswith("sub/b: ") and complaint in found


def test_integers_are_exact_and_a_stated_tolerance_replaces_that_of_the_case(case: Case) -> None:
    assert wrong(case, Check("sub/b", B), Check("n", torch.tensor([3, 5]), atol=2.0))
    assert wrong(case, Check("sub/b", B + 1e-4, rtol=1e-6), N)
    assert not wrong(case, Check("sub/b", B + 0.1, atol=0.2), N)


def test_every_output_is_named_once_and_no_other(case: Case) -> None:
    assert wrong(case, Check("sub/b", B)) == ["n: the adapter says nothing of this output"]
    assert wrong(case, Check("sub/b", B), N, N) == ["n: named twice by the adapter"]
    assert wrong(case, Check("sub/b", B), N, Left("m", "reason")) == ["m: the case has no such output"]


def test_a_kind_comes_from_inside_the_json(tmp_path: Path) -> None:
    path = tmp_path / "gd_unet_01.json"
    for meta, kind in [
        ({"name": "gd_q"}, "gd_q"),
        ({"name": "gd_q", "kind": "gd_cls"}, "gd_cls"),
        ({"name": "64", "checkpoint": "64.pt", "source": {"repo": "https://github.com/openai/karlo"}}, "manifest karlo"),
    ]:
        path.write_text(json.dumps(meta))
        assert Case(path).kind == kind


def test_a_network_states_a_tolerance_per_output(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"kind": "k", "checks": {"outputs": {"x": {"tolerance_relative_to_max": 3e-5}}}}))
    assert Case(tmp_path / "a.json").tolerance("x") == (3e-5, 0.0)
