"""Inception-v3 of the field's weights: its parameters, its shapes, its peculiarities, TensorFlow's resizing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lodestar.nets.inception import CLASSES, FEATURES, Inception, Mixed, prepare, resize


@pytest.fixture(scope="module")
def network() -> Inception:
    torch.manual_seed(0)
    return Inception().requires_grad_(False).eval()


def test_its_parameters_are_those_of_the_published_file(network: Inception) -> None:
    # Inception-v3 without its auxiliary classifier has 23,834,568 with 1000 classes.
    assert sum(p.numel() for p in network.parameters()) == 23_834_568 + 8 * (FEATURES + 1)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert sum(name.endswith(".conv.weight") for name in shapes) == 94
    leaves = {name.rpartition("branch")[2].partition(".")[2] for name in shapes if "branch" in name}
    assert leaves == {"conv.weight", *(f"bn.{leaf}" for leaf in BN)}
    expected = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6c.branch7x7dbl_4.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch_pool.bn.bias": (192,),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }
    assert {name: shapes[name] for name in expected} == expected


BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_features_logits_and_maps(network: Inception) -> None:
    pictures = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    with torch.inference_mode():
        features, logits, maps = network(prepare(pictures))
    assert features.shape == (2, FEATURES) and logits.shape == (2, CLASSES) and maps.shape == (2, 192, 17, 17)
    assert all(each.isfinite().all() for each in (features, logits, maps)) and maps.min() == 0
    torch.testing.assert_close(logits, F.linear(features, network.fc.weight))  # without the bias


def test_pools_leave_the_padding_out_and_the_last_one_takes_the_maximum(network: Inception) -> None:
    ones = torch.ones(1, 8, 3, 3)
    pool = torch.arange(9.0).reshape(1, 1, 3, 3)
    for block, around in ((Mixed(8, {}, "mean", 4), 2.0), (Mixed(8, {}, "max", 4), 4.0)):
        block.branch_pool = torch.nn.Identity()
        torch.testing.assert_close(block(ones), ones)  # a mean with the padding's zeros would be 4/9 in a corner
        assert block(pool)[0, 0, 0, 0] == around
    kinds = {name: block.pool for name, block in network.named_children() if isinstance(block, Mixed)}
    assert kinds.pop("Mixed_7c") == "max" and kinds.pop("Mixed_6a") == kinds.pop("Mixed_7a") == "halve"
    assert set(kinds.values()) == {"mean"}


def test_resizing_is_tensorflow_1s() -> None:
    row = torch.tensor([[0.0, 10.0, 20.0, 30.0]]).reshape(1, 1, 1, 4)
    # Pixel i of 8 stands at i / 2, and the last one beyond the last of 4.
    assert resize(row, (1, 8)).flatten().tolist() == [0, 5, 10, 15, 20, 25, 30, 30]
    # Pixel i of 2 stands at 2 i: one pixel is taken and its neighbour is not.
    assert resize(row, (1, 2)).flatten().tolist() == [0, 20]
    assert resize(row.reshape(1, 1, 4, 1), (8, 1)).flatten().tolist() == [0, 5, 10, 15, 20, 25, 30, 30]
    x = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(resize(x, (5, 7)), x)


def test_pictures_are_brought_into_the_networks_range() -> None:
    pictures = torch.tensor([0, 128, 255], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 3, 299, 299)
    assert prepare(pictures)[:, 0, 0, 0].tolist() == [-1, 0, 127 / 128]
