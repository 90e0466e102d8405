"""From pictures to a report: what is made anew and what is kept, and what cannot be measured."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from lodestar import bundle
from lodestar.config import Problem
from lodestar.data import open_source
from lodestar.evaluation.extractors import ClassifierExtractor
from lodestar.evaluation.kept import Kept, keep, kept, load
from lodestar.evaluation.metrics import KID, Frechet, Nearest, PrecisionRecall, Score
from lodestar.evaluation.reference import collect, known_of, open_reference
from lodestar.evaluation.repeats import student
from lodestar.evaluation.report import digest
from lodestar.evaluation.run import Measurement, evaluate, evaluate_pictures
from lodestar.evaluation.statistics import PARTS, Collector, FeatureSet, Part, Statistics
from lodestar.files import cache_folder
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.request import Request, request, settings
from lodestar.guidance import CFG, Classifier
from lodestar.images import load_png, save_png
from lodestar.progress import progress
from lodestar.samplers import DDIM

from . import tiny


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of an extractor was given."""
    calls: list[int] = []
    original: Callable = ClassifierExtractor.__call__

    def counted(self: ClassifierExtractor, pictures: torch.Tensor) -> object:
        if len(pictures) > 1:  # of one, to see what the extractor gives
            calls.append(len(pictures))
        return original(self, pictures)

    monkeypatch.setattr(ClassifierExtractor, "__call__", counted)
    return calls


def test_images_a_second_are_those_of_the_fastest_whole_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Before the run and its first batch; around the features of each of two whole batches and after it; around those of a shorter
    # last batch, which has no time; after the run.
    clock = iter([0.0, 0.0, 3.0, 3.5, 4.0, 4.25, 4.75, 5.0, 6.0, 7.0, 9.0])
    monkeypatch.setattr("lodestar.evaluation.run.time", SimpleNamespace(perf_counter=clock.__next__))
    report = evaluate(
        tiny.diffusion(), tiny.reference(), tiny.extractor(), count=20, run=Measurement(batch_size=8, cache=tmp_path)
    )
    assert (report.seconds, report.images_per_second, report.drawn_per_second) == (9.0, 8.0, 16.0)


def test_a_report_has_every_number_and_what_it_depends_on(tmp_path: Path) -> None:
    model, reference, extractor = tiny.diffusion(), tiny.reference(), tiny.extractor()
    report = evaluate(
        model,
        reference,
        extractor,
        settings(sampler=DDIM(), guidance=[CFG(scale=2.0)]),
        count=20,
        seed=5,
        run=Measurement(batch_size=8, cache=tmp_path),
    )
    assert {"frechet", "score", "kid", "precision", "recall"} <= set(report.numbers)
    assert all(math.isfinite(value) for value in report.numbers.values())
    assert (report.count, report.seed, report.steps, report.clamp) == (20, 5, "2", True)
    assert (report.sampler, report.guidance) == ("ddim:eta=0.0,clipped=true", "cfg:scale=2.0,rescale=0.0")
    assert (report.reference_count, report.reference_fingerprint) == (24, reference.fingerprint)
    assert (report.extractor, report.extractor_digest, report.extractor_dtype) == ("tiny", "digest 2", "float32")
    assert report.model_digest == digest(model)
    assert report.model_dtype == "float32"
    assert report.seconds
    assert report.images_per_second
    read = json.loads(report.to_json())
    assert read["numbers"] == report.numbers
    assert read["warnings"] == list(report.warnings)
    text = io.StringIO()
    Console(file=text, width=100).print(report.table())
    for part in ("frechet", "f score", "cfg:scale=2.0", "noise", "images/s"):
        assert part in text.getvalue()


def test_classes_are_balanced_and_seeds_consecutive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Request] = []
    original: Callable = Diffusion.prepare
    monkeypatch.setattr(
        Diffusion, "prepare", lambda self, request, guides: asked.append(request) or original(self, request, guides)
    )
    evaluate(
        tiny.diffusion(),
        tiny.reference(),
        tiny.extractor(),
        count=7,
        seed=3,
        run=Measurement(metrics=[Frechet()], cache=tmp_path),
    )
    assert asked == [request([0, 1, 2, 0, 1, 2, 0], 3)]


