"""`lodestar.compare`: what is trained, measured, kept and drawn, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lodestar
from lodestar.__main__ import main
from lodestar.evaluation import trilemma
from lodestar.evaluation.plot import _brief
from lodestar.evaluation.trilemma import Row, Trilemma
from lodestar.presets import RUNS
from lodestar.python import compare as module
from lodestar.python import desk
from lodestar.training.folder import run_in
from lodestar.training.pace import pace
from tests.evaluation import tiny

GIVEN: Any = {"extractor": tiny.extractor(), "count": 8}


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the rest, and has a test of its own."""
    monkeypatch.setattr(trilemma, "marked", lambda path, *_: path.touch())


@pytest.fixture
def trained(tmp_path: Path, _undrawn: None) -> Trilemma:
    return lodestar.compare(
        ["digits.vae", "digits.vqvae", "digits.gan", "digits,steps=trailing:2,guidance=cfg:2"],
        images=64,
        out=tmp_path / "out",
        **GIVEN,
    )


def test_every_number_is_there_where_it_exists(trained: Trilemma, tmp_path: Path) -> None:
    vae, vqvae, gan, diffusion = trained.rows
    drawn = {"frechet", "precision", "recall", "coverage", "drawn_per_second", "evaluations"}
    assert {"bpd", "mse", *drawn} <= vae.numbers.keys()
    assert vqvae.numbers.keys() == {"mse", "mse_error"} and "draws no pictures" in vqvae.notes[0]
    assert drawn <= gan.numbers.keys() and not {"bpd", "mse"} & gan.numbers.keys()
    assert {"bpd", *drawn} <= diffusion.numbers.keys() and "mse" not in diffusion.numbers
    assert [row.numbers["evaluations"] for row in (vae, gan, diffusion)] == [1, 1, 4], "two steps of two evaluations"
    assert [row.kind for row in trained.rows] == ["VAE", "VQ-VAE", "GAN", "diffusion"]
    assert all(row.images_seen == 64 for row in trained.rows)
    runs = [run_in(tmp_path / "out" / name) for name in ("digits.vae", "digits.gan", "digits")]
    assert {run.data.held_out for run in runs if run is not None} == {module.HELD_OUT}
    assert trained.reference_count == round(module.HELD_OUT * 1797), "all are measured against the pictures that none has seen"


