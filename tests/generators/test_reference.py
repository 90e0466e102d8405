"""Reference pictures: guides with a digest, one for all or several in turn, kept beside the pictures that they guided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lodestar import library
from lodestar.cli import app
from lodestar.config import Problem
from lodestar.generators.album import Manifest, read_reference
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guide import Reference

STRIPES = np.zeros((32, 32, 3), dtype=np.uint8)
STRIPES[::4, :, 0] = 255
DOTS = np.zeros((32, 32, 3), dtype=np.uint8)
DOTS[::3, ::3] = 255
HOW: Any = {"guidance": "style:2", "steps": 3, "count": 2}


@pytest.fixture(scope="module")
def model() -> Diffusion:
    return library.load_diffusion("cifar10", "cpu", "float32")


def test_pictures_come_to_resemble_their_reference(model: Diffusion) -> None:
    how: Any = {"count": 4, "steps": 8}
    classifier = model.companions["classifier"]()
    reference = model.reference(STRIPES)
    observed = classifier.observe(reference.pictures.float() / 127.5 - 1, _clean())  # type: ignore[attr-defined]

    def likeness(guidance: str | None) -> float:
        from lodestar.guidance import Style

        images = model.sample(guidance=guidance, reference=STRIPES if guidance else None, **how).images
        seen = classifier.observe(images.float() / 127.5 - 1, _clean())  # type: ignore[attr-defined]
        return float(Style().likeness(seen, observed).mean())

    assert likeness("style:3") > likeness(None) + 0.1


def _clean() -> Any:
    from lodestar.core.level import CLEAN

    return CLEAN


def test_several_take_turns(model: Diffusion) -> None:
    both = model.sample(reference=[STRIPES, DOTS], **HOW)
    assert [ask.reference for ask in both.request.asks] == [0, 1]
    alone = model.sample(reference=STRIPES, **HOW)
    assert (both.images[0].int() - alone.images[0].int()).abs().max() <= 1
    assert not torch.equal(both.images[1], alone.images[1])


def test_an_album_holds_its_reference_and_remakes_a_picture(model: Diffusion, tmp_path: Path) -> None:
    Image.fromarray(STRIPES).save(tmp_path / "stripes.png")
    made = model.sample(reference=[str(tmp_path / "stripes.png"), DOTS], **HOW)
    folder = made.save(tmp_path / "album")
    (tmp_path / "stripes.png").unlink()
    manifest = Manifest.read(folder)
    assert "stripes.png" in manifest.guides["reference"].name
    again, guides = library.load_origin(manifest, "cpu")
    guides["reference"] = read_reference(folder, manifest.guides["reference"])
    (frame,) = (each for each in again.stream(manifest.request.only(1), guides=guides) if each.final)
    assert (frame.images[0].int() - made.images[1].int()).abs().max() <= 1
    result = CliRunner().invoke(app, ["remake", str(folder), "--picture", "1", "--out", str(tmp_path / "again")])
    assert result.exit_code == 0, result.output
    Image.fromarray(DOTS).save(folder / "reference-00000.png")
    with pytest.raises(Problem, match="its values have changed since"):
        read_reference(folder, manifest.guides["reference"])


def test_an_edit_is_guided_too(model: Diffusion, tmp_path: Path) -> None:
    made = model.edit("sdedit:0.5", [DOTS], guidance="style:2", reference=STRIPES, steps=4)
    folder = made.save(tmp_path / "album")
    assert json.loads((folder / "manifest.json").read_text())["manifest"]["guides"]["reference"]["digest"]
    assert (folder / "reference-00000.png").exists() and (folder / "source-00000.png").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"guidance": "style:1"}, "give the picture with --reference"),
        ({"reference": STRIPES}, "'reference' has no effect with this guidance"),
        ({"guidance": "style:1", "reference": []}, "no picture is given"),
        ({"guidance": "style:1", "guides": {"reference": STRIPES}}, "pictures are given as reference="),
        ({"guidance": "style:1", "reference": STRIPES, "guides": {"reference": 1}}, "given twice"),
        ({"guidance": "style:1,by=clip", "reference": STRIPES}, "--guide clip=MODEL"),
        ({"guidance": "style:1", "reference": "missing.png"}, "no picture"),
        ({"guidance": "style:1,by=features", "reference": STRIPES}, "clean pictures alone"),
    ],
)
def test_what_makes_no_sense_is_refused(model: Diffusion, how: Any, message: str) -> None:
    with pytest.raises(Problem, match=message) as caught:
        model.sample(count=1, **how)
    assert "\n" not in str(caught.value)


def test_a_reference_of_another_size_is_refused(model: Diffusion) -> None:
    small = Reference(torch.zeros((1, 3, 8, 8), dtype=torch.uint8))
    with pytest.raises(Problem, match=r"the reference picture is \(3, 8, 8\)"):
        model.sample(count=1, guidance="style:1", guides={"reference": small})


def test_the_command_line_names_what_is_missing() -> None:
    for arguments, message in (
        (["--guidance", "style:1"], "--reference PICTURE"),
        (["--reference", "missing.png"], "no picture"),
        (["--guidance", "style:1", "--guide", "reference=cifar10"], "--guide reference=cifar10 has no effect"),
    ):
        result = CliRunner().invoke(app, ["sample", "cifar10", *arguments])
        assert result.exit_code == 2 or isinstance(result.exception, Problem)
        assert message in result.output + str(result.exception)
