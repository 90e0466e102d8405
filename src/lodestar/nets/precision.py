"""Which number format a device computes fastest in, at an accuracy that pictures do not notice."""

from __future__ import annotations

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def best_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 on GPUs that have it and on CPUs with matrix tiles (AMX), float32 elsewhere.

    CPUs that have bfloat16 instructions but no tiles (avx512_bf16 alone) run convolutions at half their float32 speed in it.
    """
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return torch.bfloat16 if tiles is not None and tiles() else torch.float32
