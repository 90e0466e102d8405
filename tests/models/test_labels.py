"""Classes by name, synonym and number; ImageNet's."""

from __future__ import annotations

import pytest

from lodestar.config import Problem
from lodestar.data.imagenet import NAMES, SYNSETS
from lodestar.models.labels import class_number, listed


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        ("golden retriever", 207),
        ("Golden Retriever", 207),
        ("tabby cat", 281),
        ("Tinca tinca", 0),
        ("toilet tissue", 999),
        ("207", 207),
        (207, 207),
        ("cardigan welsh corgi", 264),
        ("cardigan (sweater)", 474),
        # The name of one class, and a synonym of another.
        ("harp", 594),
        ("missile", 657),
        ("projectile", 744),
    ],
)
def test_classes_of_imagenet_are_found_by_name_synonym_and_number(asked: str | int, number: int) -> None:
    assert class_number(asked, NAMES, len(NAMES)) == number


def test_imagenet_has_1000_classes_in_the_order_of_their_synsets_and_no_name_twice() -> None:
    assert len(NAMES) == len(SYNSETS) == len({name.split(", ")[0].lower() for name in NAMES}) == 1000
    assert list(SYNSETS) == sorted(SYNSETS) and (SYNSETS[0], SYNSETS[207], SYNSETS[-1]) == ("n01440764", "n02099601", "n15075141")


def test_a_word_that_means_several_classes_is_a_problem_that_names_them() -> None:
    with pytest.raises(
        Problem, match=r"'crane' means several classes: choose from crane \(wading bird\), crane \(lifting device\)"
    ):
        class_number("crane", NAMES, 1000)


def test_the_nearest_name_is_suggested_and_many_are_not_all_listed() -> None:
    with pytest.raises(
        Problem, match=r"unknown label 'goldn retriver': choose from 1000 names \(tench, goldfish, .*golden retriever"
    ) as found:
        class_number("goldn retriver", NAMES, 1000)
    assert len(str(found.value)) < 500
    with pytest.raises(Problem, match="unknown label '1000'"):
        class_number("1000", NAMES, 1000)


def test_names_as_they_are_written_come_first_and_numbers_are_numbers() -> None:
    names = ("a", "A", "7", "b, c", "c")
    assert [class_number(asked, names, 5) for asked in ("a", "A", "7", "b, c", "B, C", "c", 2)] == [0, 1, 2, 3, 3, 4, 2]
    with pytest.raises(Problem, match="unknown label 'd': choose from a, A, 7, b, c"):
        class_number("d", names, 5)
    with pytest.raises(Problem, match="unknown label '7': choose from 0 to 4"):
        class_number(7, (), 5)
    assert listed(names) == "a, A, 7, b, c"
