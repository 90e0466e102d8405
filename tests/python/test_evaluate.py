"""`lodestar.evaluate` and `lodestar.bpd`: a name, a model, pictures of any kind; the same numbers as the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lodestar
from lodestar.__main__ import main
from lodestar.evaluation.kept import keep
from lodestar.evaluation.likelihood import BPD
from lodestar.evaluation.reference import collect
from lodestar.evaluation.statistics import Collector
from lodestar.guidance import Classifier
from lodestar.python import evaluate as module
from lodestar.samplers import DDIM
from tests.evaluation import tiny

EXTRACTOR = tiny.extractor()
GIVEN: Any = {"reference": tiny.reference(), "extractor": EXTRACTOR, "metrics": ["frechet", lodestar.metrics.PrecisionRecall()]}


def test_a_model_is_measured_by_its_name_and_as_it_is() -> None:
    tiny.diffusion().save("mine.safetensors")
    model = lodestar.load("mine.safetensors", "cpu")
    reports = [
        lodestar.evaluate(each, **GIVEN, count=9, steps=2, sampler="ddim", guidance="cfg:2", seed=3)
        for each in ("mine.safetensors", Path("mine.safetensors"), model)
    ]
    first = reports[0]
    assert first.numbers.keys() >= {"frechet", "precision", "recall"} and first.count == 9
    assert (first.seed, first.steps, first.sampler, first.model_digest) == (3, "2", "ddim:eta=0.0,clipped=true", model.digest)
    assert all(report.numbers == first.numbers for report in reports)
    text = str(first)
    assert "frechet" in text and "model digest" in text and "\x1b" not in text and all(map(str.isprintable, text.splitlines()))


def test_the_command_gives_the_same_numbers(tmp_path: Path) -> None:
    tiny.diffusion().save("mine.safetensors")
    tiny.classifier(2).save("features.safetensors")
    tiny.folder(tmp_path / "pictures", 12)
    report = lodestar.evaluate(
        "mine.safetensors", "pictures", count=6, extractor="features.safetensors", metrics="frechet", seeds=2, steps=2, out="a",
    )  # fmt: skip
    words = "--reference pictures --count 6 --extractor features.safetensors --metric frechet --seeds 2 --steps 2 --out b"
    with pytest.raises(SystemExit):
        main(["evaluate", "mine.safetensors", *words.split()])
    mine, theirs = (json.loads((tmp_path / name / "report.json").read_text()) for name in "ab")
    assert mine["numbers"] == theirs["numbers"] == dict(report.numbers) and len(mine["runs"]) == 2


def test_pictures_are_measured_whatever_holds_them(tmp_path: Path) -> None:
    samples = tiny.diffusion().sample(count=9, steps=2)
    lodestar.save(samples, "album")
    (tmp_path / "plain").mkdir()
    for number in range(9):
        (tmp_path / "plain" / f"{number}.png").write_bytes((tmp_path / "album" / f"{number:05d}.png").read_bytes())
    every: list[Any] = [samples, "plain", Path("plain"), samples.pil(), lodestar.data.open_source("plain"), "album"]
    reports = [lodestar.evaluate(each, **GIVEN) for each in every]
    assert {report.count for report in reports} == {9}
    assert all(report.numbers["frechet"] == pytest.approx(reports[0].numbers["frechet"]) for report in reports)
    assert reports[0].pictures == "lodestar.Samples"
    direct = lodestar.evaluate(tiny.diffusion(), **GIVEN, count=9, steps=2)
    assert direct.numbers["frechet"] == pytest.approx(reports[0].numbers["frechet"])


def test_a_reference_may_be_kept_or_pictures_of_python() -> None:
    source = tiny.reference()
    keep("kept.safetensors", source, collect(source, EXTRACTOR, Collector()), EXTRACTOR)
    items = [(source[k][0].transpose(1, 2, 0), source[k][1]) for k in range(len(source))]
    every: list[Any] = [source, items, "kept.safetensors", Path("kept.safetensors")]
    found = [
        lodestar.evaluate(tiny.diffusion(), each, extractor=EXTRACTOR, metrics="frechet", count=6, steps=2).numbers["frechet"]
        for each in every
    ]
    assert found == pytest.approx([found[0]] * 4, rel=1e-6)


def test_the_reference_of_an_embedded_model_is_that_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = tiny.diffusion(), []
    model.name = "cifar10"
    original = module.open_reference
    monkeypatch.setattr(module, "open_reference", lambda spec, name, *rest, **more: (asked.append((spec, name)), original(
        tiny.reference(), name, *rest, **more))[1])  # fmt: skip
    lodestar.evaluate(model, extractor=EXTRACTOR, metrics="frechet", count=4, steps=2)
    lodestar.evaluate(model.sample(count=4, steps=2), extractor=EXTRACTOR, metrics="frechet")
    assert asked == [(None, "cifar10")] * 2


def test_a_folder_is_a_run_or_pictures(tmp_path: Path) -> None:
    run, pictures = tmp_path / "run", tiny.folder(tmp_path / "pictures", 6)
    run.mkdir()
    (run / "run.json").write_text("{}")
    with pytest.raises(lodestar.Problem, match=r"run holds no model.safetensors: a run writes it at its first checkpoint"):
        module.opened(run)
    tiny.diffusion().save(run / "model.safetensors")
    assert module.opened(run) is not None and module.opened(pictures) is None
    assert module.opened("batch.npz") is module.opened([1]) is None  # type: ignore[list-item]
    with pytest.raises(lodestar.Problem, match=r"no model 'cifar11'.*did you mean 'cifar10'"):
        module.opened("cifar11")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metrics": "bpd"}, r"metric bpd is of pictures under a model.*: lodestar.bpd\(model, pictures\) measures it"),
        ({"metrics": ["frechet", BPD()]}, "metric bpd is of pictures"),
        ({"metrics": "frchet"}, "unknown metric 'frchet'.*did you mean 'frechet'"),
        ({"stps": 3}, "unknown setting 'stps'.*did you mean 'steps'"),
        ({"count": 0}, "count is 0"),
        ({"seeds": 0}, "seeds is 0: input should be greater than or equal to 1"),
        ({"batch_size": 0}, "batch size is 0: "),
        ({"guides": {"weak": None}}, "guides: 'weak' has no effect"),
        ({"guidance": Classifier(scale=1.0)}, "classifier needs a noise-aware classifier, and none is loaded"),
        ({"out": "file/out"}, "cannot write file/out"),
        ({"reference": None}, "--reference is missing"),
    ],
)
def test_what_is_wrong_is_one_line(given: dict[str, Any], said: str) -> None:
    Path("file").write_text("")
    with pytest.raises(lodestar.Problem, match=said):
        lodestar.evaluate(tiny.diffusion(), **GIVEN | {"count": 4} | given)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"count": 4}, "count"), ({"seeds": 2}, "seeds"), ({"seed": 1}, "seed"), ({"steps": 3}, "steps"),
        ({"clamp": False}, "clamp"), ({"sampler": DDIM()}, "sampler"), ({"guidance": "cfg:2"}, "guidance"),
        ({"temperature": 0.5}, "temperature"),
    ],
)  # fmt: skip
def test_what_has_no_effect_on_pictures_is_told(given: dict[str, Any], name: str) -> None:
    with pytest.raises(lodestar.Problem, match=f"^{name} has no effect on pictures that are there already: leave it out$"):
        lodestar.evaluate(tiny.diffusion().sample(count=2), **GIVEN, **given)


def test_bits_per_dimension(tmp_path: Path) -> None:
    model, given = tiny.diffusion(), {"count": 4, "steps": "logsnr:3"}
    found = lodestar.bpd(model, tiny.reference(), **given, out="bits")  # type: ignore[arg-type]
    assert {"bpd", "ode"} <= found.numbers.keys() and "standard error" in str(found)
    assert {path.name for path in (tmp_path / "bits").iterdir()} == {"report.json", "bpd.csv", "bpd.png"}
    tiny.folder(tmp_path / "pictures", 6)
    model.save("mine.safetensors")
    assert "ode" not in lodestar.bpd("mine.safetensors", "pictures", ode=False, **given).numbers  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(lodestar.Problem, match="cannot write file/out"):
        lodestar.bpd(model, tiny.reference(), out="file/out")
    with pytest.raises(lodestar.Problem, match="batch size is 0: "):
        lodestar.bpd(model, tiny.reference(), batch_size=0)
    for idle in ({"guidance": "cfg:2"}, {"truncation": 0.5}, {"augment": 0.5}):
        with pytest.raises(lodestar.Problem, match=f"{next(iter(idle))} has no effect on bits per dimension"):
            lodestar.bpd(model, tiny.reference(), **idle)  # type: ignore[arg-type]


@pytest.mark.parametrize(("model", "idle"), [("digits_gan", {"draws": 3}), (None, {"draws": 3})])
def test_settings_of_other_models_bits_are_refused(model: str | None, idle: dict[str, Any]) -> None:
    name = next(iter(idle))
    with pytest.raises(
        lodestar.Problem, match=f"^{name} has no effect on the bits per dimension of {model or 'this model'}: leave"
    ):
        lodestar.bpd(model or tiny.diffusion(), tiny.reference(channels=1 if model else 3), count=2, **idle)
