"""Cascades of tiny models: each stage by itself, one seed, one stream, manifests, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import lodestar
from lodestar.cli import app, then
from lodestar.cli.options import Sampling
from lodestar.conditions import LabelCondition, LowRes
from lodestar.config import Problem
from lodestar.core.noise import derived
from lodestar.core.schedule import Linear
from lodestar.denoiser import DenoiserConfig
from lodestar.generators.album import Manifest
from lodestar.generators.cascade import Cascade, Stage
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guide import known_roles
from lodestar.generators.request import Frame, Settings, request, settings
from lodestar.guidance import KINDS as GUIDANCE
from lodestar.library import load_origin
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.samplers import KINDS as SAMPLERS
from tests.evaluation.tiny import BACKBONE, NAMES, classifier, extractor, randomized, reference
from tests.generators.test_prompts import TEXT


def model(side: int, *conditions: Any, seed: int = 0, names: tuple[str, ...] | None = None) -> Diffusion:
    given = (*conditions, *([] if names is None else [LabelCondition(classes=len(names))]))
    config = DiffusionConfig(
        denoiser=DenoiserConfig(network=UNetConfig(**BACKBONE), channels=3, conditions=given),
        schedule=Linear(timesteps=50),
        size=(side, side),
        names=names,
        droppable=any(each.kind != "low_res" for each in given),
        steps="2",
    )
    return randomized(Diffusion(config), seed)


BASE = model(4, names=NAMES)
UP = model(8, LowRes(size=(4, 4)), seed=1, names=NAMES)
FINE = model(16, LowRes(size=(8, 8)), seed=2)
CASCADE = Cascade([BASE, Stage(UP, steps=3, sampler="ancestral", guidance="cfg:2"), FINE])


def test_the_stages_are_those_made_one_by_one_each_with_its_settings() -> None:
    made = CASCADE.sample("dog", 3, seed=7, steps=4, guidance="cfg:3")
    small = BASE.sample("dog", 3, seed=7, steps=4, guidance="cfg:3").images
    for number in range(3):
        seeds = [derived(7 + number, stage) for stage in (1, 2)]
        larger = UP.edit(
            "upsample", small[number : number + 1], "dog", seed=seeds[0], steps=3, sampler="ancestral", guidance="cfg:2"
        )
        largest = FINE.edit("upsample", larger.images, seed=seeds[1])
        assert torch.equal(largest.images[0], made.images[number])
    assert made.images.shape == (3, 3, 16, 16)
    assert [each.steps for each in (made.request.settings, *made.request.later)] == ["4", "3", None]


def test_a_picture_depends_on_its_seed_alone() -> None:
    together = CASCADE.sample(["cat", "ship"], 5, seed=3).images
    assert torch.equal(together, CASCADE.sample(["cat", "ship"], 5, seed=3, batch_size=2).images)
    assert torch.equal(together[2:3], CASCADE.sample("cat", seed=5, sampler="dpmpp").images)
    assert not torch.equal(together[:1], CASCADE.sample("cat", seed=5).images)
    assert len({derived(seed, stage) for seed in range(50) for stage in range(1, 5)}) == 200


def test_frames_of_every_stage_are_one_stream() -> None:
    frames: list[Frame] = []
    CASCADE.sample("dog", 3, batch_size=2, callback=frames.append)
    told = [(frame.first, frame.step, len(frame.x), frame.x.shape[-1]) for frame in frames[:9]]
    # Two pictures of the first stage are as many pixels as half a picture of the next.
    assert told[:4] == [(0, 1, 2, 4), (0, 2, 2, 4), (0, 3, 1, 8), (0, 4, 1, 8)]
    assert [len(frame.x) for frame in frames if frame.final] == [1, 1, 1]
    assert [frame.first for frame in frames if frame.final] == [0, 1, 2]
    assert {frame.steps for frame in frames} == {7}
    done = [frame.done for frame in frames if frame.final]
    assert done == [1, 2, 3]
    start = torch.randn(2, 3, 4, 4)
    again = CASCADE.sample("dog", 2, start=start).images
    assert torch.equal(again, CASCADE.sample("dog", 2, start=start, batch_size=1).images)
    with pytest.raises(Problem, match=r"start is \(2, 3, 16, 16\): it has to be \(2, 3, 4, 4\)"):
        CASCADE.sample("dog", 2, start=torch.randn(2, 3, 16, 16))


def test_labels_and_prompts_reach_the_stages_that_know_them() -> None:
    told, labelled = model(4, TEXT), model(8, LowRes(size=(4, 4)), TEXT, seed=1, names=NAMES)
    cascade = Cascade([told, labelled])
    one = cascade.sample("cat", prompt="red").images
    small = told.sample(prompt="red").images
    assert torch.equal(one, labelled.edit("upsample", small, "cat", seed=derived(0, 1), prompt="red").images)
    assert cascade.known == (NAMES, 3)
    assert len(cascade.sample(prompt="red", count=3).request.asks) == 3
    with pytest.raises(Problem, match="label 'mouse'"):
        cascade.sample("mouse")
    with pytest.raises(Problem, match="prompt 'a': this model knows no text"):
        CASCADE.sample(prompt="a")
    plain = Cascade([model(4), FINE_OF_4])
    with pytest.raises(Problem, match="label 'cat': this model knows no classes"):
        plain.sample("cat")
    assert torch.equal(plain.sample(count=2).images[1:], plain.sample(seed=1, count=1).images)


FINE_OF_4 = model(8, LowRes(size=(4, 4)), seed=3)


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([BASE], "a generator and at least one upsampler"),
        ([BASE, FINE], r"stage 2 .*: it enlarges pictures of 8×8 with 3 channels, and .* makes 4×4"),
        ([BASE, BASE], "stage 2 .*: it makes pictures from noise and enlarges none"),
        ([UP, FINE], "enlarges pictures: a cascade begins with a model that makes them from noise"),
        ([BASE, "up"], "stage 2 .*: a further stage of a cascade is a diffusion model that enlarges pictures, and not 'up'"),
        ([model(4, names=("a", "b", "c")), UP], r"stage 2 .*: this upsampler knows other classes \(3: cat, dog, ship\)"),
    ],
)
def test_stages_that_do_not_chain_are_refused(stages: list[Any], told: str) -> None:
    with pytest.raises(Problem, match=told):
        Cascade(stages)


def test_refusals_name_the_stage_and_come_before_any_work() -> None:
    with pytest.raises(Problem, match="guidance style: reference pictures are for the first stage"):
        Stage(UP, guidance="style:1")
    with pytest.raises(Problem, match="settings are given for 2 stages: this cascade has 3"):
        CASCADE.prepare(request([0]).replace(later=[Settings()]))
    hopeless = Cascade([BASE, Stage(UP, steps="sigmas:0.5")])
    with pytest.raises(Problem, match=r"stage 2 .*: steps 'sigmas:0.5' begin where pictures are hardly noisy"):
        hopeless.sample("cat")
    with pytest.raises(Problem, match=r"stage 2 .*: guidance clamp then classifier: classifier needs"):
        Cascade([BASE, Stage(UP, guidance="classifier:1")]).sample("cat")


def test_guides_of_a_stage_are_its_own() -> None:
    judge = classifier()
    steered = Cascade([BASE, Stage(UP, guidance="classifier:5", guides={"classifier": judge})])
    plain = Cascade([BASE, UP])
    assert not torch.equal(steered.sample("dog").images, plain.sample("dog").images)
    assert steered.origin().later[0].guides == {"classifier": judge}
    best = plain.sample("dog", best_of=3, guides={"judge": judge})
    assert best.request.seeds[0] in (0, 1, 2)
    assert torch.equal(plain.sample("dog", seed=best.request.seeds[0]).images, best.images)


def saved(folder: Path) -> tuple[str, str, str]:
    names = []
    for name, each in (("base", BASE), ("up", UP), ("fine", FINE)):
        names.append(str(each.save(folder / f"{name}.safetensors")))
    return names[0], names[1], names[2]


def test_the_command_its_manifest_and_remake(tmp_path: Path) -> None:
    base, up, fine = saved(tmp_path)
    out = tmp_path / "out"
    given = ["sample", base, "--label", "dog=2", "--then", f"{up},steps=3,sampler=ancestral,guidance=cfg:2", "--then", fine]
    result = CliRunner().invoke(app, [*given, "--out", str(out), "--precision", "float32"], catch_exceptions=False)
    assert result.exit_code == 0
    manifest = Manifest.read(out)
    assert [each.model for each in manifest.later] == [up, fine]
    assert [each.model_digest for each in manifest.later] == [lodestar.load(each).digest for each in (up, fine)]
    assert manifest.request.later[0] == settings(steps="3", sampler="ancestral", guidance="cfg:2")
    again, guides = load_origin(manifest, "cpu")
    assert isinstance(again, Cascade)
    made = again.sample("dog", 2, guides=guides, batch_size=1)
    assert Manifest.of(made.request, made.origin) == manifest
    assert made.save(out) == out  # the same pictures
    result = CliRunner().invoke(app, ["remake", str(out), "--picture", "1", "--out", str(tmp_path / "again")])
    assert result.exit_code == 0
    assert (tmp_path / "again" / "00001.png").read_bytes() == (out / "00001.png").read_bytes()
    whole = json.loads((out / "manifest.json").read_text())
    whole["manifest"]["later"][0]["model_digest"] = "0" * 64
    (out / "manifest.json").write_text(json.dumps(whole))
    with pytest.raises(Problem, match=r"up.safetensors is not the model that made these pictures"):
        load_origin(Manifest.read(out), "cpu")


def test_a_cascade_is_measured_as_any_generator(tmp_path: Path) -> None:
    source = reference(side=8)
    cascade = Cascade([BASE, UP])
    report = lodestar.evaluate(cascade, source, count=6, extractor=extractor())
    assert report.count == 6
    assert report.model_digest == ""  # of parts that were built in code
    swept = lodestar.sweep(
        cascade, source, over={"scale": [1, 3]}, guidance="cfg", count=6, extractor=extractor(), out=tmp_path / "sweep"
    )
    assert [row.step_count for row in swept.rows] == [4, 4]
    assert swept.rows[0].numbers["frechet"] != swept.rows[1].numbers["frechet"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("up,step=3", "--then up,step=3: unknown setting 'step': choose from steps, .*did you mean 'steps'"),
        (",steps=3", "the model is missing"),
        ("up,steps=3,steps=4", "steps is given twice"),
        ("up,temperature=-1", "--then up: temperature is -1"),
        ("up,clamp=perhaps", "--then up: clamp is 'perhaps'"),
    ],
)
def test_settings_that_cannot_be_read_are_told(text: str, told: str) -> None:
    with pytest.raises(Problem, match=told):
        then.read(text, Sampling())


def test_a_stage_in_text_has_the_settings_of_the_options() -> None:
    read = then.read(
        "a,b/up.safetensors,steps=90,60,sampler=ddim:eta=0.5,clipped=false,guidance=cfg:3,rescale=0.7,guidance=pag:1,reuse=2,"
        "classifier=other",
        Sampling(device="cpu", precision="float32", seed=9),
    )
    assert read.model == "a,b/up.safetensors"
    assert (read.steps, read.sampler, read.reuse) == ("90,60", "ddim:eta=0.5,clipped=false", 2)
    assert read.guidance == ["cfg:3,rescale=0.7", "pag:1"]
    assert (read.guide, read.device, read.precision) == (["classifier=other"], "cpu", "float32")


def test_no_field_of_a_sampler_or_a_guidance_has_the_name_of_a_setting() -> None:
    taken = {*Settings.model_fields, *known_roles()}
    for each in (*SAMPLERS.members, *GUIDANCE.members):
        assert not taken & set(each.model_fields), each
