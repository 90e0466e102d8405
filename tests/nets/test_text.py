"""The text transformer, and attention to a text: places of its padding, keys before the picture's, what is unchanged without."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.config import Problem
from lodestar.nets.attention import Attention, Watch, attend, stay
from lodestar.nets.text import TextTransformer, TextTransformerConfig
from lodestar.nets.unet import UNet
from tests.nets.networks import unet_config

CONFIG = TextTransformerConfig(context=6, width=16, layers=2, heads=4)
MASK = torch.tensor([[True, True, True, False, False, False]])


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module.eval()


def test_padding_hides_the_tokens_after_a_text() -> None:
    network = randomized(TextTransformer(CONFIG, 10, 8))
    tokens, other = torch.tensor([[1, 2, 3, 9, 9, 9]]), torch.tensor([[1, 2, 3, 4, 5, 6]])
    for mine, theirs in zip(network(tokens, MASK), network(other, MASK), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(network(tokens, MASK)[0], network(other, MASK | True)[0])
    plain = randomized(TextTransformer(CONFIG.replace(padding=False), 10, 8))
    assert torch.equal(plain(other, MASK)[0], plain(other, MASK | True)[0])


def test_a_fresh_transformer_says_of_each_place_its_own_word() -> None:
    network = TextTransformer(CONFIG, 10, 8)
    before, after = (network(torch.tensor([[1, 2, word, 9, 9, 9]]), MASK)[0] for word in (3, 4))
    changed = (before - after).norm(dim=-1)[0] / before.norm(dim=-1)[0]
    assert changed[2] > 0.5 and not changed[[0, 1, 3, 4, 5]].any()


@pytest.mark.parametrize("pooled", ["last", "mean"])
def test_the_vector_of_a_text_is_of_its_last_place_or_their_mean(pooled: str) -> None:
    network = randomized(TextTransformer(CONFIG.replace(pooled=pooled, final_norm=False), 10, 8))
    states, vector = network(torch.tensor([[1, 2, 3, 9, 9, 9]]), MASK)
    assert states.shape == (1, 6, 16) and vector.shape == (1, 8)
    assert torch.allclose(vector, network.project(states[:, -1] if pooled == "last" else states.mean(1)))


def test_heads_have_to_divide() -> None:
    with pytest.raises(Problem, match="18 channels do not divide by 4 heads"):
        TextTransformerConfig(width=18)


@pytest.mark.parametrize("layout", ["heads_first", "qkv_first"])
def test_keys_of_a_text_stand_before_those_of_the_places(layout: str) -> None:
    qkv, text = torch.randn(2, 5, 3 * 8), torch.randn(2, 3, 2 * 8)
    seen: list[Tensor] = []

    def gather(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.extend((q, k, v))
        return F.scaled_dot_product_attention(q, k, v)

    assert torch.equal(attend(qkv, 2, layout, gather, text), attend(qkv, 2, layout, None, text))
    q, k, v = seen
    assert q.shape == (2, 2, 5, 4) and k.shape == v.shape == (2, 2, 8, 4)
    assert torch.equal(k[:, :, 3:], torch.stack(attend_parts(qkv, layout)).unbind()[1])
    first = text[..., :4] if layout == "heads_first" else text[..., :8].view(2, 3, 2, 4)[:, :, 0]
    assert torch.equal(k[:, 0, :3], first)


def attend_parts(qkv: Tensor, layout: str) -> list[Tensor]:
    parts: list[Tensor] = []

    def gather(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts.extend((q, k, v))
        return v

    attend(qkv, 2, layout, gather)
    return parts


def test_perturbed_attention_and_its_watch_know_more_keys_than_queries() -> None:
    qkv, text = torch.randn(2, 5, 3 * 8), torch.randn(2, 3, 2 * 8)
    assert torch.equal(attend(qkv, 2, "qkv_first", stay, text), attend(qkv, 2, "qkv_first", stay))
    watch, plain = Watch(), Watch()
    out = attend(qkv, 2, "qkv_first", watch, text)
    assert torch.allclose(out, attend(qkv, 2, "qkv_first", None, text), atol=1e-6)
    assert watch.seen.shape == (2, 5) and torch.allclose(watch.seen.mean(1), torch.ones(2))
    attend(qkv, 2, "qkv_first", plain)
    assert torch.allclose(plain.seen.mean(1), torch.ones(2)) and not torch.allclose(plain.seen, watch.seen)


def test_attention_in_bfloat16_takes_a_text() -> None:
    attention = randomized(Attention(16, 2, layout="qkv_first", groups=4, context=8))
    x, tokens = torch.randn(2, 16, 5, 3).contiguous(memory_format=torch.channels_last), torch.randn(2, 7, 8)
    with torch.no_grad():
        full, half = attention(x, None, tokens), attention(x.bfloat16(), None, tokens.bfloat16()).float()
    assert (full - half).abs().max() < 0.1 * full.abs().max()
    assert not torch.equal(full, attention(x))


def test_a_network_is_told_a_text_exactly_if_it_takes_one() -> None:
    plain, told = UNet(unet_config()), UNet(unet_config(context=8))
    assert told.state_dict().keys() - plain.state_dict().keys() == {
        f"{place}.attention.text.{leaf}" for place in _attending(told) for leaf in ("weight", "bias")
    }
    assert not plain.state_dict().keys() - told.state_dict().keys()
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 2.0])
    for network, tokens in ((plain, torch.randn(2, 4, 8)), (told, None)):
        with pytest.raises(AssertionError, match="told a text exactly if it takes one"):
            network(x, time, tokens=tokens)


def _attending(network: UNet) -> list[str]:
    return [name.removesuffix(".attention") for name, module in network.named_modules() if isinstance(module, Attention)]


def test_a_text_reaches_the_output_under_checkpointing_too() -> None:
    network = randomized(UNet(unet_config(context=8, checkpointing=True))).train()
    tokens = torch.randn(2, 4, 8, requires_grad=True)
    network(torch.randn(2, 3, 8, 8), torch.tensor([1.0, 2.0]), tokens=tokens).sum().backward()
    assert tokens.grad is not None and tokens.grad.abs().max() > 0
