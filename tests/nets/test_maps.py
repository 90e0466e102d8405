"""Networks over maps of codes: every logit depends on codes before it alone, and walks agree with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lodestar.config import Problem, decode
from lodestar.nets import MAPS, AnyMap, MapConfig
from lodestar.nets.maps import MapNetwork, Walk

NETWORKS: dict[str, dict[str, Any]] = {
    "pixelsnail": {"kind": "pixelsnail", "width": 16, "kernel": 3, "blocks": 2, "depth": 1, "hidden": 8},
    "without attention": {
        "kind": "pixelsnail", "width": 16, "kernel": 5, "blocks": 2, "depth": 1, "hidden": 8, "attention": False, "out_blocks": 1,
    },
    "pixelcnn": {"kind": "pixelcnn", "width": 8, "kernel": 3, "layers": 4, "hidden": 8},
    "wide pixelcnn": {"kind": "pixelcnn", "width": 8, "kernel": 5, "layers": 2, "hidden": 8},
    "transformer": {"kind": "transformer", "width": 12, "layers": 2, "heads": 3},
}  # fmt: skip
SIZE, CODES, STATES = (4, 6), 5, 7


def settings(name: str, told: bool, size: tuple[int, int] = SIZE) -> MapConfig:
    config: MapConfig = decode(AnyMap, NETWORKS[name])
    return config.fitted(size, CODES, told, told, STATES if told else None)


def network(name: str, told: bool = False, size: tuple[int, int] = SIZE) -> MapNetwork:
    torch.manual_seed(0)
    made = settings(name, told, size).build().eval()
    for parameter in made.parameters():  # so that no bias is zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.double()


def given(made: MapNetwork, told: bool) -> tuple[Tensor | None, Tensor | None]:
    """Features of coarser codes and a class, and states of a text, for two maps."""
    if not told:
        return None, None
    generator, (height, width) = torch.Generator().manual_seed(2), made.config.size
    coarser = torch.randint(CODES, (2, height // 2, width // 2), generator=generator)
    emb = torch.randn(2, made.config.emb_width, 1, 1, generator=generator, dtype=torch.float64)
    return made.tell(coarser, torch.float64) + emb, torch.randn(2, 3, STATES, generator=generator, dtype=torch.float64)


def maps(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randint(CODES, (2, *size), generator=torch.Generator().manual_seed(1))


def test_every_kind_is_here() -> None:
    assert {each["kind"] for each in NETWORKS.values()} == {member.model_fields["kind"].default for member in MAPS.members}


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_causal_at_every_place(name: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, codes = network(name, told), maps()
    features, tokens = given(made, told)
    if isinstance(table := getattr(made, "code", None), nn.Embedding):
        seen = table(codes.flatten(1)).detach().requires_grad_()
        monkeypatch.setattr(table, "forward", lambda _: seen)
    else:
        seen = nn.functional.one_hot(codes, CODES).movedim(-1, 1).double().requires_grad_()
        monkeypatch.setattr(made, "spread", lambda codes, dtype: seen)
    logits = made(codes, features, tokens, torch.float64).flatten(2)
    for place in range(logits.shape[2]):
        (grad,) = torch.autograd.grad(logits[..., place].square().sum(), seen, retain_graph=True, allow_unused=True)
        reach = torch.zeros_like(seen) if grad is None else grad.abs()
        reach = reach.sum(dim=(0, 2)) if seen.ndim == 3 else reach.flatten(2).sum(dim=(0, 1))
        assert not reach[place:].any()
        assert place % SIZE[1] == 0 or reach[place - 1] > 0
        if NETWORKS[name].get("attention", True) and "cnn" not in name:
            # What a PixelSNAIL attends to has seen few codes of its own row, and of the row above those that are near.
            assert reach[: max(place // SIZE[1] - 1, 0) * SIZE[1]].all()


@torch.inference_mode()
def walked(walk: Walk, codes: Tensor) -> Tensor:
    """Logits of all places of given maps, shaped as a network's."""
    found, (*before, _) = [next(walk)], codes.flatten(1).unbind(1)
    found += [walk.send(each).clone() for each in before]
    logits: Tensor = torch.stack(found, dim=2).unflatten(2, codes.shape[1:])
    return logits


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [SIZE, (2, 2)])
def test_walks_that_keep_or_compute_again_agree(name: str, told: bool, size: tuple[int, int]) -> None:
    made, codes = network(name, told, size), maps(size)
    features, tokens = given(made, told)
    whole = made(codes, features, tokens, torch.float64)
    for walk in (made.retrace(2, features, tokens), made.walk(2, features, tokens)):
        torch.testing.assert_close(walked(walk, codes).to(whole), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_hears_what_it_is_told(name: str) -> None:
    made, codes = network(name, True), maps()
    features, tokens = given(made, True)
    assert features is not None and tokens is not None
    plain = made(codes, features, tokens, torch.float64)
    assert not torch.allclose(made(codes, features.flip(0), tokens, torch.float64), plain)
    attends = name == "transformer"
    assert torch.allclose(made(codes, features, tokens.flip(0), torch.float64), plain) != attends
    rows = made(codes[:, :3], features, tokens, torch.float64)
    torch.testing.assert_close(rows, plain[:, :, :3])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_map_of_one_code_has_logits(name: str) -> None:
    made, codes = network(name, size=(1, 1)), maps((1, 1))
    whole = made(codes, dtype=torch.float64)
    torch.testing.assert_close(walked(made.walk(2), codes).to(whole), whole, rtol=1e-6, atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    for fields, reason in (
        ({"kind": "pixelsnail", "kernel": 4}, "kernel is 4: it is odd"),
        ({"kind": "pixelcnn", "kernel": 1}, "kernel is 1: it is odd"),
        ({"kind": "pixelsnail", "width": 24}, "width is 24: half of it is divided among 8 heads"),
        ({"kind": "transformer", "width": 20}, "width is 20: it has to be a multiple of 6 heads"),
        ({"kind": "pixelsnail", "told": 3, "coarser": True, "size": [3, 4]}, "size is 3×4, told 3: coarser codes are half"),
        ({"kind": "pixelcnn", "coarser": True}, "coarser codes are half as large, and told"),
        ({"kind": "pixelcnn", "told_kernel": 2}, "told_kernel is 2"),
    ):
        with pytest.raises(Problem, match=reason):
            decode(AnyMap, fields)
