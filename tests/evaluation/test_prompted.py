"""Pictures beside their prompts: the shares that the judge finds right, CLIPScore, and where the prompts come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lodestar
from lodestar.__main__ import main
from lodestar.codecs import pixels
from lodestar.conditions import TextCondition
from lodestar.config import Problem
from lodestar.core.prediction import X0
from lodestar.data import open_source
from lodestar.denoiser import DenoiserConfig
from lodestar.evaluation.captions import Captions, read_captions
from lodestar.evaluation.marks import Marks
from lodestar.evaluation.metrics import Caption, ClipScore, Frechet
from lodestar.evaluation.repeats import Share
from lodestar.evaluation.run import Measurement, evaluate, evaluate_pictures
from lodestar.evaluation.sweep import Subject, sweep
from lodestar.generators.diffusion import Diffusion
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.nets.unet import UNetConfig
from tests.evaluation.tiny import BACKBONE, diffusion, extractor, randomized, reference
from tests.models.test_clip import SCHEDULE, clip

TRUE = "a red circle"


def model() -> Diffusion:
    """A model of prompts whose pictures are noise."""
    text = TextCondition(network=TextTransformerConfig(context=100, width=16, layers=1, heads=2))
    config = DiffusionConfig(
        denoiser=DenoiserConfig(network=UNetConfig(**BACKBONE), prediction=X0(), channels=3, conditions=(text,)),
        schedule=SCHEDULE,
        size=(8, 8),
        droppable=True,
        steps="2",
    )
    made = randomized(Diffusion(config), 0)
    made.denoiser.network.head.weight *= 0.3
    return made


MODEL = model()


def scenes(count: int) -> tuple[Tensor, list[str]]:
    """Pictures of shapes and their captions."""
    source = open_source("shapes@test", captions=True)
    rows = [source.row(number) for number in range(count)]
    return torch.stack([torch.from_numpy(row["image"].copy()) for row in rows if row]), [row["caption"] for row in rows if row]


def numbers(metric: Any, pictures: Tensor, prompts: list[str], batch: int = 100, **guides: Any) -> dict[str, Any]:
    marks = Marks([metric], prompts, guides)
    for first in range(0, len(prompts), batch):
        marks.add(range(first, min(first + batch, len(prompts))), pictures[first : first + batch])
    return marks.numbers()


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),  # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_share_is_that_of_the_tables(hits: int, count: int, low: float, high: float) -> None:
    assert Share(hits, count).interval() == pytest.approx((low, high), abs=6e-5)
    assert Share(count - hits, count).interval() == pytest.approx((1 - high, 1 - low), abs=6e-5)
    assert Share(hits, count).half_width() == pytest.approx((high - low) / 2, abs=6e-5)
    assert Share(1, 2) + Share(2, 3) == Share(3, 5) and float(Share(1, 4)) == 0.25


def test_rendered_scenes_are_right_and_those_of_others_wrong() -> None:
    pictures, prompts = scenes(120)
    found = numbers(Caption(), pictures, prompts)
    assert all(float(share) == 1 for share in found.values())
    meanings = [lodestar.shapes.parse(prompt) for prompt in prompts]
    for name, things in (("one", 1), ("two", 2), ("three", 3)):
        mine = [meaning for meaning in meanings if len(meaning.things) == things]
        assert found[f"caption_{name}_attributes"].count == found[f"caption_{name}_right"].count == len(mine) > 20
        related = sum(bool(meaning.relations) for meaning in mine)
        assert (found[f"caption_{name}_relation"].count == related) if related else f"caption_{name}_relation" not in found
    assert found["caption_relation"].count == sum(bool(meaning.relations) for meaning in meanings)
    assert numbers(Caption(), pictures, prompts, batch=7) == found
    wrong = numbers(Caption(), pictures.roll(1, dims=0), prompts)
    assert float(wrong["caption_right"]) < 0.1 and wrong["caption_right"].count == 120
    assert wrong["caption_right"].hits <= min(wrong["caption_attributes"].hits, 120)


def test_attributes_and_relations_are_told_apart() -> None:
    scene = next(
        each for each in (lodestar.shapes.scene(0, number, "test") for number in range(200)) if len(each.things) == 2
        and abs(each.things[0].x - each.things[1].x) > 0.4
    )  # fmt: skip
    first, second = sorted(scene.things, key=lambda thing: thing.x)
    picture = torch.from_numpy(lodestar.shapes.render(scene, 32)).permute(2, 0, 1)[None]
    true = f"a {first.colour} {first.shape} left of a {second.colour} {second.shape}"
    turned = f"a {first.colour} {first.shape} right of a {second.colour} {second.shape}"
    painted = true.replace(f"a {first.colour}", f"a {'red' if first.colour != 'red' else 'blue'}", 1)
    for prompt, expected in ((true, (1, 1, 1)), (turned, (1, 0, 0)), (painted, (0, 1, 0))):
        found = numbers(Caption(), picture, [prompt])
        assert tuple(found[f"caption_two_{claim}"].hits for claim in ("attributes", "relation", "right")) == expected


def test_clip_score_is_the_mean_cosine_of_pairs() -> None:
    judge, prompts = clip(), ["a", "b", "purple", "d", "a cat"]
    pictures = (
        torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 80 * torch.arange(5).view(-1, 1, 1, 1)
    ).byte()
    cosines = judge.similarity(pixels.encode(pictures), prompts).diagonal()
    found = numbers(ClipScore(), pictures, prompts, batch=2, clip=judge)
    assert found["clip_cosine"] == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert found["clip_score"] == pytest.approx(2.5 * float(cosines.clamp(min=0).mean()), abs=1e-6)
    assert float(cosines.min()) < 0 < float(cosines.max())  # so that the two differ
    other = clip("none")
    assert numbers(ClipScore(), pictures, prompts, clip=judge, clip_score=other) != found
    assert numbers(ClipScore(), pictures, ["a" * 50] * 5, clip=judge)["clip_score"] >= 0  # longer than its context: cut


@pytest.mark.parametrize(
    ("metric", "prompts", "guides", "words"),
    [
        (Caption(), [TRUE, None], {}, "metric 'caption' compares with prompts, and picture 1 has none: give --captions DATA"),
        (Caption(), ["a red cat"], {}, "metric 'caption' judges pictures of shapes: caption 'a red cat' is no sentence"),
        (ClipScore(), [TRUE], {}, "metric 'clip_score' needs a CLIP"),
        (ClipScore(), [TRUE], {"clip": diffusion()}, "metric 'clip_score' needs a CLIP, and the guide is none"),
        (ClipScore(), [TRUE], {"clip": clip(channels=1)}, "sees grey pictures"),
    ],
)
def test_what_cannot_be_compared_is_refused(metric: Any, prompts: list[str | None], guides: Any, words: str) -> None:
    with pytest.raises(Problem, match=words):
        Marks([metric], prompts, guides)


# Where the prompts come from.


def test_picture_k_has_the_kth_caption_and_an_album_of_it_the_same_numbers(tmp_path: Path) -> None:
    texts = read_captions("shapes@held_out", 6).texts
    source = open_source("shapes@held_out", captions=True)
    assert list(texts) == [source.texts(number)["caption"] for number in range(6)]  # type: ignore[index]
    how: Any = {"metrics": ["caption", "clip_score"], "guides": {"clip": clip()}}
    report = lodestar.evaluate(MODEL, captions="shapes@held_out", count=6, seed=3, **how)
    assert report.captions == "shapes@held_out" and report.reference is None and report.extractor is None
    assert report.shares is not None and report.shares["caption_right"].count == 6
    assert report.guide_digests is not None and set(report.guide_digests) == {"clip"}
    samples = MODEL.sample(prompt=texts, seed=3)
    album = samples.save(tmp_path / "album")
    pictures = [picture.copy() for picture in samples]
    for again in (
        lodestar.evaluate(samples, **how),
        lodestar.evaluate(album, **how),
        lodestar.evaluate(pictures, captions="shapes@held_out", **how),
        lodestar.evaluate(MODEL, captions=list(texts), count=6, seed=3, **how),
    ):
        assert again.numbers == pytest.approx(report.numbers, abs=1e-6) and again.shares == report.shares
    told = json.loads(report.to_json())
    assert told["shares"]["caption_right"] == {"hits": report.shares["caption_right"].hits, "count": 6}
    assert f"({0:.3f} to" in str(report) and "of 6" in str(report)


def test_several_runs_pool_their_shares() -> None:
    run = Measurement(metrics=[Caption()], captions=Captions((TRUE, "a blue star"), ""), repeats=3)
    report = evaluate(MODEL, None, None, count=4, run=run)
    assert report.shares is not None and report.shares["caption_right"].count == 12
    assert len(report.runs) == 3 and report.intervals is not None and "caption_right" in report.intervals


def test_pictures_of_a_cut_caption_are_judged_by_the_whole_one() -> None:
    long = "a large yellow triangle to the left of a small purple triangle and to the right of a small orange triangle"
    report = lodestar.evaluate(MODEL, captions=[TRUE, long], metrics="caption", count=3)
    assert report.shares is not None and report.shares["caption_three_relation"].count == 1
    assert report.warnings[0] == "1 of 2 captions are longer than the model's context, and cut"


def test_models_of_shapes_have_captions_of_their_own_and_others_say_that_they_have_none(tmp_path: Path) -> None:
    mine = model()
    run: Any = {"reference": reference(), "extractor": extractor(), "metrics": "frechet", "count": 4}
    report = lodestar.evaluate(mine, **run)
    assert report.captions is None and report.warnings[0].startswith("no captions are given")
    mine.provenance = {"data": "shapes"}
    report = lodestar.evaluate(mine, **run)
    assert report.captions == "shapes@held_out" and "unconditional" not in str(report.warnings)
    plain = diffusion()
    plain.provenance = {"data": "shapes"}
    assert lodestar.evaluate(plain, **run).captions is None


def test_the_pictures_of_the_captions_are_the_reference_where_there_is_no_other(tmp_path: Path) -> None:
    items = [{"image": picture.permute(1, 2, 0).numpy(), "caption": text} for picture, text in zip(*scenes(20), strict=True)]
    report = lodestar.evaluate(MODEL, captions=items, extractor=extractor(), metrics=["frechet", "caption"], count=6)
    assert report.reference_count == 20 and {"frechet", "caption_right"} <= set(report.numbers)
    assert report.warnings[0].startswith("6 measured pictures are too few")


def test_captions_longer_than_the_context_are_cut_and_counted() -> None:
    found = Captions((TRUE, "a red circle " * 20), "").within(MODEL)
    assert found.texts[0] == TRUE and 90 <= len(found.texts[1]) <= 100
    assert found.note == "1 of 2 captions are longer than the model's context, and cut"
    with pytest.raises(Problem, match="this model knows no text"):
        Captions((TRUE,), "").within(diffusion())


def test_several_captions_of_a_picture_come_in_turn() -> None:
    picture = torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()
    items = [{"image": picture, "caption": ["a", "b", "c"]}] * 4
    assert read_captions(items, 10).texts == ("a", "b", "c", "a")
    assert read_captions(["x", "y"], 1).texts == ("x",)
    with pytest.raises(Problem, match="digits has no captions"):
        read_captions("digits", 3)


def test_an_albums_prompts_are_its_captions(tmp_path: Path) -> None:
    folder = MODEL.sample(prompt=[TRUE, None]).save(tmp_path / "some")
    source = open_source(folder, captions=True)
    assert source.texts(0) == {"caption": TRUE}
    with pytest.raises(Problem, match=r"00001\.png has no caption that can be read: it was made without a prompt"):
        source.texts(1)
    with pytest.raises(Problem, match="has no captions: its pictures were made without prompts"):
        open_source(MODEL.sample(count=2).save(tmp_path / "none"), captions=True)
    pictures = open_source(folder)
    with pytest.raises(Problem, match=r"compares with prompts, and .*some has none"):
        evaluate_pictures(pictures, None, None, run=Measurement(metrics=[Caption()]))
    with pytest.raises(Problem, match="has 2 pictures, and captions are there for 1 of them"):
        lodestar.evaluate(pictures, metrics="caption", captions=[TRUE])
    with pytest.raises(Problem, match="captions have no effect on pictures that are there already"):
        lodestar.evaluate(pictures, reference(), metrics="frechet", captions=[TRUE])
    with pytest.raises(Problem, match="extractor has no effect on caption"):
        lodestar.evaluate(folder, metrics="caption", extractor=extractor())


def test_a_sweep_of_guidance_takes_captions_and_draws_their_numbers(tmp_path: Path) -> None:
    run = Measurement(metrics=[Frechet(), Caption(), ClipScore()], cache=tmp_path)
    subject = Subject(MODEL, reference(), {"clip": clip()}, read_captions("shapes@held_out", 4))
    over = [lodestar.evaluation.axes.axis("scale", [1, 3])]
    how = lodestar.generators.request.settings(guidance="cfg")
    given: Any = {"over": over, "how": how, "count": 4}
    rows = sweep(lambda _: subject, extractor(), tmp_path / "out", run=run, **given)
    assert {"frechet", "caption_right", "clip_score"} <= set(rows[0].numbers) and "caption_right" in rows[0].intervals
    placed = replace(subject, captions=read_captions(["a red circle on the left"], 4))
    placed_rows = sweep(lambda _: placed, extractor(), tmp_path / "placed", run=run, **given)
    assert {"caption_place", "caption_one_place"} <= set(placed_rows[0].numbers) and "caption_place" in placed_rows[0].intervals
    assert rows[0].numbers["clip_score"] != rows[1].numbers["clip_score"]
    assert sweep(lambda _: subject, extractor(), tmp_path / "out", run=run, **given) == rows
    with pytest.raises(Problem, match="holds another sweep: captions"):
        others = replace(subject, captions=read_captions("shapes@test", 4))
        sweep(lambda _: others, extractor(), tmp_path / "out", run=run, **given)
    with pytest.raises(Problem, match="metric 'kid' is not drawn by a sweep: choose from frechet, score"):
        kid = replace(run, metrics=[lodestar.metrics.KID()])
        sweep(lambda _: subject, extractor(), tmp_path / "new", run=kid, **given)


# The command line.


def test_the_command_measures_a_model_and_an_album_of_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    MODEL.save("mine.safetensors")
    clip().save("clip.safetensors")

    def run(words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(words.split())
        return int(str(ended.value.code or 0)), capsys.readouterr().err

    metrics = "--metric caption --metric clip_score --guide clip=clip.safetensors"
    assert run(f"evaluate mine.safetensors --captions shapes@held_out --count 3 {metrics} --out a") == (0, "")
    MODEL.sample(prompt=read_captions("shapes@held_out", 3).texts).save("album")
    assert run(f"evaluate album {metrics} --out b") == (0, "")
    mine, theirs = (json.loads((tmp_path / name / "report.json").read_text())["numbers"] for name in "ab")
    assert mine == pytest.approx(theirs, abs=1e-5)
    for words, told in (
        ("evaluate album --metric caption --guide clip=clip.safetensors", "--guide has no effect on pictures that are there"),
        ("evaluate album --metric caption --reference digits", "reference has no effect on caption"),
        ("evaluate album --metric caption --caption-column x", "--caption-column x has no effect without --captions"),
        ("evaluate mine.safetensors --metric caption --count 2", "picture 0 has none: give --captions DATA"),
        ("evaluate album --metric caption --captions digits", "digits has no captions"),
        ("sweep mine.safetensors --over steps=2 --metric kid --reference digits", "metric 'kid' is not drawn by a sweep"),
    ):
        code, err = run(words)
        assert code == 2 and told in err and err.count("\n") == 1, err
