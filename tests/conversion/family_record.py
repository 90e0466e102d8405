"""What published code of autoencoders and GANs computes, recorded: networks with weights by formula, and names of large ones.

``python -m tests.conversion.family_record FOLDER`` writes the record anew, where diffusers is installed (0.42.1 made this one).
FOLDER holds checkouts, each under its project's name: vq-vae-2-pytorch (ef5f67c), DALL-E (5be4b23), denoising-diffusion-gan
(6818ded) and pytorch-pretrained-BigGAN (1e18aed). Tests need none of them.
"""

from __future__ import annotations

import gzip
import importlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
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


def dvae(folder: Path) -> dict[str, Any]:
    """DALL·E's discrete VAE: codes of pictures, and what is decoded, by the functions of its notebook."""
    sys.modules.setdefault("requests", ModuleType("requests"))  # for a download that is not asked for
    with checkout(folder):
        module = importlib.import_module("dall_e")
    # 64 channels and 512 codes are the fewest that it takes.
    sizes = {"n_hid": 64, "vocab_size": 512, "n_blk_per_group": 1}
    encoder, decoder = module.Encoder(**sizes), module.Decoder(**sizes, n_init=8)
    both = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    both.load_state_dict(scattered(shapes(both)))
    made: dict[str, Any] = {"shapes": shapes(both)}
    codes = encoder(module.map_pixels((pictures(2, 3, 16, 16) + 1) / 2)).argmax(dim=1)
    seen = decoder(F.one_hot(codes, 512).movedim(-1, 1).float())
    made["codes"], made["output"] = codes, thinned(2 * module.unmap_pixels(torch.sigmoid(seen[:, :3])) - 1)
    whole = {"encoder": module.Encoder(device="meta"), "decoder": module.Decoder(device="meta")}
    names = {f"{name}.{key}": shape for name, network in whole.items() for key, shape in shapes(network).items()}
    return {**made, "names": {"dalle-dvae": names}}


DDGAN: dict[str, Any] = {
    "num_channels": 3, "centered": True, "num_channels_dae": 16, "n_mlp": 2, "ch_mult": [1, 2], "num_res_blocks": 1,
    "attn_resolutions": (8,), "dropout": 0.0, "resamp_with_conv": True, "conditional": True, "fir": True,
    "fir_kernel": [1, 3, 3, 1], "skip_rescale": True, "resblock_type": "biggan", "progressive": "none",
    "progressive_input": "residual", "progressive_combine": "sum", "embedding_type": "positional", "fourier_scale": 16.0,
    "not_use_tanh": False, "image_size": 16, "nz": 10, "z_emb_dim": 12, "num_timesteps": 4, "use_geometric": False,
    "beta_min": 0.1, "beta_max": 20.0,
}  # fmt: skip
"""Flags of a small denoising diffusion GAN."""
DDGAN_FILES: dict[str, dict[str, Any]] = {
    "ddgan-cifar10": {
        "image_size": 32, "num_channels_dae": 128, "num_res_blocks": 2, "nz": 100, "z_emb_dim": 256, "n_mlp": 4,
        "ch_mult": [1, 2, 2, 2], "attn_resolutions": (16,),
    },
    "ddgan-celebahq-256": {
        "image_size": 256, "num_channels_dae": 64, "num_res_blocks": 2, "nz": 100, "z_emb_dim": 256, "n_mlp": 3,
        "ch_mult": [1, 1, 2, 2, 4, 4], "attn_resolutions": (16,),
    },
}  # fmt: skip
"""Flags of the published ones: the README's, and defaults."""


