"""What diffusers computes, recorded: its schedulers around a function in the place of a network, and networks of given weights.

``python -m tests.conversion.diffusers_record`` writes the record anew, where diffusers is installed (0.42.1 made this one). Tests
read it and need no diffusers.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RECORD = Path(__file__).with_suffix(".json")
START = torch.linspace(-1.5, 1.5, 12).reshape(1, 3, 2, 2)

V = {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
LEARNED = {"variance_type": "learned_range"}
MINIMUM = {"final_sigmas_type": "sigma_min"}

CASES: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "DDPMScheduler": [
        (10, {}),
        (10, {"variance_type": "fixed_large", "clip_sample": False}),
        (10, {"variance_type": "fixed_small_log", "timestep_spacing": "linspace", "clip_sample_range": 0.5}),
        (10, {**LEARNED, **COSINE}),
        (10, {**V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        (10, {"prediction_type": "sample", "thresholding": True, "sample_max_value": 1.5, "beta_schedule": "sigmoid"}),
        (100, {"num_train_timesteps": 100, "beta_start": 0.001, "beta_end": 0.05}),
    ],
    "DDIMScheduler": [
        (10, {"clip_sample": False}),
        (10, {**V, "set_alpha_to_one": False, "steps_offset": 1}),
        (10, {**V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ],
    "PNDMScheduler": [(10, {}), (10, {"skip_prk_steps": True, "set_alpha_to_one": True, "steps_offset": 1})],
    "EulerDiscreteScheduler": [
        (20, {"timestep_spacing": "leading", "steps_offset": 1, **MINIMUM}),
        (20, {}),
        (20, {"use_karras_sigmas": True}),
        (20, {"use_exponential_sigmas": True}),
        (20, {**V, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
    ],
    "EulerAncestralDiscreteScheduler": [(20, {"timestep_spacing": "trailing"}), (20, {"timestep_spacing": "leading"})],
    "HeunDiscreteScheduler": [
        (20, {"timestep_spacing": "trailing"}),
        (20, {"clip_sample": True, "use_karras_sigmas": True}),
        (20, {"beta_schedule": "exp", "timestep_spacing": "leading", "steps_offset": 1}),
    ],
    "LMSDiscreteScheduler": [(20, {"timestep_spacing": "trailing"}), (20, {"use_karras_sigmas": True})],
    "KDPM2DiscreteScheduler": [(20, {"use_exponential_sigmas": True})],
    "DPMSolverMultistepScheduler": [
        (20, {}),
        (20, {**LEARNED, "solver_order": 3, "timestep_spacing": "trailing"}),
        (20, {"algorithm_type": "dpmsolver", "solver_type": "heun", **MINIMUM}),
        (20, {"algorithm_type": "sde-dpmsolver++", "timestep_spacing": "leading", "steps_offset": 1}),
        (20, {"use_karras_sigmas": True}),
        (20, {"use_lu_lambdas": True}),
        (20, {"thresholding": True}),
        (20, {"euler_at_final": True, **MINIMUM}),
        (20, {**V, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
        (20, {"solver_order": 1}),
        (20, {**COSINE, "lambda_min_clipped": -5.1}),
        (20, {**COSINE, "lambda_min_clipped": -5.1, "timestep_spacing": "trailing"}),
        (20, {**COSINE, "lambda_min_clipped": -5.1, "timestep_spacing": "leading", "steps_offset": 1}),
    ],
    "DPMSolverSinglestepScheduler": [
        (20, {}),
        (21, {"solver_order": 3}),
        (21, {"solver_order": 3, "solver_type": "heun"}),
        (20, {"use_karras_sigmas": True}),
    ],
    "UniPCMultistepScheduler": [
        (20, {}),
        (20, {"solver_order": 3, "predict_x0": False, "solver_type": "bh1", **MINIMUM}),
        (20, {"disable_corrector": [0, 1], "timestep_spacing": "trailing", "solver_order": 3}),
        (20, {"use_karras_sigmas": True}),
    ],
    "DEISMultistepScheduler": [
        (20, {}),
        (20, {"solver_order": 3, "timestep_spacing": "trailing"}),
        (20, {"use_karras_sigmas": True}),
    ],
    "EDMEulerScheduler": [(20, {}), (20, {"sigma_data": 1.0, "rho": 5.0, **MINIMUM})],
    "EDMDPMSolverMultistepScheduler": [(20, {}), (20, {"solver_order": 3})],
    "CMStochasticIterativeScheduler": [(1, {}), (2, {"clip_denoised": False})],
}  # fmt: skip
"""Settings of each class, with a number of steps."""

NETWORKS: dict[str, dict[str, Any]] = {
    "today": {},
    "of DDPM in TensorFlow": {
        "freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0, "norm_eps": 1e-6, "attention_head_dim": None,
    },
    "of ADM": {
        "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4,
        "downsample_type": "resnet", "upsample_type": "resnet",
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"], "num_class_embeds": 3, "act_fn": "swish",
    },
}  # fmt: skip
SMALL: dict[str, Any] = {
    "sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip


def said(x: Tensor, time: Tensor | float) -> Tensor:
    """What stands for the word of a network at x [B, C, H, W]."""
    return 0.8 * x.sin() + 0.1 * torch.cos(torch.as_tensor(time, dtype=torch.float32) / 300)


def fraction(x: Tensor) -> Tensor:
    """Likewise for its word of the variance."""
    return 0.3 * (x + 1).sin()


def draws() -> Callable[[Tensor], Tensor]:
    """Draws of what stands for noise, always the same in the same order."""
    count = 0

    def draw(like: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return torch.cos(1.7 * count + torch.arange(like.numel(), dtype=torch.float32)).reshape(like.shape)

    return draw


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights of a network, by formula."""
    made = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        values = 0.3 * torch.sin(number + 0.7 * torch.arange(math.prod(shape), dtype=torch.float64))
        made[name] = values.float().reshape(shape) + (1.0 if len(shape) == 1 and name.endswith("weight") else 0.0)
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """A batch of pictures, their times, and classes."""
    x = torch.sin(torch.arange(2 * 3 * 8 * 8, dtype=torch.float32)).reshape(2, 3, 8, 8)
    return x, torch.tensor([3.0, 700.0]), torch.tensor([0, 2])


