"""Sweeps: what they write, that they go on where they stopped, and what they refuse."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lodestar.config import Problem
from lodestar.evaluation import sweep as sweep_module
from lodestar.evaluation.axes import Axis, axis, parse_axis
from lodestar.evaluation.kept import keep, load
from lodestar.evaluation.plot import Curve, Ticks
from lodestar.evaluation.reference import collect
from lodestar.evaluation.report import digest
from lodestar.evaluation.run import Measurement
from lodestar.evaluation.statistics import Collector
from lodestar.evaluation.sweep import Row, Subject, sweep
from lodestar.generators.diffusion import Diffusion, PreparedSampling
from lodestar.generators.request import Request, Settings, settings
from lodestar.guidance import CFG, Autoguidance, Clamp, Classifier, Interval
from lodestar.progress import Forecast
from lodestar.samplers import DDIM

from . import tiny


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that is sampled."""
    requests: list[Request] = []
    original: Callable = PreparedSampling.frames

    def noted(self: PreparedSampling, *rest: Any) -> Any:
        requests.append(self.request)
        return original(self, *rest)

    monkeypatch.setattr(PreparedSampling, "frames", noted)
    return requests


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Row]]:
    """A small sweep into tmp_path/out, its plot only where it is looked at: drawing takes longer than the rest."""

    def call(plotted: bool = False, **given: Any) -> list[Row]:
        if not plotted:
            for drawing in ("curves", "heat_maps", "sheet"):
                monkeypatch.setattr(sweep_module, drawing, lambda path, *_: path.touch())
        over = [axis(name, values) for name in ("scale", "steps") if (values := given.pop(name, None)) is not None]
        over += [parse_axis(text) for text in given.pop("over", [])]
        fixed = {name: given.pop(name) for name in Settings.model_fields if name in given}
        how = settings(steps=given.pop("plan", None), **fixed)
        measured = Measurement(cache=tmp_path / "cache", repeats=given.pop("repeats", 1), **given.pop("how", {}))
        model, out = given.pop("model", None) or tiny.diffusion(), given.pop("out", tmp_path / "out")
        reference, extractor = given.pop("reference", None) or tiny.reference(), given.pop("extractor", None) or tiny.extractor()
        subject = Subject(model, reference, given.pop("guides", {"classifier": tiny.classifier()}))
        return sweep(lambda _: subject, extractor, out, over=over, how=how, run=measured, **{"count": 12, **given})

    return call


def lines(out: Path) -> list[dict[str, str]]:
    with open(out / "sweep.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_sweep_writes_numbers_a_plot_and_a_grid_for_each_scale(
    run: Callable[..., list[Row]], asked: list[Request], tmp_path: Path
) -> None:
    rows = run(plotted=True, scale=(5, 0, 0.5), guidance=[Classifier()], sampler=DDIM(), seed=4)
    out = tmp_path / "out"
    assert [row.values for row in rows] == [("5",), ("0",), ("0.5",)]
    assert {path.name for path in out.iterdir()} == {
        "sweep.csv", "sweep.png", "samples-0.png", "samples-0.5.png", "samples-5.png",
    }  # fmt: skip
    table = lines(out)
    assert [line["scale"] for line in table] == ["0", "0.5", "5"]
    for row in rows:
        (line,) = (line for line in table if line["scale"] == row.name)
        assert {name: float(line[name]) for name in row.numbers} == dict(row.numbers)
        assert (line["count"], line["seed"], line["sampler"], line["guidance"]) == (
            "12",
            "4",
            "ddim:eta=0.0,clipped=true",
            "classifier:form=mean,sees=noisy",
        )
        assert line["notes"] == row.notes
        assert "12 measured pictures are too few" in row.notes
        assert (line["steps"], line["step_count"], line["extractor"]) == ("2", "2", "tiny")
    assert rows[0].numbers["frechet"] != rows[1].numbers["frechet"]
    # The same classes and seeds at every scale.
    assert len({(*request.labels, *request.seeds) for request in asked}) == 2
    assert asked[0].labels == [label for label in range(3) for _ in range(8)]
    assert asked[0].seeds == list(range(4, 12)) * 3
    grids = [np.asarray(Image.open(out / f"samples-{row.name}.png")) for row in rows]
    assert grids[0].shape == (3 * 144 - 16, 8 * 144 - 16, 3)
    assert not np.array_equal(grids[0], grids[1])


