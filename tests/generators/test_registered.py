"""A guidance and a sampler from outside of the package: registered, read from text and JSON, in manifests, and sampled with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from lodestar import guidance, samplers
from lodestar.config import Problem, decode, kinds, parse
from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.generators.album import Manifest
from lodestar.generators.request import Settings
from lodestar.guidance import AnyGuidance, Context, Guidance
from lodestar.models.diffusion import DiffusionConfig
from lodestar.samplers import DDIM, AnySampler, Sampler, State
from tests.evaluation import tiny


class Dimmed(Guidance):
    """What is believed, less bright."""

    kind: Literal["dimmed"] = "dimmed"
    factor: float = 0.5

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        return lambda x, level: replace(inner(x, level), x0=self.factor * inner(x, level).x0)


class Plain(Sampler):
    """DDIM in its shortest form."""

    kind: Literal["plain"] = "plain"
    scale: float = 1.0

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        for index, step in enumerate(steps):
            estimate = denoise(x, step.t)
            x = self.scale * (step.s.alpha * estimate.x0 + step.s.sigma * estimate.eps)
            yield State(x, estimate, index)


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    """The two are kinds here, and nowhere else."""
    before = [list(each.members) for each in (guidance.KINDS, samplers.KINDS)]
    with pytest.raises(Problem, match="unknown guidance 'dimmed'"):
        parse("guidance", "dimmed", AnyGuidance)
    assert guidance.KINDS.register(Dimmed) is Dimmed
    assert samplers.KINDS.register(Plain) is Plain
    yield
    guidance.KINDS.remove(Dimmed)
    samplers.KINDS.remove(Plain)
    assert before == [each.members for each in (guidance.KINDS, samplers.KINDS)]
    with pytest.raises(Problem, match=r"sampler .plain."):
        decode(Settings, '{"sampler": {"kind": "plain"}}')


def test_they_are_read_from_text_and_json() -> None:
    for text, union, expected in (("dimmed:0.3", AnyGuidance, Dimmed(factor=0.3)), ("plain", AnySampler, Plain())):
        assert kinds(union)[expected.kind] is type(expected)  # type: ignore[attr-defined]
        assert parse("kind", text, union) == decode(union, expected.to_json()) == expected
    with pytest.raises(Problem, match="did you mean 'dimmed'"):
        parse("guidance", "dimed", AnyGuidance)
    with pytest.raises(Problem, match="factor is 'x'"):
        parse("guidance", "dimmed:x", AnyGuidance)


def test_they_are_values_of_every_configuration_that_has_such_a_field() -> None:
    how = Settings(guidance=(Dimmed(),), sampler=Plain())
    assert decode(Settings, how.to_json()) == how
    model = tiny.diffusion().config.replace(sampler=Plain(scale=0.5))
    assert decode(DiffusionConfig, model.to_json()) == model


def test_pictures_are_sampled_with_them_and_made_again(tmp_path: Path) -> None:
    model = tiny.diffusion()
    made = model.sample(count=2, steps=4, guidance="dimmed:0.3", sampler="plain")
    assert not torch.equal(made.images, model.sample(count=2, steps=4, sampler="plain").images)
    assert (
        made.images.int() - model.sample(count=2, steps=4, guidance=Dimmed(factor=0.3), sampler=DDIM()).images
    ).abs().max() <= 1
    request = Manifest.read(made.save(tmp_path / "out")).request
    assert request == made.request
    again = torch.cat([frame.images for frame in model.stream(request) if frame.final])
    assert torch.equal(again, made.images)


def test_a_name_that_is_taken_is_refused_and_the_same_class_may_be_registered_again() -> None:
    class Dimmer(Dimmed):
        """Another class of the same kind."""

    guidance.KINDS.register(Dimmed)
    with pytest.raises(Problem, match="kind 'dimmed' is taken by Dimmed: choose another name"):
        guidance.KINDS.register(Dimmer)
    assert [each for each in guidance.KINDS.members if issubclass(each, Dimmed)] == [Dimmed]


def test_a_class_that_is_defined_anew_takes_the_place_of_the_one_before() -> None:
    def cell(default: float) -> type[Guidance]:
        @guidance.KINDS.register
        class Cell(Dimmed):
            """Of a notebook."""

            kind: Literal["cell"] = "cell"  # type: ignore[assignment]
            factor: float = default

        return Cell

    for default in (0.2, 0.7):
        kind = cell(default)
        assert parse("guidance", "cell", AnyGuidance) == kind()
        assert decode(Settings, '{"guidance": [{"kind": "cell"}]}').guidance[0].factor == default
    guidance.KINDS.remove(kind)
