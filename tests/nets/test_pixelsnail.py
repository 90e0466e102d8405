"""PixelSNAIL: no logit depends on a code at its place or later, every logit on some code before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lodestar.config import Problem, decode
from lodestar.nets.pixelsnail import PixelSnail, PixelSnailConfig

torch.set_num_threads(1)


def network(**settings: object) -> PixelSnail:
    torch.manual_seed(0)
    fields = {"size": (3, 4), "codes": 5, "width": 16, "kernel": 3, "blocks": 2, "depth": 1, "hidden": 8, **settings}
    return PixelSnail(decode(PixelSnailConfig, fields)).double().eval()


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("told", [None, 4])
def test_it_is_causal_at_every_place(attention: bool, told: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = network(attention=attention, told=told, size=(4, 4))
    codes = torch.randint(5, (1, 4, 4), generator=torch.Generator().manual_seed(1))
    features = None if told is None else made.tell(codes[:, ::2, ::2], torch.float64)
    seen = nn.functional.one_hot(codes, 5).movedim(-1, 1).double().requires_grad_()
    monkeypatch.setattr(made, "_spread", lambda codes, dtype: seen)
    logits = made(codes, features, torch.float64).flatten(2)
    for place in range(16):
        (grad,) = torch.autograd.grad(logits[..., place].square().sum(), seen, retain_graph=True)
        reach = grad.flatten(2).abs().sum(dim=(0, 1))
        assert not reach[place:].any()
        assert place == 0 or reach[:place].any()


def test_what_cannot_be_is_refused() -> None:
    for settings, reason in (
        ({"kernel": 4}, "kernel is 4"),
        ({"width": 24}, "width is 24: half of it is divided among 8 heads"),
        ({"told": 3, "size": (3, 4)}, "size is 3×4: both are twice"),
    ):
        with pytest.raises(Problem, match=reason):
            network(**settings)
