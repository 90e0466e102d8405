"""Moments, feature files and their cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lodestar.config import Problem
from lodestar.evaluate import statistics
from lodestar.evaluate.statistics import FeatureSet, Moments, cached, load, save

torch.set_num_threads(1)


def features(count: int, dim: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_moments_of_parts_add_up_to_those_of_the_whole_far_from_zero_too() -> None:
    whole = features(50).double() + 1e6
    one, two, three = (Moments.of(part) for part in whole.split([7, 1, 42]))
    for moments in (one + two + three, one + (two + three), three + one + two):
        assert moments.count == 50
        torch.testing.assert_close(moments.mean, whole.mean(0), rtol=1e-14, atol=0)
        torch.testing.assert_close(moments.covariance, torch.cov(whole.T), rtol=1e-8, atol=1e-9)


def test_moments_of_a_set_are_float64_and_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FeatureSet(features(50)).moments
    monkeypatch.setattr(statistics, "_BLOCK", 8)
    blocks = FeatureSet(features(50)).moments
    assert whole.covariance.dtype == torch.float64
    torch.testing.assert_close(blocks.covariance, whole.covariance, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(whole.covariance, torch.cov(features(50).double().T))


def test_features_that_cannot_be_measured_are_problems() -> None:
    broken = features(4)
    broken[2, 1], broken[3, 0] = float("nan"), float("inf")
    with pytest.raises(Problem, match="the features of 2 of 4 pictures are not finite"):
        FeatureSet(broken)
    with pytest.raises(Problem, match="no pictures"):
        FeatureSet(features(0))


@pytest.mark.parametrize("logits", [None, features(6, 3, seed=1)])
def test_a_file_gives_back_what_was_saved(tmp_path: Path, logits: torch.Tensor | None) -> None:
    save(tmp_path / "a.safetensors", FeatureSet(features(6), logits), '{"spec": "noise"}')
    back, config = load(tmp_path / "a.safetensors")
    assert config == '{"spec": "noise"}'
    assert torch.equal(back.features, features(6))
    assert (back.logits is None) if logits is None else torch.equal(back.logits, logits)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_files_that_are_not_features_are_problems(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(Problem, match="cannot read"):
        load(path)
    save_file({"features": features(3)}, path)
    with pytest.raises(Problem, match="of another kind"):
        load(path)
    save(path, FeatureSet(features(6)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(Problem, match="cut short"):
        load(path)
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(Problem, match="SHA-256 does not match"):
        load(path)


def test_a_cache_makes_once_and_makes_a_damaged_file_again(tmp_path: Path) -> None:
    made = []

    def make() -> FeatureSet:
        made.append(1)
        return FeatureSet(features(6))

    for _ in range(3):
        assert torch.equal(cached(tmp_path / "new", "key", make).features, features(6))
    assert len(made) == 1
    (tmp_path / "new" / "key.safetensors").write_bytes(b"cut")
    assert torch.equal(cached(tmp_path / "new", "key", make).features, features(6))
    assert len(made) == 2 and load(tmp_path / "new" / "key.safetensors")
    cached(tmp_path / "new", "other", make)
    assert len(made) == 3
