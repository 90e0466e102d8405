"""Labels in text: one class, several, and those that are not wanted."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lodestar.conditions import Composed, Label, LabelEncoder, sign_table
from lodestar.config import Problem
from lodestar.models.labels import read_label, spell

NAMES = ("cat", "dog", "ship", "not here", "salt+pepper")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("dog", 1),
        ("1", 1),
        ("not here", 3),
        ("salt+pepper", 4),
        ("dog+ship", Composed(wanted=(1, 2))),
        ("Dog+SHIP", Composed(wanted=(1, 2))),
        ("dog + 2", Composed(wanted=(1, 2))),
        ("not cat", Composed(unwanted=(0,))),
        ("dog+not cat", Composed(wanted=(1,), unwanted=(0,))),
        ("not cat+not 1+ship", Composed(wanted=(2,), unwanted=(0, 1))),
        ("not not here+dog", Composed(wanted=(1,), unwanted=(3,))),
    ],
)
def test_a_label_is_read_and_spelled(text: str, label: Label) -> None:
    assert read_label(text, NAMES, 5) == label
    assert read_label(str(spell(label, NAMES)), NAMES, 5) == label


def test_numbers_are_spelled_where_there_are_no_names() -> None:
    assert spell(3, None) == 3
    assert spell(None, NAMES) is None
    assert spell(Composed(wanted=(1,), unwanted=(0,)), None) == "1+not 0"
    assert read_label("1+not 0", (), 5) == Composed(wanted=(1,), unwanted=(0,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dgo", "unknown label 'dgo': choose from cat, dog, .*; did you mean 'dog'"),
        ("cat+shp", "unknown label 'shp': .* did you mean 'ship'"),
        ("not cta", "unknown label 'cta': .* did you mean 'cat'"),
        ("dog+", "unknown label ''"),
        ("dog+none", "unknown label 'none'"),
        ("dog+7", "unknown label '7'"),
        ("dog+dog", "dog is in it twice"),
        ("dog+not dog", "dog is in it twice"),
    ],
)
def test_what_is_no_label_is_one_line(text: str, message: str) -> None:
    with pytest.raises(Problem, match=message) as caught:
        read_label(text, NAMES, 5)
    assert "\n" not in str(caught.value)


def test_a_composed_label_has_different_classes_and_at_least_one() -> None:
    with pytest.raises(Problem, match="needs a class"):
        Composed()
    with pytest.raises(Problem, match="class 2 is in a composed label twice"):
        Composed(wanted=(2,), unwanted=(2,))


def test_signs_of_a_batch() -> None:
    labels = (1, None, Composed(wanted=(0,), unwanted=(2,)))
    assert torch.equal(sign_table(labels, 3), torch.tensor([[0.0, 1, 0], [0, 0, 0], [1, 0, -1]]))


def test_a_table_is_drawn_as_pytorch_draws_one_and_not_without_values() -> None:
    torch.manual_seed(0)
    ours, after = LabelEncoder(5, 7).table.weight, torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(ours, torch.nn.Embedding(5, 7).weight) and torch.equal(after, torch.rand(1)) and ours.requires_grad
    code = """
import sys, torch
from lodestar.conditions import LabelEncoder
with torch.device("meta"):
    assert LabelEncoder(5, 7).table.weight.is_meta
assert "sympy" not in sys.modules, "70 MB of every conversion"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
