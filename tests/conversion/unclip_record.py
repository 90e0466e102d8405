"""What the parts of diffusers' UnCLIPPipeline compute, recorded: networks with weights by formula.

``python -m tests.conversion.unclip_record`` writes the record anew, where diffusers is installed (0.42.1 made this one). Tests
read it and need no diffusers.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.conversion.diffusers_record import weights

RECORD = Path(__file__).with_suffix(".json")
EMBED, LENGTH, TOLD, GROUPS = 6, 5, 12, 4
_UNET: dict[str, Any] = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": GROUPS}
_SMALL = {
    **_UNET, "sample_size": 16, "in_channels": 6, "out_channels": 3, "add_attention": False,
    "down_block_types": ["ResnetDownsampleBlock2D"] * 2, "up_block_types": ["ResnetUpsampleBlock2D"] * 2,
}  # fmt: skip
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "prior": ("PriorTransformer", {
        "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": EMBED, "num_embeddings": LENGTH,
    }),
    "text_proj": ("UnCLIPTextProjModel", {
        "clip_extra_context_tokens": 4, "clip_embeddings_dim": EMBED, "time_embed_dim": 32, "cross_attention_dim": TOLD,
    }),
    "decoder": ("UNet2DConditionModel", {
        **_UNET, "sample_size": 8, "in_channels": 3, "out_channels": 6, "cross_attention_dim": TOLD, "attention_head_dim": 4,
        "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "class_embed_type": "identity",
        "resnet_time_scale_shift": "scale_shift",
    }),
    "super_res_first": ("UNet2DModel", _SMALL),
    "super_res_last": ("UNet2DModel", _SMALL),
}  # fmt: skip
SCHEDULERS = {
    "prior_scheduler": {"prediction_type": "sample", "clip_sample_range": 5.0},
    "decoder_scheduler": {"variance_type": "learned_range"},
    "super_res_scheduler": {},
}


def state(name: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights of a part; the two networks of the upsampler differ."""
    scale = 0.5 if name == "super_res_last" else 1.0
    return {key: scale * value for key, value in weights(shapes).items()}


def wave(*shape: int, speed: float = 1.0) -> Tensor:
    """Inputs, by formula."""
    return torch.sin(speed * torch.arange(torch.Size(shape).numel(), dtype=torch.float32)).reshape(shape)


def inputs() -> dict[str, Tensor]:
    """Inputs of the parts: a batch of two."""
    mask = torch.tensor([[True, True, True, False, False], [True, True, False, False, False]])
    return {
        "time": torch.tensor([5, 700]), "mask": mask, "text": wave(2, EMBED, speed=0.3), "picture": wave(2, EMBED, speed=0.7),
        "states": wave(2, LENGTH, EMBED, speed=1.1), "x": wave(2, EMBED, speed=1.3), "small": wave(2, 3, 8, 8),
        "large": wave(2, 6, 16, 16, speed=0.9),
    }  # fmt: skip


def main() -> None:
    """Write the record: the settings as written, the shapes, and some of the outputs."""
    library = importlib.import_module("diffusers")
    projection = importlib.import_module("diffusers.pipelines.deprecated.unclip.text_proj")
    made: dict[str, Any] = {"settings": {}, "shapes": {}, "outputs": {}}
    networks: dict[str, Any] = {}
    for name, (kind, settings) in PARTS.items():
        source = projection if kind == "UnCLIPTextProjModel" else library
        network = getattr(source, kind)(**settings).eval()
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        network.load_state_dict(state(name, shapes))
        networks[name], made["shapes"][name] = network, shapes
        made["settings"][name] = {"_class_name": kind, **dict(network.config)}
    for name, settings in SCHEDULERS.items():
        made["settings"][name] = dict(library.UnCLIPScheduler(**settings).config)
    given = inputs()
    with torch.no_grad():
        tokens, emb = networks["text_proj"](
            image_embeddings=given["picture"], prompt_embeds=given["text"], text_encoder_hidden_states=given["states"],
            do_classifier_free_guidance=False,
        )  # fmt: skip
        outputs = {
            "prior": networks["prior"](
                given["x"], timestep=given["time"], proj_embedding=given["text"], encoder_hidden_states=given["states"],
                attention_mask=given["mask"],
            ).predicted_image_embedding,
            "decoder": networks["decoder"](
                given["small"], given["time"], tokens, class_labels=emb,
                attention_mask=torch.nn.functional.pad(given["mask"], (4, 0), value=True),
            ).sample[:, :, ::2, ::2],
            **{name: networks[name](given["large"], given["time"]).sample[:, :, ::4, ::4]
               for name in ("super_res_first", "super_res_last")},
        }  # fmt: skip
    made["outputs"] = {name: [round(value, 6) for value in each.flatten().tolist()] for name, each in outputs.items()}
    RECORD.write_text(json.dumps(made, separators=(",", ":")).replace(',"', ',\n"') + "\n")


if __name__ == "__main__":
    main()
