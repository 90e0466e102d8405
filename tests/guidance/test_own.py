"""Guidance of the user's own: a function, an object of a class that is not registered, and what a file cannot hold of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.guidance.test_guidance import CONTEXT, LEVEL, X, cond, guided

from lodestar.config import Problem, decode, parse
from lodestar.core.estimate import Denoise
from lodestar.guidance import CFG, AnyGuidance, Clamp, Context, Own, compose


def halved(inner: Denoise, context: Context) -> Denoise:
    """Half of what is believed."""
    return lambda x, level: replace(inner(x, level), x0=inner(x, level).x0 / 2)


def test_a_function_is_a_guidance_among_others() -> None:
    assert Own.of(halved).name == "halved"
    torch.testing.assert_close(guided(Own.of(halved)).x0, cond(X, LEVEL).x0 / 2)
    both = guided(CFG(scale=3.0), Own.of(halved), Clamp(limit=0.3)).x0
    torch.testing.assert_close(both, (guided(CFG(scale=3.0)).x0 / 2).clamp(-0.3, 0.3))


def test_an_object_is_called_by_its_class() -> None:
    class Scaled:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def __call__(self, inner: Denoise, context: Context) -> Denoise:
            assert context is CONTEXT
            return lambda x, level: replace(inner(x, level), x0=self.factor * inner(x, level).x0)

    own = Own.of(Scaled(3.0))
    assert own.name == "Scaled"
    torch.testing.assert_close(own(cond, CONTEXT)(X, LEVEL).x0, 3 * cond(X, LEVEL).x0)


def test_what_is_read_from_a_file_names_the_function_and_is_refused_where_it_is_used() -> None:
    read = decode(AnyGuidance, Own.of(halved).to_json())
    assert isinstance(read, Own) and read.name == "halved"
    with pytest.raises(Problem, match="guidance own: 'halved' was an object of the program that used it, which no file holds"):
        compose([read], CONTEXT)
    with pytest.raises(Problem, match=r"unknown guidance 'own': choose from cfg, .*, interval"):
        parse("guidance", "own:halved", AnyGuidance)