def _theirs(name: str, steps: int, settings: dict[str, Any]) -> list[float]:
    library = importlib.import_module("diffusers")
    scheduler = getattr(library, name)(**settings)
    module, draw = importlib.import_module(type(scheduler).__module__), draws()
    module.randn_tensor = lambda shape, **_: draw(torch.empty(tuple(shape)))  # type: ignore[attr-defined]
    scheduler.set_timesteps(steps)
    x = START * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, time)
        output = said(seen, time)
        if "learned" in str(settings.get("variance_type")):
            output = torch.cat([output, fraction(seen)], dim=1)
        x = scheduler.step(output, time, x).prev_sample
    return [round(value, 6) for value in x.flatten().tolist()]


def _network(settings: dict[str, Any]) -> list[float]:
    library = importlib.import_module("diffusers")
    network = library.UNet2DModel(**{**SMALL, **settings}).eval()
    network.load_state_dict(weights({key: tuple(value.shape) for key, value in network.state_dict().items()}))
    x, time, labels = inputs()
    with torch.no_grad():
        out = network(x, time, class_labels=labels if "num_class_embeds" in settings else None).sample
    return [round(value, 6) for value in out[:, :, ::3, ::3].flatten().tolist()]


def main() -> None:
    """Write the record."""
    made = {
        "schedulers": {name: [_theirs(name, *case) for case in cases] for name, cases in CASES.items()},
        "networks": {name: _network(settings) for name, settings in NETWORKS.items()},
    }
    RECORD.write_text(json.dumps(made, indent=None, separators=(",", ":")).replace("],[", "],\n[") + "\n")


if __name__ == "__main__":
    main()
