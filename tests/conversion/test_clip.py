"""CLIP from OpenAI's archives, whose code does not run, from GLIDE's pair of files, and from transformers' folders."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lodestar
from lodestar.config import Problem
from lodestar.conversion import FAMILIES
from lodestar.conversion.clip import GLIDE_CLIP, OPENAI_CLIP, glide, of
from lodestar.conversion.published import Published
from lodestar.conversion.run import convert
from lodestar.models.clip import PictureClip
from lodestar.nets.clip_image import ViTConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
Shapes = dict[str, tuple[int, ...]]
WIDTH, EMBED, PATCH, CONTEXT, VOCABULARY = 64, 16, 8, 8, 49_408


def openai_state(layers: int = 2) -> dict[str, Tensor]:
    """Random weights of a small vision transformer's CLIP under OpenAI's names."""
    shapes: Shapes = {
        "logit_scale": (), "positional_embedding": (CONTEXT, WIDTH), "text_projection": (WIDTH, EMBED),
        "token_embedding.weight": (VOCABULARY, WIDTH), "visual.class_embedding": (WIDTH,), "visual.proj": (WIDTH, EMBED),
        "visual.positional_embedding": (17, WIDTH), "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
    }  # fmt: skip
    for norm in ("ln_final", "visual.ln_pre", "visual.ln_post"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for block in (f"{tower}transformer.resblocks.{k}." for tower in ("", "visual.") for k in range(layers)):
        for part, out, into in (
            ("attn.in_proj_", 3 * WIDTH, WIDTH), ("attn.out_proj.", WIDTH, WIDTH),
            ("mlp.c_fc.", 4 * WIDTH, WIDTH), ("mlp.c_proj.", WIDTH, 4 * WIDTH),
        ):  # fmt: skip
            shapes |= {f"{block}{part}weight": (out, into), f"{block}{part}bias": (out,)}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}{norm}.weight": (WIDTH,), f"{block}{norm}.bias": (WIDTH,)}
    return random(shapes)


IMAGE = {"image_size": 16, "patch_size": 4, "n_embd": 12, "n_head": 2, "n_xf_blocks": 1, "n_head_state": 8, "n_timestep": 20}
TEXT = {"n_bpe_vocab": VOCABULARY, "max_text_len": 10, "n_embd": 12, "n_head": 2, "n_xf_blocks": 1, "n_head_state": 4}


def glide_state(width: int, inputs: Shapes, embed: int = 12) -> dict[str, Tensor]:
    """Random weights of one of GLIDE's towers, of one block, under its names."""
    shapes: Shapes = {"blocks.output.f.w": (embed, width), **{f"blocks.output.ln.{leaf}": (width,) for leaf in "gb"}}
    shapes |= {f"blocks.input.{name}": shape for name, shape in inputs.items()}
    block = "blocks.block_0."
    shapes |= {f"{block}f_attn.f_{part}.w": (width, width) for part in "qkvc"}
    shapes |= {f"{block}f_attn.f_{part}.b": (width,) for part in "qvc"}
    shapes |= {f"{block}f_mlp.f_1.w": (4 * width, width), f"{block}f_mlp.f_1.b": (4 * width,)}
    shapes |= {f"{block}f_mlp.f_2.w": (width, 4 * width), f"{block}f_mlp.f_2.b": (width,)}
    shapes |= {f"{block}{part}.ln.{leaf}": (width,) for part in ("f_attn", "f_mlp") for leaf in "gb"}
    return random(shapes)


def random(shapes: Shapes) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


