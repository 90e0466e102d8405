"""Models of several files: written, found, moved, loaded, and refused where a part is not the one that was meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lodestar import bundle, checkpoint, library
from lodestar.config import Problem
from lodestar.evaluation.kept import keep, kept
from lodestar.evaluation.reference import collect
from lodestar.evaluation.statistics import Collector
from lodestar.generators.album import Manifest
from lodestar.generators.diffusion import Diffusion
from lodestar.info import describe
from tests.evaluation import tiny


def write(path: Path, model: Any) -> Path:
    checkpoint.save(path, model.config.kind, model.config.to_json(), model.state_dict(), {})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, a weaker one, a classifier and a reference in a folder, and the bundle of them."""
    folder = tmp_path / "models"
    parts = {
        "model": write(folder / "main.safetensors", tiny.diffusion(0)),
        "weak": write(folder / "guides/weak.safetensors", tiny.diffusion(5)),
        "classifier": write(folder / "guides/critic.safetensors", tiny.classifier()),
        "reference": folder / "reference.safetensors",
    }
    keep(
        parts["reference"],
        tiny.reference(),
        collect(tiny.reference(), tiny.extractor(), Collector({"moments"})),
        tiny.extractor(),
    )
    bundle.save(folder / "tiny.bundle.json", parts)
    return folder


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "tiny.bundle.json").read_text())


def retold(folder: Path, role: str, **part: str) -> Path:
    """The bundle with a part of another text."""
    changed = told(folder)
    changed["parts"][role] = {"sha256": "0" * 64, **part}
    (folder / "tiny.bundle.json").write_text(json.dumps(changed))
    return folder / "tiny.bundle.json"


def refused(path: Path, *words: str) -> None:
    """Whoever looks for the model is told so in one line, which has all these words."""
    for look in (library.load, library.config, library.parts, library.companions, kept, lambda name: describe(str(name))):
        with pytest.raises(Problem) as raised:
            look(path)
        text = str(raised.value)
        assert "\n" not in text
        for word in words:
            assert word in text, text


def test_its_model_is_loaded_and_the_others_go_with_it(folder: Path, tmp_path: Path) -> None:
    path = folder / "tiny.bundle.json"
    model = library.load(path, "cpu")
    assert isinstance(model, Diffusion)
    assert (model.name, model.digest) == (str(path), checkpoint.peek(folder / "main.safetensors").digest)
    assert library.config(path) == model.config
    assert set(model.companions) == {"weak", "classifier"}, "a reference is no model"
    assert model.companions["weak"]().digest == checkpoint.peek(folder / "guides/weak.safetensors").digest
    guided = model.sample("dog", count=2, steps=2, guidance="autoguidance:2")
    weak = library.load(folder / "guides/weak.safetensors", "cpu")
    alone = library.load(folder / "main.safetensors", "cpu")
    assert alone.companions == {}
    assert torch.equal(
        guided.images, alone.sample("dog", count=2, steps=2, guidance="autoguidance:2", guides={"weak": weak}).images
    )
    reference = kept(str(path))
    assert reference is not None and len(reference) == 24
    guided.save(tmp_path / "album")
    again, guides = library.load_origin(Manifest.read(tmp_path / "album"), "cpu")
    assert torch.equal(again.sample("dog", count=2, steps=2, guidance="autoguidance:2", guides=guides).images, guided.images)


def test_it_may_be_moved(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "elsewhere")
    assert library.load(tmp_path / "elsewhere/tiny.bundle.json", "cpu").companions["classifier"]().config.names == tiny.NAMES


def test_parts_are_asked_for_by_role(folder: Path) -> None:
    path = folder / "tiny.bundle.json"
    found = library.part(path, "weak")
    assert (found.name, found.kind) == (str(folder / "guides/weak.safetensors"), "diffusion")
    assert library.load(found.name, "cpu").digest == found.digest
    with pytest.raises(Problem, match=r"tiny\.bundle\.json has no part 'waek': it has model, .*; did you mean 'weak'\?"):
        library.part(path, "waek")
    with pytest.raises(Problem, match=r"main\.safetensors has no part 'weak': it is a model of one file"):
        library.part(folder / "main.safetensors", "weak")
    bundle.save(folder / "two.bundle.json", {"prior": folder / "main.safetensors", "decoder": "cifar10_weak"})
    assert library.part(folder / "two.bundle.json", "decoder").name == "cifar10_weak"
    with pytest.raises(Problem, match=r"two\.bundle\.json has no part 'model': it has prior, decoder"):
        library.load(folder / "two.bundle.json")