def test_numbers_do_not_depend_on_the_batch_size_and_pictures_go_through_in_batches(seen: list[int], tmp_path: Path) -> None:
    model, reference, extractor = tiny.diffusion(), tiny.reference(), tiny.extractor()
    small = evaluate(
        model, reference, extractor, count=20, run=Measurement(batch_size=6, metrics=[Frechet(), Score()], cache=tmp_path / "a")
    )
    assert seen == [6, 6, 6, 6, 6, 6, 6, 2]
    large = evaluate(
        model, reference, extractor, count=20, run=Measurement(batch_size=64, metrics=[Frechet(), Score()], cache=tmp_path / "b")
    )
    assert small.numbers == pytest.approx(large.numbers, rel=1e-3)


def test_the_reference_is_extracted_once_for_an_extractor(seen: list[int], tmp_path: Path) -> None:
    source = tiny.reference()
    first = known_of(source, tiny.extractor(), cache=tmp_path)
    assert seen == [24]
    again = known_of(tiny.reference(), tiny.extractor(), cache=tmp_path)
    assert seen == [24]
    assert torch.equal(first.features, again.features)
    known_of(source, tiny.extractor(seed=9), cache=tmp_path)
    known_of(tiny.reference(seed=1), tiny.extractor(), cache=tmp_path)
    assert seen == [24, 24, 24]


def test_pictures_on_disk_are_measured_like_others(seen: list[int], tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "made", 12)
    pictures = open_source(str(folder))
    report = evaluate_pictures(pictures, tiny.reference(), tiny.extractor(), run=Measurement(cache=tmp_path / "cache"))
    assert (report.pictures, report.count, report.seed, report.seconds) == (str(folder), 12, None, None)
    evaluate_pictures(pictures, tiny.reference(), tiny.extractor(), run=Measurement(cache=tmp_path / "cache"))
    assert seen == [24, 12]
    same = evaluate_pictures(
        pictures,
        pictures,
        tiny.extractor(),
        run=Measurement(metrics=[Frechet(), PrecisionRecall()], cache=tmp_path / "cache"),
    )
    assert same.numbers["frechet"] == pytest.approx(0, abs=1e-6)
    assert (same.numbers["precision"], same.numbers["recall"]) == (1, 1)
    Console(file=io.StringIO()).print(report.table())


def test_pictures_left_out_are_counted_and_do_not_stand_in_for_all(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "made", 9)
    (folder / "03.png").write_bytes(b"no picture")
    lenient = open_source(str(folder), skip_bad=True)
    report = evaluate_pictures(lenient, tiny.reference(), tiny.extractor(), run=Measurement(cache=tmp_path / "cache"))
    assert report.count == 8
    assert any(f"1 pictures of {folder} cannot be decoded" in warning for warning in report.warnings)
    with pytest.raises(Problem, match=r"03\.png cannot be decoded"):
        evaluate_pictures(open_source(str(folder)), tiny.reference(), tiny.extractor(), run=Measurement(cache=tmp_path / "cache"))


def test_a_report_warns_of_too_few_pictures_and_says_what_was_resized(tmp_path: Path) -> None:
    report = evaluate(
        tiny.diffusion(),
        tiny.reference(count=40, side=12),
        tiny.extractor(),
        count=16,
        run=Measurement(metrics=[Frechet()], cache=tmp_path),
    )
    assert report.warnings[0].startswith("reference: resized from 12×12 to 8×8")
    assert report.warnings[1].startswith("16 measured pictures are too few for the covariance of 16 features")
    assert len(report.warnings) == 2
    enough = evaluate(
        tiny.diffusion(),
        tiny.reference(count=40),
        tiny.extractor(),
        count=17,
        run=Measurement(metrics=[Frechet()], cache=tmp_path),
    )
    assert enough.warnings == ()