def ddgan(folder: Path) -> dict[str, Any]:
    """A denoising diffusion GAN's x̂₀, and the coefficients of its posterior by step."""
    # Its operators are compiled for GPUs where they are imported; the plain one beside them is taken.
    source, plain = (folder / "score_sde/op/upfirdn2d.py").read_text(), {"F": F, "torch": torch}
    exec(source[source.index("def upfirdn2d_native") :], plain)
    operators, judge = ModuleType("score_sde.op"), ModuleType("pytorch_fid.fid_score")
    operators.upfirdn2d = lambda x, kernel, up=1, down=1, pad=(0, 0): plain["upfirdn2d_native"](  # type: ignore[attr-defined]
        x, kernel, up, up, down, down, *pad, *pad
    )
    judge.calculate_fid_given_paths = None  # type: ignore[attr-defined]
    sys.modules |= {"score_sde.op": operators, "torchvision": ModuleType("torchvision"), "pytorch_fid.fid_score": judge}
    with checkout(folder):
        network = importlib.import_module("score_sde.models.ncsnpp_generator_adagn").NCSNpp
        script = importlib.import_module("test_ddgan")
    flags = SimpleNamespace(**DDGAN)
    small = network(flags)
    made = filled(small)
    x, z = pictures(2, 3, 16, 16), pictures(2, 10, speed=0.7)
    made["output"] = thinned(small(x, torch.tensor([0, 3]), z))
    steps = script.Posterior_Coefficients(flags, "cpu")
    made["posterior"] = torch.stack([steps.posterior_mean_coef1, steps.posterior_mean_coef2, steps.posterior_variance])
    names = {name: shapes(network(SimpleNamespace(**{**DDGAN, **each}))) for name, each in DDGAN_FILES.items()}
    return {**made, "names": names}


BIGGANS: dict[int, tuple[int, ...]] = {
    128: (16, 16, 8, 4, 2, 1), 256: (16, 16, 8, 8, 4, 2, 1), 512: (16, 16, 8, 8, 4, 2, 1, 1),
}  # fmt: skip
"""Factors of width of the published BigGAN-deeps, from the coarsest resolution, by size."""
SMALL_GAN: dict[str, Any] = {
    "z_dim": 6, "class_embed_dim": 6, "channel_width": 8, "num_classes": 5, "n_stats": 11, "attention_layer_position": 4,
}  # fmt: skip


def layers(factors: tuple[int, ...]) -> list[tuple[bool, int, int]]:
    """The layers of a BigGAN-deep: doubling or not, factors of width before and after."""
    return [each for pair in itertools.pairwise(factors) for each in ((False, pair[0], pair[0]), (True, *pair))]


def biggan(folder: Path) -> dict[str, Any]:
    """A BigGAN-deep's pictures at some truncations, all at one of its statistics."""
    for name in ("boto3", "botocore", "botocore.exceptions", "requests"):  # for downloads that are not asked for
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["botocore.exceptions"].ClientError = RuntimeError  # type: ignore[attr-defined]
    package = ModuleType("biggan_record")
    package.__path__ = [str(folder / "pytorch_pretrained_biggan")]
    sys.modules["biggan_record"] = package
    module, settings = (importlib.import_module(f"biggan_record.{name}") for name in ("model", "config"))
    small = module.BigGAN(settings.BigGANConfig(**SMALL_GAN, layers=layers((16, 8, 4, 2, 1))))
    made: dict[str, Any] = {"shapes": shapes(small)}
    small.eval().load_state_dict(gan_weights(shapes(small)))
    z, label = pictures(2, 6, speed=0.7), torch.eye(5)[[1, 4]]
    made["output"] = torch.stack([small(z, label, truncation)[:, :, ::9, ::9] for truncation in (1.0, 0.5)])
    with torch.device("meta"):
        names = {
            f"biggan-deep-{size}": shapes(module.BigGAN(settings.BigGANConfig(output_dim=size, layers=layers(factors))))
            for size, factors in BIGGANS.items()
        }
    return {**made, "names": names}