def test_a_part_may_be_a_bundle(folder: Path) -> None:
    inner = library.parts(folder / "tiny.bundle.json")
    bundle.save(folder / "outer.bundle.json", {"model": folder / "tiny.bundle.json", "critic": "cifar10"})
    model = library.load(folder / "outer.bundle.json", "cpu")
    assert model.digest == inner["model"].digest and set(model.companions) == {"critic"}
    assert library.part(folder / "outer.bundle.json", "model").digest == bundle.read(folder / "tiny.bundle.json").digest
    bundle.save(folder / "tiny.bundle.json", {"model": folder / "main.safetensors"})
    refused(folder / "outer.bundle.json", "outer.bundle.json: part 'model'", "tiny.bundle.json is another one")


def test_its_digest_is_of_what_it_names_and_not_of_where_that_is(folder: Path) -> None:
    first = bundle.read(folder / "tiny.bundle.json")
    shutil.copy(folder / "main.safetensors", folder / "copy.safetensors")
    parts = {role: folder / str(part.file) for role, part in reversed(first.parts.items())}
    assert bundle.save(folder / "other.bundle.json", {**parts, "model": folder / "copy.safetensors"}).digest == first.digest
    assert bundle.save(folder / "other.bundle.json", {**parts, "model": parts["weak"]}).digest != first.digest


def test_a_part_that_is_missing_damaged_or_another_is_named(folder: Path) -> None:
    path, weak = folder / "tiny.bundle.json", folder / "guides/weak.safetensors"
    whole = weak.read_bytes()
    weak.unlink()
    refused(path, "tiny.bundle.json: part 'weak'", "guides/weak.safetensors is missing")
    weak.write_bytes(whole[:-3])
    refused(path, "tiny.bundle.json: part 'weak'", "guides/weak.safetensors is cut short")
    weak.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(Problem, match=r"guides/weak\.safetensors has been changed since it was written"):
        library.load(path, "cpu").companions["weak"]()
    write(weak, tiny.diffusion(6))
    refused(
        path, "tiny.bundle.json: part 'weak'", "guides/weak.safetensors is another one: its SHA-256 is ", "and the bundle names "
    )


@pytest.mark.parametrize("file", ["/etc/x", "../x", "a/../../x", "C:\\x", "c:x", "\\x", "..\\x", "a\\..\\x", ".", "//host/x"])
def test_paths_stay_in_its_folder(folder: Path, file: str) -> None:
    refused(retold(folder, "weak", file=file), "tiny.bundle.json parts.weak: file ", "leaves the bundle's folder")


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({}, "a part is a file or the name of an embedded model: give exactly one"),
        ({"file": "x", "name": "cifar10"}, "give exactly one"),
        ({"name": "cifar01"}, "no embedded model 'cifar01': choose from cifar10, .*; did you mean 'cifar10"),
        ({"name": "../weights/cifar10"}, "no embedded model"),
        ({"file": "x.safetensors", "sha256": "ABC"}, "parts.weak.sha256 is 'ABC'"),
        ({"file": "guides"}, "guides is missing"),
        ({"file": "x\0y"}, "is missing"),
        ({"fiel": "x"}, "unknown field .*parts.weak.fiel.*did you mean 'file'"),
    ],
    ids=str,
)
def test_parts_that_are_none(folder: Path, part: dict[str, str], reason: str) -> None:
    path = retold(folder, "weak", **part)
    with pytest.raises(Problem, match=rf"(?s)^(?=.*tiny\.bundle\.json).*{reason}") as raised:
        library.load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "should be an object"),
        ("{}", "parts: a value is missing"),
        ('{"parts": {}}', "parts is {}"),
        ('{"parts": {"": {"name": "cifar10", "sha256": "' + "0" * 64 + '"}}}', "parts"),
        ('{"format": "lodestar-bundle/2", "parts": {}}', "format is 'lodestar-bundle/2': choose from lodestar-bundle/1"),
    ],
)
def test_files_that_are_no_bundles(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "x.bundle.json").write_text(content)
    refused(tmp_path / "x.bundle.json", "x.bundle.json", reason)