def test_the_plot_is_a_picture_with_something_in_it(run: Callable[..., list[Row]], tmp_path: Path) -> None:
    run(plotted=True, scale=(0, 1, 30), guidance=[CFG()])
    pixels = np.asarray(Image.open(tmp_path / "out/sweep.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 400
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    for top in (0, height):
        for left in (0, width):
            panel = pixels[top : top + height, left : left + width].reshape(-1, 3).astype(int)
            assert (panel.max(1) - panel.min(1) > 60).sum() > 100  # a coloured line
            assert (panel.max(1) < 60).sum() > 100  # letters


def test_a_sweep_goes_on_where_its_csv_ends(run: Callable[..., list[Row]], asked: list[Request], tmp_path: Path) -> None:
    first = run(scale=(0, 1), guidance=[CFG()])
    assert len(asked) == 4
    again = run(scale=(0, 1), guidance=[CFG()])
    assert again == first
    assert len(asked) == 4
    more = run(scale=(3, 1), guidance=[CFG(scale=7.0)])
    assert more[1] == first[1]
    assert len(asked) == 6
    assert [line["scale"] for line in lines(tmp_path / "out")] == ["0", "1", "3"]
    (tmp_path / "out/samples-1.png").unlink()
    run(scale=(1,), guidance=[CFG()])
    assert len(asked) == 7
    assert (tmp_path / "out/samples-1.png").exists()


def test_an_interrupted_sweep_keeps_what_it_has(
    run: Callable[..., list[Row]], asked: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(scale=(0, 1), guidance=[CFG()], out=tmp_path / "whole")
    asked.clear()
    original: Callable = sweep_module.measure

    def killed(model: Diffusion, request: Request, *rest: Any, **more: Any) -> Any:
        if request.settings.guidance[0].scale == 1:  # type: ignore[union-attr]
            raise KeyboardInterrupt
        return original(model, request, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            run(scale=(1,), guidance=[CFG()])  # before there is any row
        with pytest.raises(KeyboardInterrupt):
            run(scale=(0, 1), guidance=[CFG()])
    assert [line["scale"] for line in lines(tmp_path / "out")] == ["0"]
    asked.clear()
    rows = run(scale=(0, 1), guidance=[CFG()])
    assert all(request.settings.guidance[0].scale == 1 for request in asked)  # type: ignore[union-attr]
    for one, other in zip(rows, whole, strict=True):
        assert one.numbers["frechet"] == other.numbers["frechet"]


def test_a_sweep_over_steps(run: Callable[..., list[Row]], tmp_path: Path) -> None:
    rows = run(steps=["trailing:4", "2", "2,2"], guidance=[CFG(scale=2.0), Clamp()])
    assert [(row.name, row.steps) for row in rows] == [(text, text) for text in ("trailing:4", "2", "2,2")]
    assert [row.step_count for row in rows] == [4, 2, 4]
    table = lines(tmp_path / "out")
    assert [line["steps"] for line in table] == ["2", "2,2", "trailing:4"]
    assert {line["guidance"] for line in table} == {"cfg:scale=2.0,rescale=0.0 clamp:limit=1.0,folded=false"}
    assert (tmp_path / "out/samples-trailing-4.png").exists()
    assert (tmp_path / "out/samples-2,2.png").exists()
    assert len({row.numbers["frechet"] for row in rows}) == 3


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"count": 13}, "count is '12' there and '13' here"),
        ({"seed": 1}, "seed"),
        ({"plan": "3"}, "steps is '2' there and '3' here"),
        ({"sampler": DDIM()}, "sampler"),
        ({"guidance": [Classifier()]}, "guidance"),
        ({"guidance": [CFG(rescale=0.5)]}, "guidance"),
        ({"model": tiny.diffusion(seed=8)}, "model_digest"),
        ({"extractor": tiny.extractor(seed=8)}, "extractor_digest"),
        ({"reference": tiny.reference(seed=8)}, "reference_fingerprint"),
        ({"over": ["steps=2"], "scale": None}, "swept"),
        ({"over": ["steps=2"]}, "swept"),
        ({"over": ["cfg.rescale=0.5"], "scale": None}, "swept"),
        ({"repeats": 2}, "repeats"),
        ({"temperature": 0.5}, "temperature is '1' there and '0.5' here"),
    ],
)
def test_a_folder_with_another_sweep_is_refused_and_left_alone(
    run: Callable[..., list[Row]], tmp_path: Path, changed: dict[str, Any], name: str
) -> None:
    run(scale=(1,), guidance=[CFG()])
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(Problem, match=f"holds another sweep: {name}"):
        run(**{"scale": (2,), "guidance": [CFG()], **changed})
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_folder_with_something_else_is_refused(run: Callable[..., list[Row]], asked: list[Request], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").touch()
    with pytest.raises(Problem, match=r"holds something else \(model.safetensors\)"):
        run(scale=(1,), guidance=[CFG()])
    (out / "model.safetensors").unlink()
    (out / "sweep.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Problem, match=r"cannot be read as a sweep's: .*: name another folder, or remove it"):
        run(scale=(1,), guidance=[CFG()])
    (out / "sweep.csv").write_bytes(b"\xff\x00")
    with pytest.raises(Problem, match=r"cannot be read as a sweep's: .*: name another folder, or remove it"):
        run(scale=(1,), guidance=[CFG()])
    (tmp_path / "file").touch()
    with pytest.raises(Problem, match="is a file: name a folder"):
        run(scale=(1,), guidance=[CFG()], out=tmp_path / "file")
    assert not asked


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "none is given"),
        ({"over": ["steps=2", "scale=1", "clamp=true"], "guidance": [CFG()]}, "one setting or two"),
        ({"over": ["steps=2", "steps=3"]}, "two different ones"),
        ({"steps": ("2",), "plan": "3"}, "steps is what this sweep goes over"),
        ({"over": ["guidance=cfg none"], "guidance": [CFG()]}, "guidance is what this sweep goes over"),
        ({"over": ["sampler=ddim,ddmi"]}, "did you mean 'ddim'"),
        ({"over": ["sampler.etta=1"], "sampler": DDIM()}, "no field 'etta': choose from kind, eta, clipped; did you mean 'eta'"),
        ({"over": ["interval.low=1"], "guidance": [CFG()]}, "needs one guidance interval, and guidance is cfg"),
        ({"over": ["interval.low=1,5"], "guidance": [CFG(), Interval(low=0.1, high=3)]}, "low 5 has to be below high 3"),
        (
            {"over": ["stps=1"]},
            "unknown setting 'stps' to sweep over: choose from model, prior, guidance, .*; did you mean 'steps'",
        ),
        ({"over": ["scale=1", "guidance=cfg none"]}, "exactly one guidance that has a scale, such as cfg, and guidance is none"),
        ({"over": ["clamp=maybe"]}, "clamp is 'maybe'"),
        ({"over": ["temperature=0.9,0"]}, "temperature is 0"),
        ({"over": ["truncation=0.5,none"]}, "truncation is 0.5: it bounds a GAN's latents"),
        ({"over": ["temperature=none"]}, "temperature is None"),
        ({"over": ["temperature=0.9,1"], "temperature": 0.8}, "temperature is what this sweep goes over"),
        ({"steps": ("2", "2")}, "steps: 2 is given twice"),
        ({"steps": ("2", "60")}, "60 of them from a section of 50"),
        ({"steps": ("twenty",)}, "steps 'twenty'"),
        ({"scale": (1, -1), "guidance": [CFG()]}, "scale is -1"),
        ({"over": ["scale=one"], "guidance": [CFG()]}, "scale is 'one'"),
        ({"over": ["scale=nan"], "guidance": [CFG()]}, "scale is 'nan'"),
        ({"scale": (1, 1.0), "guidance": [CFG()]}, "scale: 1 is given twice"),
        ({"scale": (1,)}, "guidance is none"),
        ({"scale": (1,), "guidance": [Clamp()]}, "guidance is clamp"),
        ({"scale": (1,), "guidance": [CFG(), Classifier()]}, "guidance is cfg classifier"),
        ({"scale": (1,), "guidance": [Classifier()], "guides": {}}, "needs a noise-aware classifier"),
        ({"scale": (1,), "guidance": [CFG()], "model": tiny.diffusion(droppable=False)}, "cfg needs a model"),
        ({"scale": (1,), "guidance": [CFG()], "repeats": 0}, "repeats is 0"),
        ({"scale": (1,), "guidance": [CFG()], "count": 3}, "needs at least 4 pictures: 3 measured"),
    ],
)
def test_what_cannot_be_swept_is_a_problem_and_writes_nothing(
    run: Callable[..., list[Row]], tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(Problem, match=words):
        run(**settings)
    assert not (tmp_path / "out").exists()


def test_a_sweep_over_two_settings_has_a_row_for_each_pair_and_goes_on(
    run: Callable[..., list[Row]], asked: list[Request], tmp_path: Path
) -> None:
    rows = run(over=["scale=0,2", "steps=3 2,2"], guidance=[CFG()])
    assert [row.values for row in rows] == [("0", "3"), ("0", "2,2"), ("2", "3"), ("2", "2,2")]
    assert [(line["scale"], line["steps"], line["step_count"]) for line in lines(tmp_path / "out")] == [
        ("0", "3", "3"), ("0", "2,2", "4"), ("2", "3", "3"), ("2", "2,2", "4"),
    ]  # fmt: skip
    assert len({row.numbers["frechet"] for row in rows}) == 4
    assert (tmp_path / "out/samples-2_2,2.png").exists()
    asked.clear()
    more = run(over=["scale=2,1", "steps=3"], guidance=[CFG()])
    assert more[0] == rows[2] and len(asked) == 2
    assert len(lines(tmp_path / "out")) == 5
    # As the sweep over one of the two has it.
    (alone,) = run(scale=(2,), guidance=[CFG()], plan="3", out=tmp_path / "alone")
    assert alone.numbers["frechet"] == rows[2].numbers["frechet"]


def test_the_scale_of_autoguidance_is_swept(run: Callable[..., list[Row]], asked: list[Request], tmp_path: Path) -> None:
    run(over=["scale=0,2"], guidance=[Autoguidance()], guides={"weak": tiny.diffusion(5)})
    assert [request.settings.guidance for request in asked[1::2]] == [(Autoguidance(scale=scale),) for scale in (0.0, 2.0)]
    assert {line["guide_digests"] for line in lines(tmp_path / "out")} == {f"weak={digest(tiny.diffusion(5))}"}


def test_temperature_is_swept_and_is_the_requests(run: Callable[..., list[Row]], asked: list[Request], tmp_path: Path) -> None:
    cool, plain = run(over=["temperature=0.5,1"])
    assert [request.settings.temperature for request in asked[1::2]] == [0.5, 1]
    assert [line["temperature"] for line in lines(tmp_path / "out")] == ["0.5", "1"]
    assert cool.numbers["frechet"] != plain.numbers["frechet"]
    (alone,) = run(over=["clamp=true"], temperature=0.5, out=tmp_path / "alone")
    assert alone.numbers["frechet"] == cool.numbers["frechet"]


def test_quality_is_drawn_against_time_a_curve_for_each_guidance(
    run: Callable[..., list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, Sequence[Curve]]] = []
    original = sweep_module.curves

    def noted(path: Path, title: str, x: Ticks, panels: dict[str, Sequence[Curve]], own: str) -> None:
        drawn.append(panels)
        original(path, title, x, panels, own)

    monkeypatch.setattr(sweep_module, "curves", noted)
    kinds = ("cfg", "cfg+interval:0.01,3", "classifier", "autoguidance")
    rows = run(
        plotted=True,
        over=[f"guidance={' '.join(kinds)}", "scale=1,2"],
        count=4,
        guides={"classifier": tiny.classifier(), "weak": tiny.diffusion(5)},
    )
    curves = {curve.name: curve for curve in drawn[-1]["Fréchet distance against time"]}
    assert set(curves) == set(kinds)
    for kind, curve in curves.items():
        mine = [row.numbers for row in rows if row.values[0] == kind]
        assert list(curve.values) == [numbers["frechet"] for numbers in mine]
        assert curve.places == pytest.approx([1 / numbers["images_per_second"] for numbers in mine])
    run(plotted=True, over=["guidance=none cfg:2"], count=4, out=tmp_path / "names")
    assert [curve.name for curve in drawn[-1]["Fréchet distance against time"]] == ["none", "cfg:2"]


def test_whole_settings_take_effect_before_their_fields(run: Callable[..., list[Row]], asked: list[Request]) -> None:
    run(over=["scale=2", "guidance=cfg cfg+interval:0.01,3 classifier:form=score"])
    swept = [request.settings.guidance for request in asked[1::2]]
    assert swept == [(CFG(scale=2.0),), (CFG(scale=2.0), Interval(low=0.01, high=3.0)), (Classifier(scale=2.0, form="score"),)]
    asked.clear()


def test_fields_of_guidance_and_sampler_are_swept(run: Callable[..., list[Row]], asked: list[Request], tmp_path: Path) -> None:
    run(over=["interval.high=1,9", "sampler.eta=0,1"], guidance=[CFG(), Interval(low=0.01, high=2)], sampler=DDIM())
    pairs = [(request.settings.guidance[1], request.settings.sampler) for request in asked[1::2]]
    assert pairs == [(Interval(low=0.01, high=high), DDIM(eta=eta)) for high in (1.0, 9.0) for eta in (0.0, 1.0)]
    (line, *_) = lines(tmp_path / "out")
    assert (line["guidance"], line["sampler"]) == ("cfg:scale=3.0,rescale=0.0 interval:low=0.01", "ddim:clipped=true")
    assert (line["interval.high"], line["sampler.eta"]) == ("1", "0")


def test_what_a_reference_cannot_give_is_left_empty(run: Callable[..., list[Row]], tmp_path: Path) -> None:
    path = tmp_path / "stats.safetensors"
    keep(path, tiny.reference(), collect(tiny.reference(), tiny.extractor(), Collector({"moments"})), tiny.extractor())
    rows = run(over=["clamp=true,false"], reference=load(path), plotted=True)
    assert set(rows[0].numbers) == {"frechet", "score", "score_std", "seconds", "images_per_second"}
    assert {line["precision"] for line in lines(tmp_path / "out")} == {""}
    assert run(over=["clamp=true,false"], reference=load(path)) == rows


def test_repeats_give_intervals(run: Callable[..., list[Row]], tmp_path: Path) -> None:
    (row,) = run(over=["clamp=true"], repeats=2)
    assert row.intervals["frechet"] > 0
    (line,) = lines(tmp_path / "out")
    assert (line["clamp"], line["repeats"], float(line["frechet_interval"])) == ("true", "2", row.intervals["frechet"])
    assert run(over=["clamp=true"], repeats=2) == [row]


@pytest.mark.parametrize(
    "over", [["scale=0,1,30", "steps=2,3"], ["guidance=cfg:2 none", "steps=2,3"], ["guidance=cfg:2 none", "sampler=ddim,euler"]]
)
def test_two_settings_are_drawn(run: Callable[..., list[Row]], tmp_path: Path, over: list[str]) -> None:
    run(plotted=True, count=4, over=over, guidance=[CFG()] if "scale" in over[0] else [])
    pixels = np.asarray(Image.open(tmp_path / "out/sweep.png").convert("RGB")).astype(int)
    assert (pixels.max(2) - pixels.min(2) > 60).sum() > 1000
    whole = np.asarray(Image.open(tmp_path / "out/samples.png").convert("RGB")).astype(int)
    half = whole.shape[0] // 2, whole.shape[1] // 2
    for part in (whole[: half[0], : half[1]], whole[half[0] :, half[1] :]):
        assert (part.max(2) - part.min(2) > 60).mean() > 0.2


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("scale=0,1, 5,10.50,30", Axis("scale", ("0", "1", "5", "10.5", "30"))),
        ("steps=5 90,60,60 trailing:4", Axis("steps", ("5", "90,60,60", "trailing:4"))),
        ("steps=5,10", Axis("steps", ("5", "10"))),
        ("guidance=cfg:2 cfg:2+interval:0.1,3", Axis("guidance", ("cfg:2", "cfg:2+interval:0.1,3"))),
    ],
)
def test_axes_are_read_from_text(text: str, read: Axis) -> None:
    assert parse_axis(text) == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scale", "write it as setting=values"),
        ("=1,2", "write it as setting=values"),
        ("scale=", "is empty"),
        ("scale=1,,2", "is empty"),
        ("scale=1,2,1.0", "1 is given twice"),
    ],
)
def test_axes_that_cannot_be_read_are_a_problem(text: str, words: str) -> None:
    with pytest.raises(Problem, match=words):
        parse_axis(text)


def test_a_long_sweep_says_beforehand_how_long_it_takes_here(
    run: Callable[..., list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every value a grid of 24 pictures and 12 that are measured in batches of 4, two steps each: 10 seconds a batch."""
    seconds = itertools.count(0, 10)
    monkeypatch.setattr("lodestar.progress.Forecast", partial(Forecast, clock=lambda: float(next(seconds))))
    for scale, left in (((0, 1), "about 1.8 minutes"), ((0, 1, 2, 3), "about 4.8 minutes")):
        console = Console(record=True, width=200, file=io.StringIO())
        run(scale=scale, guidance=[CFG()], how={"batch_size": 4, "console": console}, out=tmp_path / f"{len(scale)}")
        assert [line for line in console.export_text().splitlines() if line] == [f"{left} to go here"]
