"""Pictures as features: size, colours, range, and where an extractor comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lodestar import checkpoint
from lodestar.config import Problem
from lodestar.evaluation.extractors import load_extractor, note

from . import tiny


def pictures(count: int = 5, channels: int = 3, side: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_features_and_logits_are_the_classifiers_of_pictures_in_its_range() -> None:
    extractor = tiny.extractor()
    found = extractor(pictures())
    x = pictures().float() / 127.5 - 1
    torch.testing.assert_close(found.features, extractor.model.features(x))
    torch.testing.assert_close(found.logits, extractor.model.logits(x))
    assert found.features.std(0).max() > 1e-3  # they tell pictures apart


def test_spatial_features_are_seven_channels_of_the_map_before_the_pool() -> None:
    extractor = tiny.extractor()
    found = extractor(pictures())
    assert found.spatial is not None and found.spatial.shape == (5, 7 * 4 * 4)
    torch.testing.assert_close(found.spatial.reshape(5, 7, 16).mean(2), found.features[:, :7])
    # A moved picture has nearly the same features elsewhere.
    moved = extractor(pictures().roll(4, dims=-1))
    assert (moved.spatial - found.spatial).norm() / found.spatial.norm() > 3 * (
        (moved.features - found.features).norm() / found.features.norm()
    )


def test_pictures_of_another_size_are_resized_without_aliases() -> None:
    extractor = tiny.extractor()
    # The middle two of every four columns are white: on average grey, but between the middle two, where a sample falls, white.
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., 1::4] = stripes[..., 2::4] = 255
    grey = torch.full((1, 3, 8, 8), 127, dtype=torch.uint8)
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    found, like, unlike = (extractor(each).features for each in (stripes, grey, white))
    assert (found - like).norm() < 0.3 * (found - unlike).norm()
    told = note(extractor, "generated", 3, (32, 32))
    assert told == "generated: resized from 32×32 to 8×8 (bilinear, antialiased) for the extractor"
    assert note(extractor, "generated", 3, (8, 8)) is None


def test_grey_pictures_are_seen_in_colour_and_colours_by_a_grey_extractor_are_a_problem() -> None:
    extractor = tiny.extractor()
    grey = pictures(channels=1)
    torch.testing.assert_close(extractor(grey).features, extractor(grey.expand(-1, 3, -1, -1)).features)
    assert note(extractor, "reference", 1, (8, 8)) == "reference: taken as colour pictures for the extractor"
    with pytest.raises(Problem, match=r"reference: pictures of 3 channels, and the extractor tiny sees 1 \(grey\)"):
        note(tiny.extractor(channels=1), "reference", 3, (8, 8))


def test_an_extractor_is_loaded_from_a_file_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "eye.safetensors"
    model = tiny.classifier()
    checkpoint.save(path, "classifier", model.config.to_json(), model.state_dict(), {})
    extractor = load_extractor(path, "cpu")
    assert (extractor.name, extractor.digest) == (str(path), checkpoint.peek(path).digest)
    assert extractor.dtype in ("float32", "bfloat16")
    by_kind = load_extractor(f"classifier:{path}", "cpu")
    assert (by_kind.name, by_kind.digest) == (extractor.name, extractor.digest)
    torch.testing.assert_close(extractor(pictures()).features, tiny.extractor(seed=1)(pictures()).features, rtol=0.1, atol=0.1)


def test_what_is_no_classifier_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = tiny.diffusion()
    checkpoint.save(path, "diffusion", model.config.to_json(), model.state_dict(), {})
    with pytest.raises(Problem, match="holds a diffusion, and a classifier is needed"):
        load_extractor(path)
    with pytest.raises(Problem, match="no model 'nowhere'"):
        load_extractor("nowhere")
