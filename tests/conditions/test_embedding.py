"""An embedding as a condition: in asks, as signals, and beside a text that a CLIP's tower reads."""

from __future__ import annotations

import pytest
import torch

from lodestar.conditions import Ask, ClipText, Embedding, TextCondition
from lodestar.conditions.clip_text import ClipTextEncoder
from lodestar.conditions.text import NOTHING
from lodestar.config import Problem
from lodestar.denoiser import DenoiserConfig
from lodestar.nets import UNetConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.text import OwnTokenizer

CONDITION = Embedding(embed=3, width=8, tokens=2)
TEXT = ClipText(tokenizer=OwnTokenizer(size=260), length=4, states=5, embed=3, width=8)
NETWORK = UNetConfig(width=8, norm_groups=4, head_channels=4, multipliers=(1, 2), blocks=1, attention=(2,))


def test_asks_are_told_embeddings_and_what_is_wrong_with_them() -> None:
    given, kept = CONDITION.asked([Ask(others={"embedding": [1.0, 2, -0.5]}), Ask()])
    assert torch.equal(given, torch.tensor([[1.0, 2.0, -0.5], [0.0, 0.0, 0.0]]))
    assert kept is not None and kept.tolist() == [True, False]
    for wrong, told in (([1.0], "1 of them"), ([1.0, 2.0, float("nan")], "not all finite"), ("abc", "a list of 3 numbers")):
        with pytest.raises(Problem, match=told):
            CONDITION.asked([Ask.model_construct(others={"embedding": wrong})])


def test_no_embedding_is_a_learned_one() -> None:
    torch.manual_seed(0)
    encoder = CONDITION.build(6)
    encoder.nothing.data.normal_()
    given = torch.randn(2, 3)
    signals, null = encoder(given, torch.tensor([True, False])), encoder.null(1)
    assert signals.tokens.shape == (2, 2, 8) and signals.emb.shape == (2, 6)
    assert torch.equal(signals.tokens[1:], null.tokens) and torch.equal(signals.emb[1:], null.emb)
    assert not torch.allclose(signals.emb[0], null.emb[0])


def test_tokens_of_all_conditions_are_attended_to_under_one_mask() -> None:
    torch.manual_seed(0)
    denoiser = DenoiserConfig(network=NETWORK, conditions=(CONDITION, TEXT)).build()
    assert denoiser.config.network.told == 8
    encoder = denoiser.clip_text
    assert isinstance(encoder, ClipTextEncoder)
    with pytest.raises(Problem, match="told texts by a CLIP, and has none"):
        denoiser.null({}, 2)
    encoder.tower = lambda tokens: (torch.ones(*tokens.shape, 5), torch.ones(len(tokens), 3))
    texts = TEXT.read(["a", "ab"])
    signals = denoiser.encode({"embedding": torch.randn(2, 3), "clip_text": texts})
    assert signals.tokens is not None and signals.tokens.shape == (2, 2 + 4, 8)
    assert signals.mask is not None and torch.equal(signals.mask, torch.cat([torch.ones(2, 2).bool(), texts != NOTHING], dim=1))
    assert "tower" not in "".join(denoiser.state_dict())


def test_tokens_have_one_width() -> None:
    words = TextCondition(tokenizer=OwnTokenizer(size=260), network=TextTransformerConfig(width=16))
    with pytest.raises(Problem, match="embedding 8, text 16"):
        DenoiserConfig(network=NETWORK, conditions=(CONDITION, words))