@pytest.mark.parametrize(
    ("count", "reference", "words"),
    [
        (3, 24, "metric 'precision_recall' needs at least 4 pictures: 3 measured"),
        (10, 2, "metric 'precision_recall' needs at least 4 pictures: 2 in the reference"),
        (0, 24, "count is 0"),
    ],
)
def test_too_few_pictures_are_a_problem_before_any_is_made(
    seen: list[int], tmp_path: Path, count: int, reference: int, words: str
) -> None:
    metrics = [PrecisionRecall(k=3)]
    with pytest.raises(Problem, match=words):
        evaluate(
            tiny.diffusion(),
            tiny.reference(reference),
            tiny.extractor(),
            count=count,
            run=Measurement(metrics=metrics, cache=tmp_path),
        )
    assert not seen
    with pytest.raises(Problem, match="metric 'frechet' needs at least 2 pictures: 1 measured"):
        evaluate_pictures(
            tiny.reference(1), tiny.reference(), tiny.extractor(), run=Measurement(metrics=[Frechet()], cache=tmp_path)
        )


def test_colours_that_the_extractor_cannot_see_are_a_problem_before_any_is_made(seen: list[int], tmp_path: Path) -> None:
    with pytest.raises(Problem, match="generated: pictures of 3 channels"):
        evaluate(
            tiny.diffusion(), tiny.reference(channels=1), tiny.extractor(channels=1), count=9, run=Measurement(cache=tmp_path)
        )
    assert not seen
    report = evaluate(
        tiny.diffusion(channels=1),
        tiny.reference(channels=1),
        tiny.extractor(channels=1),
        count=9,
        run=Measurement(cache=tmp_path),
    )
    assert not any("colour" in warning for warning in report.warnings)


