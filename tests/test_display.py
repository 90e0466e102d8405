"""Display in notebooks: tables, pictures and curves as HTML, all of it escaped, and pictures that are drawn as they go."""

from __future__ import annotations

import base64
import io
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import lodestar
from lodestar import display
from lodestar.config import Problem
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import AnySchedule, Linear, Respaced
from lodestar.evaluation.report import Report
from lodestar.evaluation.sweep import PLOT, Row
from lodestar.generators.optima import Optimum
from lodestar.images import load_png, sheet
from lodestar.python.plan import Planned
from lodestar.python.sweep import Swept
from lodestar.samplers import DDIM, DPMAdaptive
from tests.evaluation import tiny

MODEL = tiny.diffusion()
SCRIPT = "<script>alert('1')</script>&\""


def cells(html: str) -> list[list[str]]:
    """The cells of the tables in HTML, which is well-formed but for its open pictures."""
    whole = ElementTree.fromstring(f"<all>{re.sub(r'(<img[^>]*)>', r'<hr/>', html)}</all>")
    return [["".join(cell.itertext()) for cell in row] for row in whole.iter("tr")]


def pixels(png: bytes) -> Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png)))).permute(2, 0, 1)


def drawn(html: str) -> Tensor:
    found = re.search(r"base64,([^\"]+)", html)
    assert found
    return pixels(base64.b64decode(found[1]))


# -------------------------------------------------------------------------------------------------------------- samples


def test_samples_show_the_grid_and_what_made_it() -> None:
    made = MODEL.sample("dog", count=3, steps=4, guidance="cfg:2", sampler="ddim", seed=7)
    html = made._repr_html_()
    assert torch.equal(drawn(html), sheet(made.images))
    told = dict(map(tuple, cells(html)))
    assert told["seeds"] == "7 to 9" and told["steps"] == "4" and told["sampler"].startswith("ddim:")
    assert told["guidance"].startswith("cfg:scale=2.0") and "clamp" not in told


def test_all_text_is_escaped() -> None:
    made = MODEL.sample("dog", count=1, steps=2)
    asks = tuple(ask.replace(text=SCRIPT) for ask in made.request.asks)
    samples = replace(made, request=made.request.replace(asks=asks), origin=replace(made.origin, name=SCRIPT))
    report = Report({SCRIPT: 1.0}, 2, reference=SCRIPT, warnings=(SCRIPT,))
    model = tiny.diffusion()
    model.name = SCRIPT
    swept = Swept((SCRIPT,), (Row((SCRIPT,), "4", 4, {SCRIPT: 1.0}, {}),), Path(SCRIPT))
    for each in (samples, report, model, swept, lodestar.Cascade([model, tiny.diffusion(low_res=(8, 8))])):
        html = each._repr_html_()
        assert "<script" not in html and "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;&quot;" in html
    assert SCRIPT in [value for name, value in cells(samples._repr_html_()) if name == "prompt"]


def test_edited_samples_stand_beside_their_sources_as_in_an_album(tmp_path: Path) -> None:
    made = MODEL.edit("sdedit:0.5", MODEL.sample("dog", count=2, steps=2).images, label="cat", steps=4)
    made.save(tmp_path / "out")
    assert torch.equal(drawn(made._repr_html_()), load_png(tmp_path / "out" / "grid.png"))
    assert torch.equal(made.steps().images[-1], made.images)


@pytest.mark.parametrize("how", [{}, {"best_of": 2, "guides": {"judge": tiny.classifier()}}, {"start": torch.randn(3, 3, 8, 8)}])
def test_steps_are_those_that_were_taken(how: dict[str, Any]) -> None:
    made = MODEL.sample("dog", count=3, steps=4, batch_size=2, **how)
    steps = made.steps()
    assert (len(steps), len(steps[0]), steps[-1][0].tobytes()) == (4, 3, made[0].tobytes())
    assert torch.equal(steps.images[-1], made.images)
    assert not torch.equal(steps.images[0], steps.images[1])
    assert pixels(steps._repr_png_()).shape == sheet(torch.zeros(12, 3, 8, 8, dtype=torch.uint8), 4).shape


def test_start_noise_of_candidates_is_kept_with_the_surest() -> None:
    start = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    made = MODEL.sample("dog", count=2, steps=3, best_of=2, guides={"judge": tiny.classifier()}, start=start)
    assert torch.equal(made.steps().images[-1], made.images)


def test_steps_of_a_cascade_and_of_a_sampler_that_chooses_them() -> None:
    up = tiny.diffusion(low_res=(8, 8))
    steps = lodestar.Cascade([MODEL, lodestar.Stage(up, steps=2)]).sample("dog", count=3, steps=2, batch_size=2).steps()
    assert len(steps) == 4 and {len(images) for images in steps.images} == {3} and steps._repr_png_()
    made = MODEL.sample("dog", count=2, sampler=DPMAdaptive(), steps="logsnr:5")
    assert torch.equal(made.steps().images[-1], made.images)


def test_samples_of_an_unknown_model_have_no_steps() -> None:
    made = replace(MODEL.sample("dog", count=1, steps=2), again=None)
    with pytest.raises(Problem, match="do not know the model that made them"):
        made.steps()


