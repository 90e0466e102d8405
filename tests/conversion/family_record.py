"""What published code of autoencoders and GANs computes, recorded: networks with weights by formula, and names of large ones.

``python -m tests.conversion.family_record FOLDER`` writes the record anew. FOLDER holds checkouts of the projects, each under its
name: vq-vae-2-pytorch (ef5f67c made this record). Tests read it and need none.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.conversion.diffusers_record import weights

RECORD = Path(__file__).with_suffix(".json")
NAMES = Path(__file__).with_name("family_names.json.gz")
"""Names and shapes of published files, by our names of them."""


def pictures(*shape: int, speed: float = 1.3) -> Tensor:
    """Pictures in [−1, 1], by formula."""
    return torch.sin(speed * torch.arange(torch.Size(shape).numel(), dtype=torch.float32)).reshape(shape)


def thinned(x: Tensor) -> Tensor:
    """Some of the values of pictures [B, C, H, W]."""
    return x[:, :, ::3, ::3]


@contextmanager
def checkout(folder: Path) -> Iterator[None]:
    """Import from a checkout."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's state."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def filled(network: nn.Module) -> dict[str, Any]:
    """The network with weights by formula, for the record."""
    network.eval().load_state_dict(weights(shapes(network)))
    return {"shapes": shapes(network)}


def vqvae2(folder: Path) -> dict[str, Any]:
    """A VQ-VAE-2's reconstruction of pictures."""
    with checkout(folder):
        module = importlib.import_module("vqvae")
    small = module.VQVAE(channel=8, n_res_block=1, n_res_channel=4, embed_dim=4, n_embed=16)
    made = filled(small)
    made["output"] = thinned(small(pictures(2, 3, 16, 16))[0])
    with torch.device("meta"):
        made["names"] = {"vqvae2-ffhq": shapes(module.VQVAE())}
    return made


MAKERS: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {"vqvae2": ("vq-vae-2-pytorch", vqvae2)}
"""Recorders by family, with the folder of the checkout."""


@torch.no_grad()
def main(folder: Path) -> None:
    """Write the record."""
    made, names = {}, {}
    for family, (project, maker) in MAKERS.items():
        told = maker(folder / project)
        names.update(told.pop("names"))
        made[family] = {
            key: [round(each, 6) for each in value.flatten().tolist()] if isinstance(value, Tensor) else value
            for key, value in told.items()
        }
    RECORD.write_text(json.dumps(made, separators=(",", ":")).replace(',"', ',\n"') + "\n")
    NAMES.write_bytes(gzip.compress(json.dumps(names, separators=(",", ":")).encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
