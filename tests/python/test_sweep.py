"""`lodestar.sweep`: what is gone through is given in every form, and the table is the CSV's."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import lodestar
from lodestar.__main__ import main
from lodestar.evaluation import sweep as drawing
from lodestar.python.sweep import axes
from tests.evaluation import tiny


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the rest, and has tests of its own."""
    for name in ("curves", "heat_maps", "sheet"):
        monkeypatch.setattr(drawing, name, lambda path, *_: path.touch())


GIVEN: Any = {"reference": tiny.reference(), "extractor": tiny.extractor(), "count": 4, "steps": 2}


def test_a_sweep_is_rows_a_table_and_a_folder(tmp_path: Path) -> None:
    found = lodestar.sweep(tiny.diffusion(), over={"scale": [1, 3.5]}, guidance="cfg", **GIVEN)
    assert (found.names, found.folder) == (("scale",), Path("out/sweep-model"))
    assert [row.values for row in found.rows] == [("1",), ("3.5",)]
    assert {path.name for path in found.folder.iterdir()} == {"sweep.csv", "sweep.png", "samples-1.png", "samples-3.5.png"}
    lines = str(found).splitlines()
    assert lines[0].split()[:3] == ["scale", "frechet", "score"]
    assert [line.split()[0] for line in lines[2:]] == ["1", "3.5"]
    with open(found.folder / "sweep.csv", encoding="utf-8", newline="") as file:
        assert [float(line["frechet"]) for line in csv.DictReader(file)] == [row.numbers["frechet"] for row in found.rows]


def untimed(table: str) -> list[dict[str, str]]:
    """The rows of a CSV, without what the clock decides."""
    rows = csv.DictReader(table.splitlines())
    return [{name: value for name, value in row.items() if name not in ("seconds", "images_per_second")} for row in rows]


def test_the_command_gives_the_same_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.diffusion().save("mine.safetensors")
    tiny.classifier(2).save("features.safetensors")
    tiny.folder(tmp_path / "pictures", 12)
    lodestar.sweep(
        "mine.safetensors", "pictures", over="steps=2,3", extractor="features.safetensors", count=4, guidance="cfg:2", out="a"
    )
    words = "--reference pictures --over steps=2,3 --extractor features.safetensors --count 4 --guidance cfg:2 --out b"
    with pytest.raises(SystemExit):
        main(["sweep", "mine.safetensors", *words.split()])
    assert capsys.readouterr().out.strip().endswith("b/sweep.png")
    mine, theirs = (untimed((tmp_path / name / "sweep.csv").read_text()) for name in "ab")
    assert mine == theirs and len(mine) == 2
    lodestar.sweep("mine.safetensors", "pictures", over="steps=2,3", extractor="features.safetensors", count=4, guidance="cfg:2")
    assert Path("out/sweep-mine/sweep.csv").exists()


def test_values_are_texts_numbers_and_objects() -> None:
    given = {
        "guidance": ["cfg:2", lodestar.CFG(scale=3.0), [lodestar.CFG(scale=2.0), lodestar.Interval(low=0.3, high=5.0)], None],
        "sampler": ["ddim", lodestar.DDIM(eta=0.5)],
    }
    assert [one.values for one in axes(given)] == [
        (
            "cfg:2", "cfg:scale=3.0,rescale=0.0", "cfg:scale=2.0,rescale=0.0+interval:low=0.3,high=5.0", "none",
        ),
        ("ddim", "ddim:eta=0.5,clipped=true"),
    ]  # fmt: skip
    assert axes({"clamp": (True, False), "steps": [5, "trailing:5"]}) == axes(["clamp=true,false", "steps=5 trailing:5"])
    assert axes({"scale": (0.5, 2)}) == axes("scale=0.5,2") == axes(axes("scale=0.5,2"))


def test_objects_are_swept_over() -> None:
    over = {"guidance": [None, [lodestar.CFG(scale=2.0), lodestar.Interval(low=0.0, high=50.0)]], "clamp": [True, False]}
    rows = lodestar.sweep(tiny.diffusion(), over=over, out="a", **GIVEN).rows
    assert [row.values[0] for row in rows] == ["none"] * 2 + ["cfg:scale=2.0,rescale=0.0+interval:low=0.0,high=50.0"] * 2
    assert rows[0].numbers["frechet"] != rows[2].numbers["frechet"]


def test_models_are_swept_each_with_its_own_pictures_and_guides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.diffusion().save("small.safetensors")
    tiny.diffusion(5).save("other.safetensors")
    tiny.classifier(2).save("features.safetensors")
    tiny.classifier().save("mine.safetensors")
    tiny.folder(tmp_path / "pictures", 12)
    words = (
        "--over model=small.safetensors,other.safetensors --over scale=1,3 --guidance classifier --classifier mine.safetensors"
    )
    usual = "--reference pictures --extractor features.safetensors --count 4 --steps 2"
    with pytest.raises(SystemExit):
        main(["sweep", *words.split(), *usual.split()])
    assert capsys.readouterr().out.strip().endswith("out/sweep-models/sweep.png")
    rows = list(csv.DictReader((tmp_path / "out/sweep-models/sweep.csv").read_text().splitlines()))
    assert [(row["model"], row["scale"]) for row in rows] == [
        (f"{name}.safetensors", scale) for name in ("small", "other") for scale in ("1", "3")
    ]
    assert len({row["model_digest"] for row in rows}) == 2 and len({row["frechet"] for row in rows}) == 4
    assert (tmp_path / "out/sweep-models/samples.png").exists()
    alone = lodestar.sweep(
        "other.safetensors", "pictures", over="scale=3", extractor="features.safetensors", count=4, steps=2,
        guidance="classifier", guides={"classifier": lodestar.load("mine.safetensors", "cpu")},
    )  # fmt: skip
    assert alone.rows[0].numbers["frechet"] == float(rows[3]["frechet"])
    # A further model goes on from the rows that stand there.
    tiny.diffusion(6).save("third.safetensors")
    again = lodestar.sweep(
        None, "pictures", over={"model": ["other.safetensors", "third.safetensors"], "scale": [3]}, out="out/sweep-models",
        extractor="features.safetensors", count=4, steps=2, guidance="classifier",
        guides={"classifier": lodestar.load("mine.safetensors", "cpu")},
    )  # fmt: skip
    assert again.rows[0].numbers["frechet"] == float(rows[3]["frechet"])
    Path("other.safetensors").unlink()
    tiny.diffusion(7).save("other.safetensors")
    with pytest.raises(SystemExit):
        main(["sweep", *words.split(), *usual.split()])
    assert "holds another sweep: model_digest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"over": {"scale": 3}}, "sweep over scale: its values are 3: give a list of them"),
        ({"over": {"scale": "1,2"}}, "sweep over scale: its values are '1,2': give a list"),
        ({"over": {}}, "one setting or two different ones: none is given"),
        ({"over": {"scle": [1, 2]}, "guidance": "cfg"}, "unknown setting 'scle'"),
        ({"over": "steps"}, "write it as setting=values"),
        ({"over": {"model": ["cifar10"]}}, "model is what this sweep goes over"),
        ({"over": {"prior": ["text"]}}, "prior 'text' is for a bundle of a decoder, a CLIP and priors"),
        ({"over": {"steps": [2, 3]}, "guides": {"weak": None}, "steps": None}, "guides: 'weak' has no effect"),
    ],
)
def test_what_is_wrong_is_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(lodestar.Problem, match=said):
        lodestar.sweep(tiny.diffusion(), **GIVEN | given)
