"""The U-Net under every switch: it builds, runs, differentiates, and says what is wrong with a configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lodestar.config import Problem, decode
from lodestar.nets.attention import Watch, stay
from lodestar.nets.layers import GroupNorm
from lodestar.nets.native import native
from lodestar.nets.precision import place
from lodestar.nets.unet import UNet, UNetConfig

from .networks import UNETS, normal, randomized, unet_config

every_switch = pytest.mark.parametrize("changes", UNETS.values(), ids=UNETS.keys())
TIME = torch.tensor([3.0, 250.5])


def unet(**changes: Any) -> UNet:
    network = randomized(unet_config(**changes).build())
    assert isinstance(network, UNet)
    return network


def inputs(config: UNetConfig, height: int = 8, width: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    return normal(2, config.in_channels, height, width), TIME, normal(2, config.emb_width, seed=2)


@every_switch
def test_runs_and_its_gradient_reaches_every_parameter(changes: dict[str, Any]) -> None:
    network = unet(**changes).train()
    x, time, emb = inputs(network.config)
    x.requires_grad_(), emb.requires_grad_()
    y = network(x, time, emb)
    assert y.shape == (2, network.config.out_channels, 8, 12)
    assert y.dtype == torch.float32
    assert y.isfinite().all()
    (y * normal(*y.shape, seed=3)).sum().backward()
    for name, tensor in [("x", x), ("emb", emb), *network.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 1e-5, name


@every_switch
def test_a_configuration_survives_json(changes: dict[str, Any]) -> None:
    config = unet_config(**changes)
    assert decode(UNetConfig, config.to_json()) == config


@every_switch
def test_a_fresh_network_answers_zero(changes: dict[str, Any]) -> None:
    config = unet_config(**changes)
    assert not config.build()(*inputs(config)).any()


@every_switch
def test_samples_of_a_batch_do_not_see_each_other(changes: dict[str, Any]) -> None:
    network = unet(**changes).eval()
    x, time, emb = inputs(network.config)
    alone = network(x[1:], time[1:], emb[1:])
    torch.testing.assert_close(network(x, time, emb)[1:], alone, rtol=0, atol=2e-5)


def test_coordinates_tell_equal_places_apart() -> None:
    def middles(**changes: Any) -> Tensor:
        network = unet(multipliers=[1], attention=[], **changes).eval()
        x, time, emb = inputs(network.config, 64, 64)
        seen: Tensor = network(x[:1, :, :1, :1].expand(1, -1, 64, 64), time[:1], emb[:1])[0, 0, 24:40, 24:40]
        return seen

    # Of an even picture, the middle alone is far from every edge: its places differ by what they are told.
    assert middles().std() < 1e-5
    assert middles(coordinates=True).std() > 1e-3


@pytest.mark.parametrize("changes", [{}, {"resample": "conv"}, {"resample": "plain"}], ids=str)
def test_height_and_width_are_multiples_of_the_divisor(changes: dict[str, Any]) -> None:
    network = unet(multipliers=[1, 1, 1], **changes)
    divisor = network.config.divisor
    assert divisor == 4
    assert network(*inputs(network.config, divisor, 3 * divisor)).shape[2:] == (divisor, 3 * divisor)
    with pytest.raises(RuntimeError):
        network(*inputs(network.config, divisor, divisor + divisor // 2))


@pytest.mark.parametrize("changes", [{}, {"resample": "conv", "adaptive_norm": False}, {"attention": [1, 2]}], ids=str)
def test_a_torso_in_16_bits_stays_near_float32(changes: dict[str, Any]) -> None:
    network = unet(width=32, **changes).eval()
    x, time, emb = inputs(network.config, 16, 16)
    with torch.no_grad():
        exact, rough = network(x, time, emb), network(x, time, emb, torch.bfloat16)
    assert rough.dtype == torch.float32
    error = float((rough - exact).abs().max() / exact.abs().max())
    assert 0 < error < 3e-2


@pytest.mark.parametrize("resample", ["residual", "conv"])
def test_recomputing_activations_changes_no_gradient(resample: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        network = unet(resample=resample, dropout=0.3, checkpointing=checkpointing).train()
        torch.manual_seed(0)
        network(*inputs(network.config)).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for stored, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, stored, rtol=1e-5, atol=1e-6)


def test_the_order_of_memory_does_not_matter() -> None:
    network = unet().eval()
    x, time, emb = inputs(network.config)
    torch.testing.assert_close(
        network(x.to(memory_format=torch.channels_last), time, emb), network(x, time, emb), rtol=0, atol=1e-6
    )


def test_time_and_condition_are_heard_and_no_condition_is_zero() -> None:
    network = unet().eval()
    x, time, emb = inputs(network.config)
    base = network(x, time)
    assert torch.equal(base, network(x, time, torch.zeros_like(emb)))
    assert (network(x, time + 0.5) - base).abs().max() > 1e-4
    assert (network(x, time, emb) - base).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"layout": "heads_first"}, {"layout": "qkv_first"}),
        ({"head_channels": 8}, {"head_channels": 16}),
        ({}, {"up_heads": 1}),
        ({}, {"rescale_residuals": True}),
        ({}, {"norm_groups": 2}),
    ],
    ids=str,
)
def test_a_switch_that_weights_do_not_show_changes_the_function(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = unet(**one).eval(), unet(**other).eval()
    second.load_state_dict(first.state_dict())
    given = inputs(first.config)
    assert (first(*given) - second(*given)).abs().max() > 1e-3


def test_dropout_is_for_training_alone() -> None:
    network = unet(dropout=0.5)
    given = inputs(network.config)
    assert torch.equal(network.eval()(*given), network.eval()(*given))
    assert not torch.equal(network.train()(*given), network.train()(*given))


@pytest.mark.parametrize("channels", [32, 64, 96, 320, 576, 1024])
def test_published_widths_get_32_groups(channels: int) -> None:
    assert GroupNorm(channels, 32).num_groups == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 2}, "exactly one of heads and head_channels"),
        ({"head_channels": None}, "exactly one of heads and head_channels"),
        ({"head_channels": 5}, "32 channels do not divide by 5"),
        ({"heads": 3, "head_channels": None}, "32 channels do not divide by 3"),
        ({"up_heads": 5}, "up_heads is 5: 32 channels do not divide"),
        ({"blocks": [1, 2, 3]}, "blocks has 3 entries, multipliers has 2"),
        ({"blocks": 0}, "at least one block"),
        ({"multipliers": [0.01, 1]}, "at least one block and one channel"),
        ({"multipliers": []}, "multipliers"),
        ({"attention": [3]}, "attention at 3: this network reduces by 1, 2"),
        ({"attention": [4]}, "attention at 4: this network reduces by 1, 2"),
        ({"resample": "convolution"}, "'conv'"),
        ({"layout": "qkv"}, "'qkv_first'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"stem": 0}, "stem is 0"),
        ({"widht": 8}, "did you mean 'width'?"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_configuration_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Problem) as raised:
        unet_config(**changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------------------------- attention, handed in


def test_watched_attention_is_the_same_and_tells_where_it_looks() -> None:
    network, x, time = randomized(unet_config(attention=[]).build()), normal(2, 3, 8, 8), torch.tensor([3.0, 500.0])
    watch = Watch()
    torch.testing.assert_close(network(x, time, gather={"middle": watch}), network(x, time), rtol=1e-4, atol=1e-5)
    assert watch.seen.shape == (2, 16)
    torch.testing.assert_close(watch.seen.mean(dim=1), torch.ones(2))
    assert watch.seen.std() > 0.01


def test_attention_is_perturbed_in_the_part_that_is_named_alone() -> None:
    network, x, time = randomized(unet_config().build()), normal(2, 3, 8, 8), torch.tensor([3.0, 500.0])
    plain = network(x, time)
    assert network.config.attending == ("down", "middle", "up")
    found = {part: network(x, time, gather={part: stay}) for part in network.config.attending}
    for part, ours in found.items():
        assert not torch.allclose(ours, plain, rtol=1e-3), part
    assert torch.equal(network(x, time), plain), "nothing is left behind"
    alone = randomized(unet_config(attention=[]).build())
    assert alone.config.attending == ("middle",)
    assert torch.equal(alone(x, time, gather={"up": stay}), alone(x, time))


def test_staying_is_an_identity_map() -> None:
    v = normal(1, 2, 5, 4)
    assert torch.equal(stay(normal(1, 2, 5, 4), normal(1, 2, 5, 4), v), torch.eye(5) @ v)


@pytest.mark.skipif(native().library is None, reason=f"no kernels here: {native().why}")
@pytest.mark.parametrize("changes", [{}, {"resample": "plain", "adaptive_norm": False}, {"layout": "heads_first"}], ids=str)
def test_a_step_in_bfloat16_copies_no_activations_to_another_type_or_layout(changes: dict[str, Any]) -> None:
    network = place(unet(**{"width": 32, "attention": [1, 2]} | changes), torch.device("cpu")).train()
    x, time, emb = normal(3, 3, 16, 16), torch.rand(3) * 1000, normal(3, 128)  # three pictures: no kernel has three of anything
    copied: list[tuple[str, torch.Size]] = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = call.name().removeprefix("aten::")
            if name.startswith(("_to_copy", "clone", "copy_")) and args[0].ndim > 2 and len(args[0]) == 3:
                copied.append((name, args[0].shape))
            return call(*args, **(kwargs or {}))

    with Watched():
        network(x, time, emb, torch.bfloat16).square().mean().backward()
    assert copied == [("_to_copy", x.shape)]  # the picture that comes in
