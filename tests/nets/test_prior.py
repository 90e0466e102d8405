"""The prior's transformer: what its query sees, and a U-Net whose text has a mask."""

from __future__ import annotations

import pytest
import torch

from lodestar.config import Problem
from lodestar.nets import PriorConfig, UNetConfig
from lodestar.nets.attention import Masked, Watch, attend
from lodestar.nets.unet import UNet

CONFIG = PriorConfig(context=5, width=16, layers=2, heads=2, in_channels=6, out_channels=6)


def test_places_after_a_text_and_their_states_change_nothing() -> None:
    torch.manual_seed(0)
    network = CONFIG.build().eval()
    x, time, emb, tokens = torch.randn(2, 6, 1, 1), torch.tensor([3.0, 7.0]), torch.randn(2, 16), torch.randn(2, 5, 16)
    mask = torch.tensor([[True, True, True, False, False], [True, False, False, False, False]])
    plain = network(x, time, emb, tokens=tokens, mask=mask)
    assert plain.shape == (2, 6, 1, 1)
    other = torch.where(mask[..., None], tokens, torch.randn(2, 5, 16))
    assert torch.equal(network(x, time, emb, tokens=other, mask=mask), plain)
    assert not torch.allclose(network(x, time, emb, tokens=other), network(x, time, emb, tokens=tokens))
    for changed in ((x + 1, time, emb), (x, time + 1, emb), (x, time, emb.flip(1))):
        assert not torch.allclose(network(*changed, tokens=tokens, mask=mask), plain, atol=1e-4)


def test_places_of_a_text_that_are_kept_change_nothing() -> None:
    """Step by step in sampling, after the text's places, and in training all places at once."""
    torch.manual_seed(0)
    network = CONFIG.build().eval()
    emb, tokens, mask = torch.randn(2, 16), torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    for seed, told in ((1, tokens), (2, tokens), (3, tokens.flip(0)), (4, tokens)):
        x, time = torch.randn(2, 6, 1, 1, generator=torch.Generator().manual_seed(seed)), torch.tensor([3.0, 7.0])
        whole = network(x, time, emb, tokens=told, mask=mask)
        for mode in (torch.no_grad, torch.inference_mode, torch.no_grad):
            with mode():
                assert torch.allclose(network(x, time, emb, tokens=told, mask=mask), whole, atol=1e-5)


def test_embeddings_are_one_place() -> None:
    with pytest.raises(Problem, match="size is 8×8: embeddings are 1×1"):
        CONFIG.check_size((8, 8))
    with pytest.raises(Problem, match="width is 10: it has to be a multiple of 4 heads"):
        PriorConfig(width=10, heads=4)


def test_masked_attention_is_attention_to_the_keys_that_count() -> None:
    torch.manual_seed(0)
    qkv, text = torch.randn(1, 3, 24), torch.randn(1, 4, 16)
    mask = torch.tensor([[True, False, True, False]])
    told = attend(qkv, 2, "qkv_first", Masked(mask), text)
    assert torch.allclose(told, attend(qkv, 2, "qkv_first", None, text[:, mask[0]]), atol=1e-6)
    watch = Watch()
    watch.masked = Masked(mask)
    assert torch.allclose(attend(qkv, 2, "qkv_first", watch, text), told, atol=1e-6)


def test_no_place_attends_to_later_ones() -> None:
    allowed = Masked(torch.tensor([[True, False]]), causal=True).allowed(4, 4)[0, 0]
    assert allowed.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]


def test_tokens_that_do_not_count_change_no_picture() -> None:
    torch.manual_seed(0)
    config = UNetConfig(width=8, norm_groups=4, head_channels=4, multipliers=(1, 2), blocks=1, attention=(2,), context=6)
    network = config.build().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, time, tokens = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 2.0]), torch.randn(2, 3, 6)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    plain = network(x, time, tokens=tokens, mask=mask)
    alone = network(x[:1], time[:1], tokens=tokens[:1, :2])
    assert torch.allclose(plain[:1], alone, atol=1e-5)
    watch = Watch()
    assert torch.allclose(network(x, time, gather={"middle": watch}, tokens=tokens, mask=mask), plain, atol=1e-5)


def test_another_network_takes_the_last_step() -> None:
    torch.manual_seed(0)
    small = UNetConfig(width=8, norm_groups=4, head_channels=4, multipliers=(1,), blocks=1, attention=(), middle_attention=False)
    network = small.replace(last_step=True).build().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 3, 4, 4)
    both = network(x, torch.tensor([0.0, 5.0]))
    assert torch.allclose(both[:1], network.last(x[:1], torch.tensor([0.0])), atol=1e-6)
    assert torch.allclose(both[1:], network.first(x[1:], torch.tensor([5.0])), atol=1e-6)
    assert isinstance(network.first, UNet)
    assert not network.first.config.attending
    assert not any("attention" in name for name, _ in network.named_parameters())