class Nested(nn.Module):
    """Modules of the names of a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        inner: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            head, _, rest = name.partition(".")
            if rest:
                inner.setdefault(head, {})[rest] = tensor
            else:
                self.register_parameter(head, nn.Parameter(tensor))
        for head, part in inner.items():
            self.add_module(head, Nested(part))

    def forward(self, x: Tensor) -> Tensor:
        return x


def converted(source: Path, out: Path, **how: Any) -> PictureClip:
    return lodestar.load(lodestar.convert(source, out, **how), "cpu", dtype="float32")


def test_an_archive_of_openai_has_the_weights_of_its_state_dict(tmp_path: Path) -> None:
    state = openai_state()
    torch.save(state, tmp_path / "plain.pt")
    torch.jit.trace(Nested(state), torch.zeros(1)).save(str(tmp_path / "scripted.pt"))
    with zipfile.ZipFile(tmp_path / "scripted.pt") as archive:
        assert any(name.endswith(".py") for name in archive.namelist()), "it carries code"
    plain, scripted = (converted(tmp_path / f"{name}.pt", tmp_path, name=OPENAI_CLIP.name) for name in ("plain", "scripted"))
    assert plain.config == scripted.config
    assert isinstance(plain.config.network.image, ViTConfig)
    assert plain.config.network.image.heads == 1
    for name, tensor in plain.state_dict().items():
        assert torch.equal(scripted.state_dict()[name], tensor), name
    assert torch.equal(plain.network.text.out.weight, state["text_projection"].T)


def test_code_in_an_archive_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("run",)

    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/constants.pkl", pickle.dumps(()))
        archive.writestr("evil/data.pkl", pickle.dumps(Evil(), protocol=2))
    with pytest.raises(Problem, match=r"print of its choice would have to run|builtin"):
        lodestar.convert(path, tmp_path)


@pytest.mark.parametrize("damage", ["empty", "compressed", "beyond"])
def test_a_damaged_archive_is_one_line(tmp_path: Path, damage: str) -> None:
    torch.jit.trace(Nested({"a": torch.ones(4)}), torch.zeros(1)).save(str(tmp_path / "whole.pt"))
    with zipfile.ZipFile(tmp_path / "whole.pt") as archive, zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad:
        for entry in archive.namelist():
            data = b"" if damage == "empty" and entry.endswith("data.pkl") else archive.read(entry)
            data = data[:4] if damage == "beyond" and "/data/" in entry else data
            bad.writestr(entry, data, zipfile.ZIP_DEFLATED if damage == "compressed" else zipfile.ZIP_STORED)
    with pytest.raises(Problem) as caught:
        lodestar.convert(tmp_path / "bad.pt", tmp_path)
    assert "\n" not in str(caught.value)


def test_glide_s_two_files_are_one_model(tmp_path: Path) -> None:
    published = [Published("openai/glide-clip", "clip_image_enc.pt", lambda: of(glide(IMAGE, TEXT)), GLIDE_CLIP)]
    inputs: Shapes = {"w_t": (20, 16), "patch_proj": (16, 3, 4, 4), "w_pos": (17, 16), "ln.g": (16,), "ln.b": (16,)}
    image = glide_state(16, inputs)
    torch.save(image, tmp_path / "clip_image_enc.pt")
    with pytest.raises(Problem, match=r"clip_text_enc.pt is missing"):
        convert(tmp_path / "clip_image_enc.pt", tmp_path, FAMILIES, published)
    torch.save(glide_state(8, {"w_voc": (VOCABULARY, 8), "w_pos": (10, 8)}), tmp_path / "clip_text_enc.pt")
    made = convert(tmp_path / "clip_text_enc.pt", tmp_path, FAMILIES, published)
    model = lodestar.load(made.path, "cpu", dtype="float32")
    assert model.config.noised
    assert float(model.network.scale) == pytest.approx(100.0)
    assert torch.equal(model.network.image.start, image["blocks.input.w_t"])
    keys = torch.cat([image[f"blocks.block_0.f_attn.f_{part}.b"] for part in "qv"])
    assert torch.equal(model.network.image.blocks[0].qv_bias, keys)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_a_folder_of_transformers_gives_its_features(tmp_path: Path, act: str) -> None:
    transformers = pytest.importorskip("transformers")
    common = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": act}
    config = transformers.CLIPConfig(
        text_config={**common, "max_position_embeddings": 12, "vocab_size": VOCABULARY},
        vision_config={**common, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    torch.manual_seed(0)
    theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path / "clip")
    ours = converted(tmp_path / "clip", tmp_path)
    x, tokens = torch.rand(3, 3, 32, 32) * 2 - 1, torch.randint(1, 400, (2, 12))
    tokens[:, 8], tokens[:, 9:] = VOCABULARY - 1, 0
    mean, std = (torch.tensor(each)[:, None, None] for each in (ours.config.mean, ours.config.std))
    with torch.no_grad():
        seen = theirs.visual_projection(theirs.vision_model(pixel_values=((x + 1) / 2 - mean) / std).pooler_output)
        said = theirs.text_projection(theirs.text_model(input_ids=tokens).pooler_output)
        torch.testing.assert_close(ours.image_features(x), seen, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.network.text(tokens), said, rtol=0, atol=1e-5)
    assert ours.network.log_scale.item() == pytest.approx(theirs.logit_scale.item())


def test_settings_that_we_have_no_tower_for_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for settings, message in (
        ({"vision_config": {"intermediate_size": 100}}, "intermediate_size is 100"),
        ({"text_config": {"hidden_act": "relu"}}, "activation"),
        ({"text_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps"),
        ({"text_config": []}, "text_config"),
        ({}, "holds no weights"),
    ):
        (folder / "config.json").write_text(json.dumps({"model_type": "clip", **settings}))
        with pytest.raises(Problem, match=message):
            lodestar.convert(folder, tmp_path)
