"""The family of DALL·E's discrete VAE: two files, of whole modules, read as tensors alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lodestar.codecs import VQVAECodec
from lodestar.config import Problem
from lodestar.conversion.family import Facts, Family, ModelConfig, Shapes, moments
from lodestar.conversion.rename import Rule

_PLACES = {"encoder": "down", "decoder": "up"}
_CODES, _BIAS = "decoder.blocks.input.w", "decoder.blocks.input.b"

RULES = (
    Rule(r"^(en|de)coder\.blocks\.", r"\1coder."),
    Rule(r"^encoder\.input\.", "stem."),
    Rule(r"^encoder\.output\.conv\.", "head."),
    Rule(r"^decoder\.output\.conv\.", "out."),
    Rule(
        r"^(encoder|decoder)\.group_(\d+)\.block_(\d+)\.",
        lambda found: f"{_PLACES[found[1]]}.{int(found[2]) - 1}.{int(found[3]) - 1}.",
    ),
    Rule(r"\.res_path\.conv_(\d+)\.", lambda found: f".convs.{int(found[1]) - 1}."),
    Rule(r"\.id_path\.", ".skip."),
    Rule(r"\.w$", ".weight"),
    Rule(r"\.b$", ".bias"),
    Rule(r"^codes$", "codebook.codes"),
)


def _facts(shapes: Shapes) -> Facts:
    """The settings that weights determine: all but the size of pictures."""
    blocks = {match[1] for name in shapes if (match := re.match(r"encoder\.blocks\.group_1\.block_(\d+)\.", name))}
    channels, codes = shapes[_CODES][:2]
    found = {
        "kind": "dvae", "in_channels": shapes["encoder.blocks.input.w"][1], "width": shapes["encoder.blocks.input.w"][0],
        "blocks": len(blocks), "book.channels": channels, "book.codes": codes,
    }  # fmt: skip
    return {"kind": "vqvae", **{f"network.{name}": value for name, value in found.items()}}


def _with_codes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with the decoder's first convolution, which is of one code's unit vector at each place, as a list of vectors."""
    others, codes, bias = dict(state), state[_CODES], state[_BIAS]
    if codes.ndim != 4 or bias.shape != codes.shape[:1] or codes.shape[2:] != (1, 1):
        raise Problem(f"{_CODES} is {list(codes.shape)} and {_BIAS} {list(bias.shape)}: they make no list of codes")
    del others[_CODES], others[_BIAS]
    return {**others, "codes": codes.flatten(1).T + bias}


def _beside(config: ModelConfig) -> Mapping[str, Tensor]:
    assert isinstance(config, VQVAECodec)
    return {**moments(config), "network.codebook.size": torch.zeros(config.network.book.codes)}


DALLE = Family(
    name="DALL-E",
    landmarks=frozenset({"encoder.blocks.input.w", _CODES, _BIAS}),
    rules=(Rule(r"^decoder\.blocks\.input\.[wb]$", "codes"), *RULES),
    facts=_facts,
    rules_for=lambda config: RULES,
    fixed=_with_codes,
    beside=_beside,
    parts={"encoder.pkl": "encoder.", "decoder.pkl": "decoder."},
)
