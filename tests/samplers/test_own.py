"""Samplers of the user's own: a function, an object, and what a file cannot hold of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem, decode, parse
from lodestar.core.estimate import Denoise, Noise
from lodestar.core.exact import Gaussian
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Linear
from lodestar.core.transition import Transition
from lodestar.samplers import DDIM, AnySampler, Own, State, last

STEPS = parse_plan("6").steps(Linear())
MODEL = Gaussian(torch.linspace(-1, 1, 12).reshape(3, 2, 2), 0.3)
START = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def plain(denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
    """DDIM in its shortest form."""
    for index, step in enumerate(steps):
        estimate = denoise(x, step.t)
        x = step.s.alpha * estimate.x0 + step.s.sigma * estimate.eps
        yield State(x, estimate, index)


@pytest.mark.parametrize("call", [plain, DDIM()], ids=["function", "object"])
def test_what_is_called_is_the_sampler(call: object) -> None:
    own = Own.of(call)  # type: ignore[arg-type]
    assert own.name == {plain: "plain"}.get(call, "DDIM")  # type: ignore[call-overload]
    ours, theirs = (last(sampler(MODEL, START, STEPS, torch.zeros_like)) for sampler in (own, DDIM()))
    torch.testing.assert_close(ours, theirs)


def test_what_is_read_from_a_file_names_the_function_and_is_refused_where_it_is_used() -> None:
    read = decode(AnySampler, Own.of(plain).to_json())
    assert isinstance(read, Own) and read.name == "plain"
    for use in (read.algorithm, lambda: read(MODEL, START, STEPS, torch.zeros_like)):
        with pytest.raises(Problem, match="sampler own: 'plain' was an object of the program that used it, which no file holds"):
            use()
    with pytest.raises(Problem, match=r"unknown sampler 'own': choose from ancestral, .*, consistency$"):
        parse("sampler", "own:plain", AnySampler)
