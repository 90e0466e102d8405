"""Prompts from the asking to the manifest and back, on a tiny model; inpainting by a model that was trained to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import lodestar
from lodestar.cli import app
from lodestar.conditions import LabelCondition, LowRes, Masked, TextCondition
from lodestar.config import Note, Problem
from lodestar.core.prediction import X0
from lodestar.core.schedule import Linear
from lodestar.denoiser import DenoiserConfig
from lodestar.generators.album import Manifest
from lodestar.generators.diffusion import Diffusion
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.nets.unet import UNetConfig
from tests.evaluation.tiny import BACKBONE, diffusion, randomized

TEXT = TextCondition(network=TextTransformerConfig(context=8, width=16, layers=1, heads=2))


def model(*conditions: Any, droppable: bool = True) -> Diffusion:
    config = DiffusionConfig(
        denoiser=DenoiserConfig(network=UNetConfig(**BACKBONE), prediction=X0(), channels=3, conditions=(TEXT, *conditions)),
        schedule=Linear(timesteps=50),
        size=(8, 8),
        droppable=droppable,
        steps="2",
    )
    made = randomized(Diffusion(config), 0)
    made.denoiser.network.head.weight *= 0.3  # so that pictures are not all black and white
    made.denoiser.text.network.project.weight *= 3  # and words are heard
    return made


MODEL = model()


def test_prompts_make_pictures_in_turn_and_alone() -> None:
    made = MODEL.sample(prompt=["cat", None], count=3, seed=5)
    assert [ask.text for ask in made.request.asks] == ["cat", None, "cat"]
    assert torch.equal(made.images, MODEL.sample(prompt=["cat", None], count=3, seed=5, batch_size=2).images)
    assert torch.equal(made.images[2:], MODEL.sample(prompt="cat", seed=7).images)
    assert torch.equal(made.images[1:2], MODEL.sample(count=1, seed=6).images)
    assert not torch.equal(made.images[:1], MODEL.sample(prompt="dog", seed=5).images)
    assert len(MODEL.sample(prompt=["a", "b", "c"])) == 3
    with pytest.warns(Note, match="3 labels or prompts come in turn, and the number of pictures is 2: the last have none"):
        MODEL.sample(prompt=["a", "b", "c"], count=2)


@pytest.mark.parametrize("guidance", ["cfg:3", "pag:1", "sag:0.5"])
def test_guidance_takes_prompts(guidance: str) -> None:
    plain, guided = MODEL.sample(prompt="cat", count=2), MODEL.sample(prompt="cat", count=2, guidance=guidance)
    assert not torch.equal(plain.images, guided.images)


def test_guidance_by_the_null_is_away_from_the_unconditional() -> None:
    with pytest.warns(Note, match="guidance cfg has no effect: no label and no prompt is asked for"):
        unasked = MODEL.sample(count=2, guidance="cfg:3")
    assert torch.equal(unasked.images, MODEL.sample(count=2).images)
    assert torch.equal(MODEL.sample(prompt="cat", count=2, guidance="cfg:0").images, MODEL.sample(count=2).images)


def test_a_prompt_is_encoded_once_for_a_whole_request() -> None:
    ours, rows = model(), []
    ours.denoiser.text.network.register_forward_hook(lambda module, given, out: rows.append(len(given[0])))
    ours.sample(prompt=["cat", "dog"], count=6, batch_size=2, guidance="cfg:2", steps=3)
    assert sum(rows) == 3  # two prompts and the empty one


def test_labels_and_prompts_go_together() -> None:
    both = model(LabelCondition(classes=2))
    made = both.sample(label=[0, 1], prompt=["a", "b", "c"], guidance="cfg:2")
    assert [(ask.label, ask.text) for ask in made.request.asks] == [(0, "a"), (1, "b"), (0, "c")]
    assert len(both.sample(label="0+1", prompt="a", guidance="cfg:2")) == 1
    assert [ask.label for ask in both.sample(prompt=["a", "b"]).request.asks] == [0, 1]


def test_an_album_tells_prompts_and_each_picture_is_made_again(tmp_path: Path) -> None:
    lodestar.save(MODEL, tmp_path / "m.safetensors")
    ours = lodestar.load(tmp_path / "m.safetensors")
    made = ours.sample(prompt=["cat", "🍎"], seed=3)
    folder = made.save(tmp_path / "out")
    told = json.loads((folder / "manifest.json").read_text())["pictures"]
    assert [each["text"] for each in told] == ["cat", "🍎"]
    assert Manifest.read(folder).request == made.request
    result = CliRunner().invoke(app, ["remake", str(folder), "--picture", "1", "--out", str(tmp_path / "again")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "again" / "00001.png").read_bytes() == (folder / "00001.png").read_bytes()


def styled(*styles: str) -> Diffusion:
    denoiser = MODEL.config.denoiser.replace(conditions=[TEXT.replace(styles=styles)])
    made = Diffusion(MODEL.config.replace(denoiser=denoiser))
    made.load_state_dict(MODEL.state_dict())
    return made.requires_grad_(False).eval()


HANDS = styled("not", "twe")


def test_a_style_is_a_word_behind_the_prompt_in_turn() -> None:
    made = HANDS.sample(prompt=["cat", "dog"], style=["not", None, "twe"], count=6)
    assert [ask.text for ask in made.request.asks] == ["cat, not", "dog", "cat, twe", "dog, not", "cat", "dog, twe"]
    assert torch.equal(made.images[2:3], MODEL.sample(prompt="cat, twe", seed=2).images)
    assert len(HANDS.sample(prompt="a", style=["not", "twe"])) == 2
    assert HANDS.sample(prompt="cat, twe", style="twe").request.asks[0].text == "cat, twe"  # the prompt names it already
    path = HANDS.edit("interpolate:3", prompt="a", style=["not", "twe"])
    assert [ask.text for ask in path.request.asks] == ["a, not", "a, not", "a, twe"]


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (HANDS, {"prompt": "a", "style": "twee"}, "style 'twee': this model knows not, twe; did you mean 'twe'?"),
        (MODEL, {"prompt": "a", "style": "not"}, r"style 'not': this model was not trained with styles \(data.style_column\)"),
        (HANDS, {"style": "not"}, "style 'not' is a word of a prompt, and there is none"),
        (HANDS, {"prompt": " ", "style": "not"}, "style 'not' is a word of a prompt, and there is none"),
        (HANDS, {"prompt": "a, not", "style": "twe"}, "prompt 'a, not' names a style itself, and style 'twe' is asked for"),
        (HANDS, {"prompt": "a", "style": 3}, "style 3: a text, or a list of texts"),
        (HANDS, {"prompt": "abcdef", "style": "not"}, "prompt 'abcdef, not' has more than this model's 8 tokens"),
        (HANDS, {"prompt": "abcdef", "style": "not", "cut_prompt": True}, "prompt 'abcdef' is too long for style 'not'"),
    ],
)
@pytest.mark.filterwarnings("ignore::lodestar.config.Note")
def test_what_is_no_style_is_one_line(model: Diffusion, given: dict[str, Any], message: str) -> None:
    with pytest.raises(Problem, match=f"^{message}"):
        model.sample(**given)
    with pytest.raises(Problem, match=f"^{message}"):
        lodestar.plan(model, 3, count=4, fine="trailing:40", **given)


def test_styles_are_kept_in_the_file_and_told(tmp_path: Path) -> None:
    path = HANDS.save(tmp_path / "hands.safetensors")
    asked = ["sample", str(path), "--prompt", "cat", "--style", "not", "--style", "twe", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 0
    assert [ask.text for ask in Manifest.read(tmp_path / "out").request.asks] == ["cat, not", "cat, twe"]
    told = CliRunner().invoke(app, ["info", str(path)], catch_exceptions=False).stdout
    assert "styles" in told and "not, twe" in told
    planned = CliRunner().invoke(app, ["plan", str(path), "--prompt", "cat", "--style", "twee", "--steps", "3", "--fine", "40"])
    assert isinstance(planned.exception, Problem) and "did you mean 'twe'" in str(planned.exception)


def test_the_command_line_takes_prompts(tmp_path: Path) -> None:
    lodestar.save(MODEL, tmp_path / "m.safetensors")
    path, out = str(tmp_path / "m.safetensors"), tmp_path / "out"
    asked = ["sample", path, "--prompt", "cat", "--prompt", "a long prompt", "--cut-prompt", "--count", "3", "--out", str(out)]
    with pytest.warns(Note, match="prompt 'a long prompt' is cut to 'a long p'"):
        result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert [ask.text for ask in Manifest.read(out).request.asks] == ["cat", "a long p", "cat"]


def test_an_upsampler_takes_the_prompts_of_an_album(tmp_path: Path) -> None:
    small = model().sample(prompt=["cat", "dog"]).save(tmp_path / "small")
    ours = model(LowRes(size=(4, 4)))
    made = ours.edit("upsample", str(small))
    assert [ask.text for ask in made.request.asks] == ["cat", "dog"]
    assert [ask.text for ask in ours.edit("upsample", str(small), prompt="fox").request.asks] == ["fox", "fox"]
    with torch.no_grad():
        assert not torch.equal(made.images, ours.edit("upsample", str(small), prompt="fox").images)
    config = ours.config.replace(denoiser=ours.config.denoiser.replace(conditions=(LowRes(size=(4, 4)),)), droppable=False)
    deaf = randomized(Diffusion(config), 0)
    assert [ask.text for ask in deaf.edit("upsample", str(small)).request.asks] == [None, None], "and they are no obstacle"
    with pytest.raises(Problem, match="this model knows no text"):
        deaf.edit("upsample", str(small), prompt="fox")


def test_a_manifest_of_another_program_beside_a_picture_is_no_obstacle(tmp_path: Path) -> None:
    small = model().sample(prompt="cat").save(tmp_path / "small")
    (small / "manifest.json").write_text('{"name": "a page", "icons": []}')
    assert MODEL.edit("sdedit", str(small / "00000.png"), prompt="dog").request.asks[0].text == "dog"


def test_interpolation_goes_from_prompt_to_prompt() -> None:
    made = MODEL.edit("interpolate:3", prompt=["cat", "dog"], seed=2, sampler="ddim", steps=3)
    assert torch.equal(made.images[0], MODEL.sample(prompt="cat", seed=2, sampler="ddim", steps=3).images[0])
    assert torch.equal(made.images[2], MODEL.sample(prompt="dog", seed=2, sampler="ddim", steps=3).images[0])
    assert not torch.equal(made.images[1], made.images[0])
    several: Any = ({"prompt": ["a", "b", "c"]}, "3 prompts"), ({"prompt": "a", "style": ["not", "twe", "not"]}, "3 styles")
    for given, told in several:
        with pytest.raises(Problem, match=f"from one prompt to one prompt, and {told} are given$"):
            HANDS.edit("interpolate:3", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "a long prompt"}, "^prompt 'a long prompt' has more than this model's 8 tokens"),
        ({"prompt": 3}, "^prompt 3: a text, or a list of texts$"),
        ({"prompt": ["a", 3]}, "^prompt 3: a text, or a list of texts$"),
        ({"prompt": []}, r"^prompt is \[\]: give at least one text, or None for none$"),
        ({"prompt": "a", "cut_prompt": 1}, "^cut_prompt is 1"),
        ({"promt": "a"}, "unknown setting 'promt'"),
        ({"label": "cat"}, "label 'cat': this model knows no classes"),
    ],
)
def test_what_is_no_prompt_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(Problem, match=message) as caught:
        MODEL.sample(**given)
    assert "\n" not in str(caught.value)


def test_models_without_text_and_without_nothing_refuse() -> None:
    with pytest.raises(Problem, match=r"^prompt 'cat': this model knows no text$"):
        diffusion().sample(prompt="cat")
    with pytest.raises(Problem, match=r"^prompt none: this model was never trained without texts: give one$"):
        model(droppable=False).sample(count=1)
    assert len(model(droppable=False).sample(prompt="cat")) == 1
    with pytest.warns(Note, match=r"^prompt '' is empty, and asks for nothing: its pictures are unconditional$"):
        made = MODEL.sample(prompt="", seed=4)
    assert torch.equal(made.images, MODEL.sample(count=1, seed=4).images)


def test_a_model_that_inpaints_is_told_what_it_keeps() -> None:
    ours = model(Masked())
    picture = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:6, 1:5] = True
    made = ours.edit("inpaint", picture, prompt="cat", mask=mask, steps=4, guidance="cfg:2")
    assert made.request.edit.resamples == 1
    assert torch.equal(made.images[..., ~mask], picture[..., ~mask])
    other = picture.clone()
    other[..., ~mask] //= 2
    seen: list[Any] = []
    ours.denoiser.network.stem.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    ours.edit("inpaint", other, prompt="cat", mask=mask, steps=4)
    assert torch.equal(seen[-1][0, 6], (~mask).float())
    assert torch.equal(seen[-1][0, 3:6], ours.codec.centre(other)[0] * ~mask)
    assert len(ours.sample(prompt="cat")) == 1  # of nothing else
    assert (seen[-1][:, 3:] == 0).all()
    weak = ours.edit("inpaint", picture, prompt="cat", mask=mask, steps=4, guidance="autoguidance:2", guides={"weak": MODEL})
    assert torch.equal(weak.images[..., ~mask], picture[..., ~mask]) and not torch.equal(weak.images, made.images)
    plain = MODEL.edit("inpaint:2,1", picture, prompt="cat", mask=mask, steps=4)
    assert plain.request.edit.resamples == 2 and torch.equal(plain.images[..., ~mask], picture[..., ~mask])


def test_a_weaker_model_does_not_read_prompts_for_one_that_knows_none() -> None:
    deaf, weak = diffusion(classes=None), diffusion(classes=None)
    deaf.name, weak.name = "deaf", "weak"
    assert not deaf.hears({"weak": weak})
    with pytest.raises(Problem, match=r"^prompt 'cat': deaf knows no text$"):
        deaf.sample(prompt="cat", guidance="autoguidance:2", guides={"weak": weak})
    with pytest.raises(Problem, match=r"^prompt 'cat': weak knows no text$"):
        MODEL.sample(prompt="cat", guidance="autoguidance:2", guides={"weak": weak})
