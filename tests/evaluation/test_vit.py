"""DINOv2 and CLIP as extractors, at sizes that load in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lodestar.config import Problem
from lodestar.evaluation.extractors import load_extractor
from lodestar.evaluation.extractors.vit import bicubic

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4}
PICTURES = torch.randint(0, 256, (3, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(Problem, match=r"this needs transformers .*pip install 'lodestar\[features\]'"):
        load_extractor("dinov2")


def test_pictures_are_resized_without_aliases_within_their_range() -> None:
    board = (torch.arange(64) // 2 % 2 * 255.0).expand(1, 1, 64, 64)
    assert (bicubic(board, (8, 8))[..., 2:-2] - 127.5).abs().max() < 15
    edge = torch.cat([torch.zeros(1, 1, 8, 4), torch.full((1, 1, 8, 4), 255.0)], 3)
    assert bicubic(edge, (32, 32)).aminmax() == (0, 255)  # unclamped it would ring


def test_dinov2_gives_its_class_token(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, image_size=32)).eval()
    model.save_pretrained(tmp_path)
    extractor = load_extractor(f"dinov2:{tmp_path}", "cpu")
    found = extractor(PICTURES)
    assert found.features.shape == (3, 16) and found.logits is None and extractor.name == f"dinov2:{tmp_path}"
    x = bicubic(PICTURES.float(), (224, 224)) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.inference_mode():
        torch.testing.assert_close(found.features, model(x).last_hidden_state[:, 0])
    grey = extractor(PICTURES[:, :1])
    torch.testing.assert_close(grey.features, extractor(PICTURES[:, :1].expand(-1, 3, -1, -1)).features)
    model.layernorm.weight.data += 1
    model.save_pretrained(tmp_path / "other")
    assert load_extractor(f"dinov2:{tmp_path}/other", "cpu").digest != extractor.digest


def test_clip_gives_its_embedding_of_a_picture(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vision = {**SIZES, "image_size": 32, "intermediate_size": 32, "projection_dim": 8}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)
    transformers.CLIPModel(config).eval().save_pretrained(tmp_path)
    extractor = load_extractor(f"clip:{tmp_path}", "cpu")
    found = extractor(PICTURES)
    assert found.features.shape == (3, 8) and found.features.std(0).max() > 1e-4
    assert extractor.side == 32
    with pytest.raises(Problem, match=r"extractor dinov2: '.*' is another kind of model: it has no "):
        load_extractor(f"dinov2:{tmp_path}", "cpu")


def test_a_model_that_is_not_there_is_a_problem_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(Problem, match=r"extractor clip: .* cannot be loaded: ") as found:
        load_extractor(f"clip:{tmp_path / 'nowhere'}", "cpu")
    assert "\n" not in str(found.value)
