"""Every number and list of a configuration has a bound that nobody meets, so that what is absurd is refused before any work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lodestar.config import Config, Problem
from lodestar.models.diffusion import DiffusionConfig
from tests.fuzz.settings import configurations

_UPPER, _LOWER = {"maximum", "exclusiveMaximum"}, {"minimum", "exclusiveMinimum"}


def unbounded(kind: type[Config]) -> list[str]:
    """The numbers and lists of a configuration's own fields that may be as large as they like."""
    schema = kind.model_json_schema()
    return [f"{name}{where}" for name, field in schema.get("properties", {}).items() for where in _open(field)]


def _open(field: dict[str, Any], where: str = "") -> Iterator[str]:
    # Of other configurations ("$ref"), each is looked at by itself; what is one of a few (an enum) has no bounds.
    match field.get("type"):
        case "integer" | "number" if not {"enum", "const"} & field.keys():
            if not (_UPPER & field.keys() and _LOWER & field.keys()):
                yield where
        case "array":
            if "maxItems" not in field:
                yield f"{where}[]"
            for part in (field.get("items", {}), *field.get("prefixItems", ())):
                yield from _open(part, f"{where}[]")
    for part in field.get("anyOf", ()):
        yield from _open(part, where)


@pytest.mark.parametrize(
    "kind",
    list(configurations()),
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
def test_every_number_and_list_has_its_bounds(kind: type[Config]) -> None:
    assert not unbounded(kind)


@pytest.mark.parametrize("size", [(8, 6), (0, 8), (-8, 8), (8, 10**8)])
def test_the_size_of_pictures_is_one_that_the_network_has(size: tuple[int, int]) -> None:
    with pytest.raises(Problem, match=r"^DiffusionConfig size\.\d is|^size is 8×6: both must be multiples of 4$"):
        DiffusionConfig(size=size)
    assert DiffusionConfig(size=(8, 4)).size == (8, 4)
