"""Captions in training: dropped by themselves, learned from by a tokenizer, missing ones refused; holes to be filled in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lodestar.conditions import LabelCondition, LowRes, Masked, TextCondition
from lodestar.config import Problem
from lodestar.data import Batch, DataFacts
from lodestar.denoiser import DenoiserConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.nets.unet import UNetConfig
from lodestar.tasks import Rng, TrainDenoiser
from lodestar.tasks.denoise import DenoiseLearner
from lodestar.tasks.holes import holes
from lodestar.text import OwnTokenizer
from tests.evaluation.tiny import BACKBONE

CAPTIONS = tuple(f"a {size} {shape}" for size in ("large", "small") for shape in ("circle", "square")) * 16
NETWORK = TextTransformerConfig(context=16, width=16, layers=1, heads=2)
TEXT = TextCondition(tokenizer=OwnTokenizer(merges=""), network=NETWORK)
FACTS = DataFacts(3, (8, 8), None, captions=True, texts=lambda: CAPTIONS)


def task(*conditions: Any, **settings: Any) -> TrainDenoiser:
    denoiser = DenoiserConfig(network=UNetConfig(**BACKBONE), channels=3, conditions=conditions)
    return TrainDenoiser(model=DiffusionConfig(denoiser=denoiser, size=(8, 8)), **{"conditional": False, **settings})


def learner(made: TrainDenoiser) -> DenoiseLearner:
    torch.manual_seed(0)
    return made.resolve(FACTS).build(torch.device("cpu"), torch.float32)


def batch() -> Batch:
    image = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch({"image": image, "caption": CAPTIONS})


def rng(seed: int = 2) -> Rng:
    return Rng(torch.Generator().manual_seed(seed), 64)


def test_captions_are_dropped_and_pieces_drop_the_same() -> None:
    ours = learner(task(TEXT, caption_drop=0.3))
    x0 = torch.zeros(64, 3, 8, 8)
    cond, keep = ours.condition(batch(), x0, rng())
    assert set(cond) == set(keep) == {"text"} and 30 <= int(keep["text"].sum()) <= 56
    whole = rng()
    parts = [ours.condition(batch()[rows], x0[rows], whole.piece(rows)) for rows in (slice(0, 10), slice(10, 64))]
    assert torch.equal(torch.cat([each[1]["text"] for each in parts]), ours.condition(batch(), x0, rng())[1]["text"])
    assert torch.equal(torch.cat([each[0]["text"] for each in parts]), cond["text"])


def test_labels_and_captions_are_dropped_by_themselves() -> None:
    facts = DataFacts(3, (8, 8), ("a", "b"), captions=True, texts=lambda: CAPTIONS)
    made = task(TEXT, conditional=True, label_drop=0.5, caption_drop=0.5).resolve(facts)
    assert [each.kind for each in made.model.denoiser.conditions] == ["label", "text"] and made.model.droppable
    assert not task(TEXT, conditional=True, label_drop=0.0).resolve(facts).model.droppable
    assert not task(TEXT, caption_drop=0.0).resolve(FACTS).model.droppable and task(TEXT).resolve(FACTS).model.droppable
    labelled = Batch({**batch().fields, "label": torch.zeros(64, dtype=torch.int64)})
    _, keep = made.build(torch.device("cpu"), torch.float32).condition(labelled, torch.zeros(64, 3, 8, 8), rng())
    assert not torch.equal(keep["label"], keep["text"])


def test_the_loss_hears_the_text_and_everything_of_it_learns() -> None:
    ours = learner(task(TEXT, caption_drop=0.0))
    for parameter in ours.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    losses = ours.loss(batch(), rng())
    losses.total.mean().backward()
    text = ours.model.denoiser.text
    assert all(each.grad is not None and each.grad.abs().max() > 0 for each in text.parameters())
    other = Batch({**batch().fields, "caption": CAPTIONS[1:] + CAPTIONS[:1]})
    assert not torch.equal(ours.loss(other, rng()).total, losses.total)
    blank = Batch({**batch().fields, "caption": ("",) * 64})
    dropped = learner(task(TEXT, caption_drop=1.0))
    dropped.model.load_state_dict(ours.model.state_dict())
    assert torch.allclose(dropped.loss(other, rng()).total, ours.loss(blank, rng()).total)


def test_a_tokenizer_learns_from_the_captions_once() -> None:
    pytest.importorskip("tokenizers")
    made = task(TextCondition(tokenizer=OwnTokenizer(size=280), network=NETWORK)).resolve(FACTS)
    text = made.model.denoiser.text
    assert text is not None and isinstance(text.tokenizer, OwnTokenizer) and "c i" in str(text.tokenizer.merges)
    assert made.resolve(FACTS) == made and TrainDenoiser.model_validate_json(made.to_json()) == made
    with pytest.raises(Problem, match="captions are missing: this run's tokenizer learns from them"):
        task(TextCondition(network=NETWORK)).resolve(DataFacts(3, (8, 8), None, captions=True))


def test_data_without_captions_is_refused() -> None:
    assert task(TEXT).captions and not task().captions
    with pytest.raises(Problem, match=r"^captions are missing: this run is told texts, and its data has none$"):
        task(TEXT).resolve(DataFacts(3, (8, 8), None))


def test_conditions_keep_their_places() -> None:
    made = task(TEXT, Masked(), LowRes(size=(4, 4))).resolve(FACTS)
    assert [each.kind for each in made.model.denoiser.conditions] == ["text", "masked", "low_res"]
    old = task(LabelCondition(classes=3), TEXT, LowRes(size=(4, 4)), conditional=True)
    facts = DataFacts(3, (16, 16), ("a", "b"), captions=True)
    resolved = old.resolve(facts).model.denoiser
    assert [each.kind for each in resolved.conditions] == ["label", "text", "low_res"]
    assert (resolved.classes, resolved.low_res) == (2, (8, 8))


def test_previews_are_made_of_the_last_captions() -> None:
    ours = learner(task(TEXT))
    ours.check()
    assert ours.preview() is not None
    ours.loss(batch(), rng())
    made = ours.preview()
    assert made is not None and len(made) == 40
    learner(task(TEXT, caption_drop=0.0)).check()  # its previews have texts


def test_holes_are_rectangles_some_of_them_whole() -> None:
    masks = holes(2000, torch.Generator().manual_seed(0), (12, 20))
    assert masks.shape == (2000, 1, 12, 20) and masks.dtype == torch.bool
    share = masks.float().mean(dim=(1, 2, 3))
    assert 0.05 < float((share == 1).float().mean()) < 0.15
    assert 0.2 < float(share.mean()) < 0.6 and float((share == 0).float().mean()) < 0.1


def test_a_network_that_inpaints_sees_what_is_kept() -> None:
    ours = learner(task(TEXT, Masked()))
    cond, keep = ours.condition(batch(), torch.ones(64, 3, 8, 8), rng())
    assert set(keep) == {"text"} and cond["masked"].shape == (64, 4, 8, 8)
    assert torch.equal(cond["masked"][:, :3], cond["masked"][:, 3:].expand(-1, 3, -1, -1))
    assert ours.loss(batch(), rng()).total.isfinite().all()


def test_the_styles_of_the_data_become_the_conditions() -> None:
    kept = task(TEXT).resolve(FACTS).model.denoiser.text
    assert kept is not None and kept.styles == ()
    with_styles = replace(FACTS, styles=("noto", "twemoji"))
    told = task(TEXT).resolve(with_styles).model.denoiser.text
    assert told is not None and told.styles == ("noto", "twemoji")
    many = replace(FACTS, styles=tuple(map(str, range(1_001))))
    with pytest.raises(Problem, match="1,001 styles are in the data, and 1,000 is the most"):
        task(TEXT).resolve(many)