def gan_weights(every: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights of a BigGAN-deep: variances are positive, and each norm's vectors are those of a singular value."""
    made = scattered(every)
    for name, tensor in made.items():
        if name.endswith("running_vars"):
            made[name] = tensor.square() + 0.5
        elif name.endswith("gamma"):
            made[name] = tensor + 1
    for name in [name for name in made if name.endswith("weight_orig")]:
        left, _, right = torch.linalg.svd(made[name].flatten(1), full_matrices=False)
        made[name.replace("_orig", "_u")], made[name.replace("_orig", "_v")] = left[:, 0], right[0]
    return made


def scattered(every: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights as irregular as random ones, by formula, each scaled by its inputs: for networks without norms."""
    made = {}
    for number, (name, shape) in enumerate(sorted(every.items())):
        count = torch.Size(shape).numel()
        spread = 0.1 if len(shape) == 1 else 2 * (shape[0] / count) ** 0.5
        waves = 1e4 * torch.sin(number + 12.9 * torch.arange(count, dtype=torch.float64))
        made[name] = spread * (2 * waves.frac().abs() - 1).float().reshape(shape)
    return made


DIFFUSERS: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {"latent_channels": 3},
    "AutoencoderKL without": {
        "latent_channels": 5, "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False,
        "shift_factor": 0.5, "scaling_factor": 2.0,
    },
    "VQModel": {
        "latent_channels": 5, "vq_embed_dim": 3, "num_vq_embeddings": 16,
        "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    },
}  # fmt: skip
"""Settings of small autoencoders of diffusers, beside those of all."""
SMALL: dict[str, Any] = {
    "block_out_channels": [8, 16], "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 16,
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
}  # fmt: skip
FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd-vae-ft-mse": ("AutoencoderKL", {
        "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4, "sample_size": 256,
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    }),
    "ldm-celebahq-256": ("VQModel", {
        "block_out_channels": [128, 256, 512], "layers_per_block": 2, "latent_channels": 3, "num_vq_embeddings": 8192,
        "sample_size": 256, "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
    }),
}  # fmt: skip
"""Settings of published folders of diffusers."""


def autoencoders() -> dict[str, Any]:
    """Autoencoders of diffusers: latents of pictures, and what is decoded."""
    library = importlib.import_module("diffusers")
    made: dict[str, Any] = {}
    for name, changes in DIFFUSERS.items():
        network = getattr(library, name.partition(" ")[0])(**{**SMALL, **changes})
        told = made[name] = {"settings": dict(network.config), **filled(network)}
        x = pictures(2, 3, 16, 16)
        coded = network.encode(x)
        z = coded.latents if name == "VQModel" else coded.latent_dist.mean
        told["latents"], told["output"] = z, thinned(network.decode(z).sample)
        told["logvar"] = z if name == "VQModel" else coded.latent_dist.logvar
    with torch.device("meta"):
        names = {name: shapes(getattr(library, kind)(**settings)) for name, (kind, settings) in FOLDERS.items()}
    return {"families": made, "names": names}


MAKERS: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "vqvae2": ("vq-vae-2-pytorch", vqvae2),
    "dvae": ("DALL-E", dvae),
    "ddgan": ("denoising-diffusion-gan", ddgan),
    "biggan": ("pytorch-pretrained-BigGAN", biggan),
}  # fmt: skip
"""Recorders by family, with the folder of the checkout."""


@torch.no_grad()
def main(folder: Path) -> None:
    """Write the record."""
    told = autoencoders()
    made, names = told["families"], told["names"]
    for family, (project, maker) in MAKERS.items():
        made[family] = maker(folder / project)
        names.update(made[family].pop("names"))
    flat = {
        family: {
            key: [round(each, 6) for each in value.flatten().tolist()] if isinstance(value, Tensor) else value
            for key, value in told.items()
        }
        for family, told in made.items()
    }
    RECORD.write_text(json.dumps(flat, separators=(",", ":")).replace(',"', ',\n"') + "\n")
    NAMES.write_bytes(gzip.compress(json.dumps(names, separators=(",", ":")).encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