def test_a_cache_that_cannot_be_written_is_a_problem_before_the_work(seen: list[int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Problem, match=r"cannot keep statistics in .*LODESTAR_CACHE"):
        known_of(tiny.reference(), tiny.extractor(), cache=tmp_path / "file")
    assert not seen


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LODESTAR_CACHE", raising=False)
    assert cache_folder() == Path("/home/ada/.cache/lodestar")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/xdg")
    assert cache_folder() == Path("/var/xdg/lodestar")
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    known_of(tiny.reference(), tiny.extractor())
    assert len(list((tmp_path / "statistics").glob("*.safetensors"))) == 1


def test_a_digest_tells_weights_configuration_and_number_format() -> None:
    digests = [digest(tiny.diffusion(seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    changed = tiny.diffusion()
    changed.denoiser.lower(torch.bfloat16)
    other = tiny.diffusion()
    other.config = other.config.replace(steps="3")
    assert len({digests[0], digest(changed), digest(other)}) == 3


def test_a_loaded_model_is_reported_by_the_digest_of_its_file(tmp_path: Path) -> None:
    model, guide = tiny.diffusion(), tiny.classifier()
    model.digest, guide.digest = "that of the file", "that of the guide"
    how, run = settings(guidance=Classifier(scale=1.0)), Measurement(metrics=[Frechet()], cache=tmp_path)
    report = evaluate(model, tiny.reference(), tiny.extractor(), how, count=4, guides={"classifier": guide}, run=run)
    assert (report.model_digest, report.guide_digests) == ("that of the file", {"classifier": "that of the guide"})


def test_a_request_that_cannot_be_answered_is_a_problem_before_the_reference_is_extracted(
    seen: list[int], tmp_path: Path
) -> None:
    model = tiny.diffusion(droppable=False)
    with pytest.raises(Problem, match="cfg needs a model"):
        evaluate(
            model,
            tiny.reference(),
            tiny.extractor(),
            settings(guidance=[CFG(scale=2.0)]),
            count=8,
            run=Measurement(cache=tmp_path),
        )
    assert not seen


def test_a_kept_reference_is_read_as_it_was_and_tells_of_another_number_format(
    tmp_path: Path,
) -> None:
    source, extractor = tiny.reference(40), tiny.extractor()
    features = known_of(source, extractor, cache=tmp_path)
    keep(tmp_path / "tiny.safetensors", source, features, extractor)
    bundle.save(tmp_path / "tiny.bundle.json", {"reference": tmp_path / "tiny.safetensors"})
    reference = open_reference(None, str(tmp_path / "tiny.bundle.json"), extractor, (8, 8))
    torch.testing.assert_close(reference.of(extractor).features, features.features, rtol=1e-3, atol=1e-3)
    given: dict[str, Any] = {"count": 20, "run": Measurement(metrics=[Frechet()], cache=tmp_path)}
    assert evaluate(tiny.diffusion(), reference, extractor, **given).warnings == ()
    extractor.model.lower(torch.bfloat16)
    warnings = evaluate(tiny.diffusion(), reference, extractor, **given).warnings
    assert warnings == ("reference: its features were computed in float32, those of the pictures in bfloat16",)
    with pytest.raises(Problem, match=r"those of the extractor tiny \(digest 2\), not of tiny \(digest 9\)"):
        reference.of(tiny.extractor(seed=9))
    assert kept("none") is None


def test_a_reference_of_larger_pictures_is_cropped_as_for_training_not_squashed(tmp_path: Path) -> None:
    wide = torch.zeros(3, 8, 24, dtype=torch.uint8)
    wide[:, :, 8:16] = 255
    save_png(tmp_path / "wide.png", wide)
    source = open_reference(str(tmp_path), None, tiny.extractor(), (8, 8))
    assert source.size == (8, 8)
    assert (source.image(0) == 255).all()
    with pytest.raises(Problem, match="--reference is missing"):
        open_reference(None, "nothing kept of this", tiny.extractor(), (8, 8))


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("sampling", 10) as done:
        done(5)
    assert capsys.readouterr().out == ""


def test_repeats_have_other_seeds_and_give_means_and_intervals(tmp_path: Path) -> None:
    run = Measurement(metrics=[Frechet(), Score()], cache=tmp_path)
    whole = evaluate(tiny.diffusion(), tiny.reference(), tiny.extractor(), count=20, seed=5, run=replace(run, repeats=3))
    alone = [evaluate(tiny.diffusion(), tiny.reference(), tiny.extractor(), count=20, seed=seed, run=run) for seed in (5, 25, 45)]
    assert [dict(run) for run in whole.runs] == [pytest.approx(dict(report.numbers), rel=1e-6) for report in alone]
    values = torch.tensor([report.numbers["frechet"] for report in alone], dtype=torch.float64)
    assert whole.numbers["frechet"] == pytest.approx(float(values.mean()))
    assert whole.intervals is not None and alone[0].intervals is None and alone[0].runs == ()
    assert whole.intervals["frechet"] == pytest.approx(4.302653 * float(values.std()) / 3**0.5, rel=1e-5)
    text = io.StringIO()
    Console(file=text, width=100).print(whole.table())
    assert f"{whole.numbers['frechet']:.5g} ± {whole.intervals['frechet']:.2g}" in text.getvalue()
    assert "over 3 runs" in text.getvalue()
    with pytest.raises(Problem, match="repeats is 0"):
        evaluate(tiny.diffusion(), tiny.reference(), tiny.extractor(), count=20, run=replace(run, repeats=0))


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (30, 2.0423)])
def test_students_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, rel=1e-4)


def kept_with(parts: Collection[Part], path: Path) -> Kept:
    known = collect(tiny.reference(40), tiny.extractor(), Collector(parts, some=(10, 40)))
    keep(path, tiny.reference(40), known, tiny.extractor())
    return load(path)


def test_a_reference_of_moments_gives_what_needs_no_more_and_says_so(seen: list[int], tmp_path: Path) -> None:
    reference = kept_with({"moments"}, tmp_path / "stats.safetensors")
    seen.clear()
    report = evaluate(tiny.diffusion(), reference, tiny.extractor(), count=120, run=Measurement(cache=tmp_path))
    assert set(report.numbers) == {"frechet", "score", "score_std"}
    assert [warning.partition(":")[0] for warning in report.warnings] == [
        "spatial_frechet needs spatial features, and noise was kept without",
        *(f"{kind} needs features, and noise was kept without" for kind in ("kid", "precision_recall", "density_coverage")),
    ]
    whole = evaluate(tiny.diffusion(), tiny.reference(40), tiny.extractor(), count=120, run=Measurement(cache=tmp_path))
    assert report.numbers["frechet"] == pytest.approx(whole.numbers["frechet"], rel=1e-9)
    seen.clear()
    with pytest.raises(Problem, match="metric 'kid' needs features, and noise was kept without: give its pictures"):
        evaluate(tiny.diffusion(), reference, tiny.extractor(), count=120, run=Measurement(metrics=[KID()], cache=tmp_path))
    assert not seen


def test_a_reference_with_the_features_of_some_pictures_says_so(tmp_path: Path) -> None:
    reference = kept_with(PARTS, tmp_path / "stats.safetensors")
    report = evaluate(tiny.diffusion(), reference, tiny.extractor(), count=120, run=Measurement(cache=tmp_path))
    assert report.reference_count == 40
    assert "kid: of the reference, features of 10 pictures in 40 are kept" in report.warnings
    with pytest.raises(Problem, match="needs at least 13 pictures: 10 in the reference"):
        evaluate(
            tiny.diffusion(),
            reference,
            tiny.extractor(),
            count=20,
            run=Measurement(metrics=[PrecisionRecall(k=12)], cache=tmp_path),
        )


def test_no_features_are_held_of_pictures_that_only_moments_are_needed_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[Statistics] = []
    monkeypatch.setattr(Frechet, "__call__", lambda self, *both: told.extend(both) or {"frechet": 0.0})
    evaluate(tiny.diffusion(), tiny.reference(), tiny.extractor(), count=20, run=Measurement(metrics=[Frechet()], cache=tmp_path))
    assert [each.parts for each in told] == [{"moments"}, {"moments"}]


def test_an_extractor_without_logits_has_no_score(tmp_path: Path) -> None:
    class Blunt:
        name, digest, dtype, channels, size, resizing = "blunt", "blunt", "float32", 3, None, "none"

        def __call__(self, pictures: torch.Tensor) -> FeatureSet:
            return FeatureSet(pictures.float().mean((2, 3)))

    report = evaluate(tiny.diffusion(), tiny.reference(), Blunt(), count=20, run=Measurement(cache=tmp_path))
    assert {"frechet", "kid", "coverage"} <= set(report.numbers) and "score" not in report.numbers
    assert "score needs class logits, and the extractor blunt gives none" in report.warnings
    with pytest.raises(Problem, match="metric 'score' needs class logits, and the extractor blunt gives none"):
        evaluate(tiny.diffusion(), tiny.reference(), Blunt(), count=20, run=Measurement(metrics=[Score()], cache=tmp_path))


def test_pictures_are_drawn_beside_their_nearest_neighbours(tmp_path: Path) -> None:
    """Copies of the reference's pictures: each row begins with a picture and, after a gap, itself."""
    folder = tiny.folder(tmp_path / "made", 12)
    pictures, out = open_source(str(folder)), tmp_path / "out"
    report = evaluate_pictures(
        pictures,
        open_source(str(folder)),
        tiny.extractor(),
        run=Measurement(metrics=[Nearest()], cache=tmp_path / "cache", out=out),
    )
    assert report.numbers["closer"] == 1 and report.numbers["nearest"] == pytest.approx(0, abs=1e-5)
    sheet = load_png(out / "neighbours.png")
    step = 128 + 16
    cells = [[sheet[:, y * step : y * step + 128, x * step : x * step + 128] for x in range(8)] for y in range(10)]
    assert all(torch.equal(row[0], row[2]) and bool((row[1] == 255).all()) for row in cells)
    assert not any(torch.equal(row[0], row[3]) for row in cells)
    with open(out / "neighbours.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["nearest"] for line in lines] == [str(folder / f"{number:02}.png") for number in range(12)]
    assert [line["picture"] for line in lines] == [str(number) for number in range(12)]
    assert all(float(line["distance"]) < 1e-4 for line in lines)
    # Of sampled pictures, those that were measured; without the reference's pictures, or the metric, none.
    evaluate(
        tiny.diffusion(),
        pictures,
        tiny.extractor(),
        count=5,
        run=Measurement(metrics=[Nearest()], cache=tmp_path / "cache", out=tmp_path),
    )
    drawn = load_png(tmp_path / "neighbours.png")[:, :128:16, :128:16]
    made = tiny.diffusion().sample(count=5).images
    assert any(torch.equal(drawn, picture) for picture in made)
    kept_one = kept_with(PARTS, tmp_path / "stats.safetensors")
    told = evaluate(
        tiny.diffusion(), kept_one, tiny.extractor(), count=5, run=Measurement(metrics=[Nearest()], out=tmp_path / "none")
    )
    assert any(warning.startswith("neighbours.png is not drawn") for warning in told.warnings)
    assert not (tmp_path / "none").exists()
