"""The models of digits that can be embedded, one of every kind, each a preset with its changes."""

from __future__ import annotations

from collections.abc import Mapping

LIMIT = 6_000_000
"""Bytes of all of them together, with weights of 16 bits."""

_NARROW = "task.model.network.width=16"

DIGITS: Mapping[str, tuple[str, ...]] = {
    "digits_ae": ("digits.ae",),
    "digits_dae": ("digits.dae",),
    "digits_vae": ("digits.vae",),
    "digits_vqvae": ("digits.vqvae",),
    "digits_vqvae2": ("digits.vqvae2",),
    "digits_vqvae_prior": ("digits.vqvae_prior", "--codes runs/digits_vqvae"),
    "digits_gan": ("digits.gan",),
    "digits_ddgan": ("digits.ddgan",),
    "digits_diffusion": ("digits", "task.model.denoiser.network.width=16"),
    "digits_classifier": ("digits_classifier", _NARROW),
    "digits_discriminator": ("digits.discriminator", _NARROW, "--against digits_diffusion"),
}
"""Names of the models, with the words of ``lodestar train`` for each, in an order in which all can be trained and embedded. A
discriminator names the very file of its model, so that has to be the embedded one."""


def commands() -> list[str]:
    """The commands that train and embed all of them."""
    made = []
    for name, words in DIGITS.items():
        made.append(f"lodestar train {' '.join(words)} --out runs/{name}")
        made.append(f'python scripts/embed.py runs/{name} {name} --preset {words[0]} --hardware "…"')
    return made