# --------------------------------------------------------------------------------------------------------------- frames


@dataclass
class Notebook:
    """A notebook's display."""

    shown: list[bytes] = field(default_factory=list)
    updated: int = 0

    def display(self, item: Any, display_id: bool) -> Notebook:
        self.shown.append(item._repr_png_())
        return self

    def update(self, item: Any) -> None:
        self.updated += 1
        self.shown.append(item._repr_png_())


def test_frames_are_those_of_the_samples_and_refused_at_once() -> None:
    frames = list(MODEL.frames("dog", count=3, steps=4, batch_size=2))
    assert [(frame.first, frame.step) for frame in frames] == [(first, step) for first in (0, 2) for step in (1, 2, 3, 4)]
    images = torch.cat([frame.images for frame in frames if frame.final])
    assert torch.equal(images, MODEL.sample("dog", count=3, steps=4).images)
    with pytest.raises(Problem, match="bird"):
        MODEL.frames("bird")


@pytest.mark.parametrize(("kernel", "expected"), [(True, 4), (False, 0)])
def test_a_notebook_draws_frames_as_they_go(kernel: bool, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook()
    shell = SimpleNamespace(kernel=1) if kernel else SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=notebook.display))
    for count, frame in enumerate(MODEL.frames("dog", count=2, steps=4), start=1):
        assert len(notebook.shown) == (count if kernel else 0)
        assert not kernel or torch.equal(pixels(notebook.shown[-1]), sheet(frame.images))
    assert (len(notebook.shown), notebook.updated) == (expected, max(expected - 1, 0))


# --------------------------------------------------------------------------------------------- models, reports, sweeps


def test_a_model_shows_the_parameters_of_its_parts() -> None:
    html = MODEL._repr_html_()
    rows = cells(html)
    total = sum(parameter.numel() for parameter in MODEL.parameters())
    assert repr(MODEL) in html and rows[-1][:2] == ["all", f"{total:,}"]
    assert sum(int(row[1].replace(",", "")) for row in rows[1:-1]) == total
    middle = sum(parameter.numel() for parameter in MODEL.denoiser.network.middle.parameters())
    assert [f"{middle:,}"] == [row[1] for row in rows if row[0] == "denoiser.network.middle"]
    assert "parameters" in tiny.classifier()._repr_html_()


def test_a_report_shows_its_table() -> None:
    report = Report({"frechet": 1.25}, 16, sampler="ddim")
    assert ["frechet", "1.25"] in cells(report._repr_html_()) and ["sampler", "ddim"] in cells(report._repr_html_())


def test_a_sweep_shows_its_table_and_its_curves(tmp_path: Path) -> None:
    swept = Swept(("scale",), (Row(("1",), "4", 4, {"frechet": 1.5}, {}),), tmp_path)
    assert cells(swept._repr_html_()) == [["scale", "frechet"], ["1", "1.5"]] and "<img" not in swept._repr_html_()
    Image.new("RGB", (5, 4)).save(tmp_path / PLOT)
    assert drawn(swept._repr_html_()).shape == (3, 4, 5)


# -------------------------------------------------------------------------------------------------- plans and schedules


def marks(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]


@pytest.mark.parametrize("schedule", [kind for kind in get_args(get_args(AnySchedule)[0]) if kind is not Respaced])
def test_schedules_are_drawn_falling(schedule: type[Any]) -> None:
    svg = ElementTree.fromstring(schedule(timesteps=40)._repr_html_())
    (line,) = svg.iter("{http://www.w3.org/2000/svg}polyline")
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert heights == sorted(heights) and len(heights) >= 39 and max(heights) > min(heights) + 100


def test_plans_are_drawn_on_the_curve() -> None:
    schedule = Linear(timesteps=50)
    found = marks(parse_plan("5").drawn(schedule))
    assert len(found) == 5 and found == sorted(found, reverse=True)
    assert len(marks(parse_plan("trailing:4,clean=false").drawn(schedule))) == 5
    line = re.search(r'points="([^"]+)"', schedule._repr_html_())
    assert line and {f"{x:.1f},{y:.1f}" for x, y in found} <= set(line[1].split())  # all of 50 points are drawn
    assert len(marks(parse_plan("karras:10")._repr_html_() or "")) == 10
    assert parse_plan("optimized:8")._repr_html_() is None


def test_optimised_plans_are_drawn_on_the_model_s_schedule() -> None:
    found = Optimum(steps=2, plan="sigmas:80,1", sampler=DDIM(), error=1, usual="2", usual_error=2, fine="trailing:9", pictures=4)
    html = Planned((found,), Linear(timesteps=50))._repr_html_()
    assert cells(html)[1] == ["2", "1", "2", "2"] and len(marks(html)) == 2 and "on linear" in html


def test_a_printed_table_keeps_its_headings_and_cells() -> None:
    assert cells(display.table([("a", 1)], ("x", "y"))) == [["x", "y"], ["a", "1"]]
    assert "<thead" not in display.table([("a",)], ("",))