def test_a_circle_is_told(folder: Path) -> None:
    path = retold(folder, "weak", file="./tiny.bundle.json")
    refused(path, "tiny.bundle.json: part 'weak'", "tiny.bundle.json is a bundle that this one is a part of, and so a circle")
    bundle.save(folder / "b.bundle.json", {"model": folder / "main.safetensors"})
    retold(folder, "weak", file="b.bundle.json")
    (folder / "b.bundle.json").write_text((folder / "tiny.bundle.json").read_text().replace('"b.bundle', '"tiny.bundle'))
    refused(path, "tiny.bundle.json: part 'weak'", "b.bundle.json: part 'weak'", "a circle")
    with pytest.raises(Problem, match=r"part 'model': .*b\.bundle\.json is a bundle that this one is a part of"):
        bundle.save(folder / "b.bundle.json", {"model": folder / "b.bundle.json"})


def test_bundles_in_bundles_have_an_end_and_each_file_is_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    peek = checkpoint.peek
    inner = folder / "tiny.bundle.json"
    for number in range(bundle.DEEPEST - 1):
        path = folder / f"{number}.bundle.json"
        bundle.save(path, {"model": inner, "other": inner, "more": folder / "main.safetensors"})
        inner = path
    monkeypatch.setattr(checkpoint, "peek", lambda path: (looked.append(path), peek(path))[1])
    assert library.parts(inner)["model"].kind == "bundle"
    assert sorted(path.name for path in looked) == [
        "critic.safetensors",
        "main.safetensors",
        "reference.safetensors",
        "weak.safetensors",
    ]
    changed = {"parts": {"model": {"file": inner.name, "sha256": "0" * 64}}}
    (folder / "deep.bundle.json").write_text(json.dumps(changed))
    with pytest.raises(Problem, match=r"tiny\.bundle\.json is a bundle in 16 others: 16 is the most"):
        library.parts(folder / "deep.bundle.json")


@pytest.mark.parametrize(
    ("name", "part", "reason"),
    [
        ("x.json", "main.safetensors", r"x\.json is no name for a bundle: end it with \.bundle\.json"),
        (
            "guides/x.bundle.json",
            "main.safetensors",
            r"part 'model': .*main\.safetensors is not below .*guides, where the bundle is",
        ),
        ("x.bundle.json", "none.safetensors", r"part 'model': .*none\.safetensors is missing"),
        ("x.bundle.json", "tiny.txt", r"part 'model': .*tiny\.txt is not a safetensors file"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(folder: Path, name: str, part: str, reason: str) -> None:
    (folder / "tiny.txt").write_text("x" * 20)
    with pytest.raises(Problem, match=reason):
        bundle.save(folder / name, {"model": folder / part})
    assert not (folder / name).exists()


def test_it_tells_what_it_is(folder: Path) -> None:
    def lines(name: str) -> str:
        return "".join(segment.text for segment in Console(width=300).render(describe(str(folder / name))))

    text, digest = lines("tiny.bundle.json"), checkpoint.peek(folder / "main.safetensors").digest
    for fact in (
        digest,
        "8×8, 3 channels",
        "classifier: ",
        "critic.safetensors (classifier, ",
        bundle.read(folder / "tiny.bundle.json").digest,
    ):
        assert fact in text
    bundle.save(folder / "two.bundle.json", {"prior": folder / "main.safetensors", "decoder": "cifar10_weak"})
    assert "decoder: cifar10_weak (diffusion, SHA-256 2734df3b3731837c…)" in lines("two.bundle.json")


def test_embedded_models_are_named_in_bundles_of_the_package() -> None:
    assert library.companions("cifar10") == {role: f"cifar10_{role}" for role in ("classifier", "weak", "features")}
    assert library.parts("cifar10")["reference"].kind == "statistics"
    assert library.parts("cifar10_weak") == {}
    for path in bundle.WEIGHTS.glob("*.bundle.json"):
        assert bundle.find(path)["model"].file.parent == bundle.WEIGHTS
