"""Texts as a condition: what is read, what is nothing, encoded once, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lodestar.conditions import Ask, LowRes, Masked, Signals, TextCondition
from lodestar.conditions.masked import known
from lodestar.conditions.text import NOTHING, TextEncoder
from lodestar.config import Problem
from lodestar.denoiser import DenoiserConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.nets.unet import UNetConfig
from tests.evaluation.tiny import BACKBONE, randomized

TEXT = TextCondition(network=TextTransformerConfig(context=8, width=16, layers=1, heads=2))


@pytest.fixture
def encoder() -> TextEncoder:
    return randomized(TEXT.build(12), 0)


def test_asks_and_captions_are_read_alike() -> None:
    asked, kept = TEXT.asked([Ask(text="abc"), Ask(), Ask(text="  ")])
    assert kept is None and asked.shape == (3, 8)
    assert (asked[0, :3] != NOTHING).all() and (asked[0, 3:] == NOTHING).all() and (asked[1:] == NOTHING).all()
    seen = TEXT.seen({"caption": ("abc", "", "a caption that is too long")}, torch.zeros(3, 3, 8, 8))
    assert torch.equal(seen[:2], asked[:2]) and torch.equal(seen[2], TEXT.read(["a captio"])[0])


def test_nothing_is_the_encoded_empty_text(encoder: TextEncoder) -> None:
    given = TEXT.read(["abc", "xy"])
    with torch.no_grad():
        null = encoder.null(2)
        for signals in (encoder(TEXT.read(["", ""])), encoder(given, torch.tensor([False, False]))):
            assert torch.equal(signals.emb, null.emb) and torch.equal(signals.tokens, null.tokens)
        kept = encoder(given, torch.tensor([True, False]))
        assert torch.equal(kept.tokens[1], null.tokens[1]) and torch.equal(kept.tokens[0], encoder(given).tokens[0])
    assert null.emb.shape == (2, 12) and null.tokens.shape == (2, 8, 16) and null.emb.abs().max() > 0


def test_a_text_is_encoded_once_while_the_weights_stay(encoder: TextEncoder) -> None:
    rows: list[int] = []
    encoder.network.register_forward_hook(lambda module, given, out: rows.append(len(given[0])))
    with torch.no_grad():
        first = encoder(TEXT.read(["abc", "abc", "xy"]))
        again = encoder(TEXT.read(["xy", "abc"]))
        encoder.null(5)
        encoder.null(2)
        assert rows == [2, 1]
        assert torch.equal(first.tokens[[2, 0]], again.tokens) and torch.equal(first.emb[[2, 0]], again.emb)
        encoder.network.project.bias += 1
        assert not torch.equal(encoder(TEXT.read(["xy"])).emb[0], again.emb[0])
        encoder.load_state_dict(encoder.state_dict())
    assert rows == [2, 1, 1]
    with torch.inference_mode():
        encoder(TEXT.read(["new"]))
    with torch.no_grad():
        assert not encoder(TEXT.read(["new"])).tokens.is_inference()
    assert rows.pop() == 1 and rows == [2, 1, 1]
    encoder(TEXT.read(["xy"]))
    assert rows == [2, 1, 1, 1]  # with a gradient, nothing is kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a long prompt", "prompt 'a long prompt' has more than this model's 8 tokens: .*--cut-prompt .* keeps 'a long p'$"),
        ("\ud800", r"prompt '\\ud800' is not valid Unicode \(UTF-8\)$"),
    ],
)
def test_a_text_that_cannot_be_told_is_one_line(text: str, message: str) -> None:
    with pytest.raises(Problem, match=message) as caught:
        TEXT.check(text)
    assert "\n" not in str(caught.value)


def denoiser(*conditions: Any) -> Any:
    return randomized(DenoiserConfig(network=UNetConfig(**BACKBONE), channels=3, conditions=conditions).build(), 0)


def test_a_denoiser_without_text_is_told_none_and_with_text_its_width() -> None:
    assert denoiser().config.network.context is None
    told = denoiser(TEXT)
    assert told.config.network.context == 16
    assert DenoiserConfig.model_validate_json(told.config.to_json()) == told.config
    with torch.no_grad():
        assert torch.equal(told.encode({}, count=2).tokens, told.null({}, 2).tokens)


def test_planes_follow_the_order_of_the_conditions_and_meet_at_the_larger_size() -> None:
    both = denoiser(Masked(), LowRes(size=(4, 4)))
    x0, small = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 4, 4)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5] = True
    planes = both.encode({"low_res": small, "masked": known(x0, mask)}).planes
    assert planes.shape == (2, 7, 8, 8) == (2, both.config.network.in_channels - 3, 8, 8)
    assert torch.equal(planes[:, :3], x0 * ~mask) and torch.equal(planes[:, 3], (~mask).float().expand(2, 8, 8))


def test_signals_add_and_interpolate() -> None:
    first, second = (Signals(torch.full((2, 3), value), tokens=torch.full((2, 4, 5), value)) for value in (1.0, 3.0))
    middle = first.toward(second, torch.tensor([0.0, 0.5]))
    assert [float(middle.tokens[row].mean()) for row in (0, 1)] == [1.0, 2.0] == [float(middle.emb[row].mean()) for row in (0, 1)]
    assert (first + second).tokens.shape == (2, 8, 5) and first.beside(second).tokens.shape == (4, 4, 5)
    told: Tensor = (first + Signals()).tokens
    assert torch.equal(told, first.tokens)