def test_the_same_call_goes_on(trained: Trilemma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    original = desk.measure

    def noted(*given: Any, **more: Any) -> Any:
        measured.append(more["run"].title)
        return original(*given, **more)

    monkeypatch.setattr(desk, "measure", noted)
    again = lodestar.compare([row.model for row in trained.rows], images=64, out=tmp_path / "out", **GIVEN)
    assert again == trained and not measured
    more = lodestar.compare(["digits.vae", "digits,steps=trailing:3"], images=64, out=tmp_path / "out", **GIVEN)
    assert more.rows[:-1] == trained.rows and measured == ["digits,steps=trailing:3"]
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == json.loads(more.to_json())
    for change, told in (({"images": 72}, "budget"), ({"images": 64, "count": 9}, "count"), ({"images": 64, "seed": 1}, "seed")):
        with pytest.raises(lodestar.Problem, match=f"holds another (comparison: {told}|run)"):
            lodestar.compare(["digits.vae"], out=tmp_path / "out", **{**GIVEN, **change})


@pytest.mark.usefixtures("_undrawn")
def test_models_of_ones_own_need_no_budget(tmp_path: Path) -> None:
    for seed in (1, 2):
        tiny.diffusion(seed).save(tmp_path / f"{seed}.safetensors")
    pictures = tiny.folder(tmp_path / "pictures", 12)
    models = [f"{tmp_path / name}.safetensors" for name in ("1", "2")]
    found = lodestar.compare(models, pictures, out=tmp_path / "out", **GIVEN)
    assert [row.model for row in found.rows] == models and not found.budget
    report = lodestar.evaluate(models[0], pictures, **GIVEN)
    assert found.rows[0].numbers["frechet"] == report.numbers["frechet"], "there is one way to measure"
    table = found.markdown().splitlines()
    assert table[2].startswith("| model | kind |") and table[4].startswith(f"| {models[0]} | diffusion |")


@pytest.mark.usefixtures("_undrawn")
def test_a_prior_is_trained_after_its_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    (row,) = lodestar.compare("digits.vqvae_prior,codes=digits.vqvae", images=64, out=tmp_path / "out", **GIVEN).rows
    assert row.numbers["evaluations"] == 4, "a code for each of 2×2 places"
    assert "mse" in row.numbers and "bpd" not in row.numbers and "bound no likelihood" in " ".join(row.notes)
    assert run_in(tmp_path / "out" / "digits.vqvae") is not None


@pytest.mark.usefixtures("_undrawn")
def test_seconds_become_images_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pace", lambda *_: 1_000.0)
    (row,) = lodestar.compare("digits.vqvae", seconds=0.2, out=tmp_path / "out", **GIVEN).rows
    assert row.images_seen == 256, "200, in whole batches"
    monkeypatch.setattr(module, "pace", lambda *_: pytest.fail("the run has begun"))
    assert lodestar.compare("digits.vqvae", seconds=0.2, out=tmp_path / "out", **GIVEN).rows == (row,)


def test_the_pace_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lodestar.training.pace.MEASURED", 0.0)
    assert pace(RUNS["digits.vqvae"](), tmp_path / "run") > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("models", "given", "told"),
    [
        ([], {}, "no models are given"),
        (["digts"], {"images": 9}, "did you mean 'digits'"),
        (["digits"], {}, "none is given"),
        (["digits"], {"images": 9, "seconds": 9}, "both are given"),
        (["cifar10_weak"], {"images": 9}, "images has no effect"),
        (["digits", "cifar10_weak"], {"images": 9}, "1×8×8.*3×32×32"),
        (["digits", "digits_classifier"], {"images": 9}, "a model that makes pictures is needed"),
        (["shapes.prior"], {"images": 9}, "makes no pictures of its own"),
        (["digits", "cifar10.gan"], {"images": 9}, "cifar10.gan: no data 'cifar10-train.parquet'"),
        (["digits,stps=3"], {"images": 9}, "unknown setting 'stps'.*did you mean 'steps'"),
        (["digits,steps=x"], {"images": 9}, "digits,steps=x: .*steps 'x'"),
        (["digits.gan,steps=3"], {"images": 9}, "digits.gan,steps=3: steps has no effect"),
        (["digits.vqvae,temperature=0.5"], {"images": 9}, "draws no pictures"),
        (["digits.vqvae_prior"], {"images": 9}, "no VQ-VAE is named"),
        (["digits,codec=digits.ae"], {"images": 9}, "multiples of 2"),
        (["cifar10_weak,codec=digits.ae"], {}, "codec has no effect"),
        (["digits"], {"images": 9, "count": 2}, "needs at least 4 pictures"),
        (["digits"], {"images": 0}, "images"),
        (["digits"], {"images": 9, "dta": "x"}, "unknown setting 'dta'"),
    ],
)
def test_bad_input_is_refused_before_any_work(models: list[str], given: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(lodestar.Problem, match=told) as raised:
        lodestar.compare(models, out=tmp_path / "out", **{**GIVEN, **given})
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text("{}")
    with pytest.raises(lodestar.Problem, match="cannot be read as a comparison's"):
        lodestar.compare("digits", images=9, out=tmp_path, **GIVEN)


def test_the_command_draws_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.diffusion().save(tmp_path / "mine.safetensors")
    tiny.classifier(2).save(tmp_path / "features.safetensors")
    pictures = tiny.folder(tmp_path / "pictures", 12)
    words = [
        "compare",
        tmp_path / "mine.safetensors",
        f"{tmp_path / 'mine.safetensors'},steps=3",
        "--reference",
        pictures,
        "--count",
        6,
    ]
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "--extractor", str(tmp_path / "features.safetensors"), "--out", str(tmp_path / "out")])
    assert not end.value.code
    assert capsys.readouterr().out.strip().endswith("out/compare.png")
    assert (tmp_path / "out" / "compare.png").read_bytes()[:4] == b"\x89PNG"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.json", "compare.md", "compare.png"}


def test_rows_of_other_weights_differ() -> None:
    row = Row("a", "GAN", "1", "float32", {}, 1, None, None, "", {"frechet": 1.0})
    assert row.same(Row("a", "GAN", "1", "float32", {}, 1, 9, 1.0, "", {}))
    assert not row.same(Row("a", "GAN", "2", "float32", {}, 1, None, None, "", {}))


def test_a_long_name_in_the_picture_loses_its_settings_unless_they_tell_it_from_another() -> None:
    prior, long = "digits.vqvae_prior,codes=digits.vqvae", "digits,steps=trailing:4,sampler=ancestral"
    names = [prior, "digits", long]
    assert [_brief(name, names) for name in names] == ["digits.vqvae_prior", "digits", f"…{long[-27:]}"]
