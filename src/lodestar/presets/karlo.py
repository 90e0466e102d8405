"""Karlo v1.0.alpha (Kakao Brain 2022), an open DALL·E 2: prior, decoder of 64×64 pictures, and upsampler to 256×256.

Its CLIP is OpenAI's ViT-L/14. The prior samples with ``cfg:4``, the decoder with ``cfg:8``.
"""

from __future__ import annotations

from lodestar.conversion.karlo import FILES, KARLO_DECODER, KARLO_PRIOR, KARLO_UPSAMPLER, decoder, prior, upsampler
from lodestar.conversion.published import Published
from lodestar.models.diffusion import DiffusionConfig

_URL = "https://arena.kakaocdn.net/brainrepo/models/karlo-public/v1.0.0.alpha"
_FOLDERS = {
    "prior": "85626483eaca9f581e2a78d31ff905ca",
    "statistics": "0b62380a75e56f073e2844ab5199153d",
    "decoder": "efdf6206d8ed593961593dc029a8affa",
    "upsampler": "4226b831ae0279020d134281f3c31590",
}


def _address(part: str) -> str:
    return f"{_URL}/{_FOLDERS[part]}/{FILES[part].replace('=', '%3D')}"


def _prior() -> DiffusionConfig:
    return prior({"text_ctx": 77, "xf_width": 2048, "xf_layers": 20, "xf_heads": 32, "clip_dim": 768})


def _decoder() -> DiffusionConfig:
    return decoder(
        {
            "image_size": 64, "num_channels": 320, "num_res_blocks": 3, "channel_mult": "", "attention_resolutions": "32,16,8",
            "num_head_channels": 64, "use_scale_shift_norm": True, "resblock_updown": True, "dropout": 0.1, "clip_dim": 768,
            "clip_emb_mult": 4, "text_ctx": 77, "xf_width": 1536,
        }
    )  # fmt: skip


def _upsampler() -> DiffusionConfig:
    return upsampler({"channels": 320, "depth": 3, "channels_multiple": (1, 2, 3, 4), "dropout": 0.0})


PUBLISHED: tuple[Published, ...] = (
    Published("kakaobrain/karlo-prior", FILES["prior"], _prior, KARLO_PRIOR, _address("prior"), others=(_address("statistics"),)),
    Published("kakaobrain/karlo-decoder", FILES["decoder"], _decoder, KARLO_DECODER, _address("decoder")),
    Published("kakaobrain/karlo-upsampler", FILES["upsampler"], _upsampler, KARLO_UPSAMPLER, _address("upsampler")),
)

RUNS = ()
