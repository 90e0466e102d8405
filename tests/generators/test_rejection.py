"""Classifier rejection: the surest of several candidates, and that nothing else tells that it was chosen."""

from __future__ import annotations

import pytest
import torch

from lodestar.codecs import pixels
from lodestar.config import Problem
from lodestar.guidance import CFG
from tests.evaluation import tiny
from tests.evaluation.test_prompted import model as prompted
from tests.models.test_clip import clip


def test_the_surest_candidate_is_kept_whatever_the_batch_size() -> None:
    model, judge = tiny.diffusion(), tiny.classifier()
    how = {"steps": 3, "guidance": CFG(scale=2.0), "seed": 10}
    kept = [model.sample(["cat", "dog"], best_of=4, guides={"judge": judge}, batch_size=size, **how) for size in (3, 8)]
    assert kept[0].request == kept[1].request
    every = model.sample(["cat"] * 4 + ["dog"] * 4, **how)
    scores = judge.logits(pixels.encode(every.images)).log_softmax(1)
    best = [int(scores[:4, 0].argmax()), 4 + int(scores[4:, 1].argmax())]
    assert kept[1].request.seeds == [10 + number for number in best]
    assert kept[1].request.labels == [0, 1]
    assert (kept[1].images.int() - every.images[best].int()).abs().max() <= 1
    again = torch.cat([frame.images for frame in model.stream(kept[1].request) if frame.final])
    assert (again.int() - kept[1].images.int()).abs().max() <= 1


def test_what_cannot_be_judged_is_refused() -> None:
    model = tiny.diffusion()
    with pytest.raises(Problem, match="needs a classifier or a CLIP that judges"):
        model.sample("cat", best_of=2)
    with pytest.raises(Problem, match=r"^label none: the judge needs a class to look for$"):
        model.sample("none", best_of=2, guides={"judge": tiny.classifier()})
    with pytest.raises(Problem, match=r"size \(16, 16\)"):
        model.sample("cat", best_of=2, guides={"judge": tiny.classifier(size=(16, 16))})
    with pytest.raises(Problem, match="best of is 0"):
        model.sample("cat", best_of=0)


def test_a_clip_keeps_the_picture_nearest_to_its_prompt() -> None:
    model, judge = prompted(), clip()
    kept = model.sample(prompt=["cat", "dog"], best_of=4, guides={"judge": judge}, seed=10)
    every = model.sample(prompt=["cat"] * 4 + ["dog"] * 4, seed=10)
    cosines = judge.similarity(pixels.encode(every.images), ["cat", "dog"])
    best = [int(cosines[:4, 0].argmax()), 4 + int(cosines[4:, 1].argmax())]
    assert kept.request.seeds == [10 + number for number in best]
    assert (kept.images.int() - every.images[best].int()).abs().max() <= 1
    with pytest.raises(Problem, match="prompt none: a CLIP that judges needs a text"):
        model.sample(count=1, best_of=2, guides={"judge": judge})
    with pytest.raises(Problem, match=r"^label none: the judge needs a class to look for; of prompts a CLIP is the judge$"):
        model.sample(prompt="cat", best_of=2, guides={"judge": tiny.classifier()})
    with pytest.raises(Problem, match="this CLIP's"):
        model.sample(prompt="a cat of 20 characters", best_of=2, guides={"judge": judge})
    model.companions = {"clip": lambda: judge}
    assert model.sample(prompt=["cat", "dog"], best_of=4, seed=10).request == kept.request
