import pytest
import torch
import torch.nn.functional as F

from lodestar.nets import winograd
from lodestar.nets.layers import Conv2d


@pytest.mark.parametrize(
    ("batch", "channels", "outputs", "height", "width"),
    [(1, 3, 5, 4, 4), (2, 8, 6, 12, 8), (3, 130, 128, 16, 20), (5, 128, 192, 32, 32)],
)
def test_it_is_the_direct_convolution_but_for_rounding(batch: int, channels: int, outputs: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(outputs, channels, 3, 3), torch.randn(outputs)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    with torch.inference_mode():
        ours = winograd.conv3x3(x, weight, bias)
        plain = winograd.conv3x3(x.contiguous(), weight, None)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert (ours - exact).norm() / exact.norm() < 5e-6
    torch.testing.assert_close(plain + bias[:, None, None], ours, rtol=1e-4, atol=1e-3)


def test_a_layer_takes_it_where_it_wins_and_fits_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Size] = []
    real = winograd.conv3x3
    monkeypatch.setattr(winograd, "conv3x3", lambda x, *rest: calls.append(x.shape) or real(x, *rest))
    layer, x = Conv2d(128, 128, 3, padding=1), torch.randn(8, 128, 16, 16)
    with torch.no_grad():
        layer(x)
    assert not calls, "it has not been measured"
    monkeypatch.setattr(winograd, "wins", frozenset({(128, 16)}))
    with torch.no_grad():
        fast = layer(x)
    assert calls == [x.shape]
    torch.testing.assert_close(fast, layer(x), rtol=1e-4, atol=1e-4)  # with gradients: direct
    with torch.no_grad():
        layer(x[..., :15])  # no whole tiles
        layer(x[:7])  # too few of them
        layer(x.bfloat16())  # another precision
        Conv2d(128, 128, 3, padding=1, stride=2)(x)
        Conv2d(128, 64, 3, padding=1)(x)  # too few channels
        Conv2d(128, 128, 1)(x)
    assert calls == [x.shape]
