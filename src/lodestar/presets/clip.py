"""CLIP (Radford et al. 2021): OpenAI's nine models, and GLIDE's noise-aware one (Nichol et al. 2022, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lodestar.conversion import GLIDE_CLIP, OPENAI_CLIP
from lodestar.conversion.clip import glide, of, openai
from lodestar.conversion.published import Published
from lodestar.core.schedule import Cosine
from lodestar.models.clip import ClipModelConfig

_URL = "https://openaipublic.azureedge.net/clip/models"
_GLIDE = "https://openaipublic.blob.core.windows.net/diffusion/dec-2021"


def _model(
    embed: int, size: int, vision: int | Sequence[int], width: int, patch: int | None, text: int
) -> Callable[[], ClipModelConfig]:
    return lambda: of(openai(embed, size, vision, width, patch, text))


_MODELS: dict[str, tuple[str, Callable[[], ClipModelConfig]]] = {
    "RN50": (
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        _model(1024, 224, (3, 4, 6, 3), 64, None, 512),
    ),
    "RN101": (
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        _model(512, 224, (3, 4, 23, 3), 64, None, 512),
    ),
    "RN50x4": (
        "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
        _model(640, 288, (4, 6, 10, 6), 80, None, 640),
    ),
    "RN50x16": (
        "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
        _model(768, 384, (6, 8, 18, 8), 96, None, 768),
    ),
    "RN50x64": (
        "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
        _model(1024, 448, (3, 15, 36, 10), 128, None, 1024),
    ),
    "ViT-B-32": (
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        _model(512, 224, 12, 768, 32, 512),
    ),
    "ViT-B-16": (
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        _model(512, 224, 12, 768, 16, 512),
    ),
    "ViT-L-14": (
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        _model(768, 224, 24, 1024, 14, 768),
    ),
    "ViT-L-14-336px": (
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        _model(768, 336, 24, 1024, 14, 768),
    ),
}
"""SHA-256 and configuration of each of OpenAI's files, by its name."""


def glide_clip() -> ClipModelConfig:
    """GLIDE's CLIP of noised pictures."""
    image = {"image_size": 64, "patch_size": 4, "n_embd": 512, "n_head": 12, "n_xf_blocks": 12, "n_head_state": 64}
    text = {"n_bpe_vocab": 65_536, "max_text_len": 77, "n_embd": 512, "n_head": 8, "n_xf_blocks": 12, "n_head_state": 64}
    return of(glide({**image, "n_timestep": 1_000}, text), schedule=Cosine())


PUBLISHED: tuple[Published, ...] = (
    *(
        Published(f"openai/clip-{name}", f"{name}.pt", model, OPENAI_CLIP, f"{_URL}/{digest}/{name}.pt", sha256=digest)
        for name, (digest, model) in _MODELS.items()
    ),
    Published(
        "openai/glide-clip", "clip_image_enc.pt", glide_clip, GLIDE_CLIP, f"{_GLIDE}/clip_image_enc.pt",
        others=(f"{_GLIDE}/clip_text_enc.pt",),
    ),
)  # fmt: skip

RUNS = ()
