"""Karlo's published files: of small networks with random weights, under its names, in the forms in which they are published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import lodestar
from lodestar.config import Problem
from lodestar.conversion import FAMILIES
from lodestar.conversion.karlo import FILES, KARLO_PRIOR, prior
from lodestar.conversion.published import Published
from lodestar.conversion.run import convert

ARGUMENTS = {"text_ctx": 6, "xf_width": 16, "xf_layers": 1, "xf_heads": 2, "clip_dim": 8}
PUBLISHED = (Published("kakaobrain/karlo-prior", FILES["prior"], lambda: prior(ARGUMENTS), KARLO_PRIOR),)


def state() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"positional_embedding": (1, 10, 16), "prd_emb": (1, 1, 16)}
    layers = {
        "time_embed.0": (16, 16), "time_embed.2": (16, 16), "text_enc_proj": (16, 8), "text_emb_proj": (16, 8),
        "clip_img_proj": (16, 8), "out_proj": (8, 16), "transformer.resblocks.0.attn.c_qkv": (48, 16),
        "transformer.resblocks.0.attn.c_proj": (16, 16), "transformer.resblocks.0.mlp.c_fc": (64, 16),
        "transformer.resblocks.0.mlp.c_proj": (16, 64),
    }  # fmt: skip
    norms = ("transformer.resblocks.0.ln_1", "transformer.resblocks.0.ln_2", "final_ln")
    for name, shape in {**layers, **dict.fromkeys(norms, (16,))}.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    rng = torch.Generator().manual_seed(0)
    return {f"model.{name}": 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def test_a_prior_is_its_weights_and_the_statistics_of_its_embeddings(tmp_path: Path) -> None:
    mean, std = torch.arange(8.0), torch.arange(1.0, 9.0)
    torch.save({"state_dict": state()}, tmp_path / FILES["prior"])
    with pytest.raises(Problem, match=rf"{FILES['statistics']} is missing"):
        convert(tmp_path / FILES["prior"], tmp_path / "out", FAMILIES, PUBLISHED)
    torch.save((mean, std), tmp_path / FILES["statistics"])
    made = convert(tmp_path / FILES["prior"], tmp_path / "out", FAMILIES, PUBLISHED)
    model = lodestar.load(made.path, "cpu", dtype="float32")
    assert torch.equal(model.codec.mean, mean) and torch.equal(model.codec.std, std)
    whitened = model.codec.encode(torch.full((1, 8, 1, 1), 3.0))
    assert torch.allclose(model.codec.decode(whitened), torch.full((1, 8, 1, 1), 3.0))
    # The first head's queries, keys and values come first in the file; ours are all queries, then keys, then values.
    theirs = state()["model.transformer.resblocks.0.attn.c_qkv.weight"]
    assert torch.equal(model.denoiser.network.blocks[0].qkv.weight[:8], theirs[:8])
    assert torch.equal(model.denoiser.network.blocks[0].qkv.weight[8:16], theirs[24:32])


def test_a_file_of_other_statistics_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": state()}, tmp_path / FILES["prior"])
    torch.save((torch.zeros(9), torch.ones(9)), tmp_path / FILES["statistics"])
    with pytest.raises(Problem, match=r"codec\.embed is 9, not 8"):
        convert(tmp_path / FILES["prior"], tmp_path / "out", FAMILIES, PUBLISHED)
