"""Training a VQ-VAE or VQ-VAE-2: reconstruction, commitment to the codes, and codes that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.codecs import VQVAECodec, pixels
from lodestar.data.batch import Batch
from lodestar.generators.autoencoder import VQVAE
from lodestar.nets.precision import place
from lodestar.objectives import Losses
from lodestar.tasks.autoencode import TrainCodec
from lodestar.tasks.base import Export, Learner, Phase
from lodestar.tasks.rng import Rng


class TrainVQVAE(TrainCodec):
    """A VQ-VAE of pictures."""

    kind: Literal["vqvae"] = "vqvae"
    model: VQVAECodec = VQVAECodec()
    commitment: float = Field(default=0.25, ge=0, le=1e6)
    """Weight of the distance that pulls vectors to their codes (β of equation 3)."""
    pull: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the distance that pulls codes to their vectors, where they learn by gradient."""

    def build(self, device: torch.device, dtype: torch.dtype) -> VQVAELearner:
        return VQVAELearner(self, device, dtype)


class VQVAELearner(Learner):
    """The learner of `TrainVQVAE`."""

    def __init__(self, task: TrainVQVAE, device: torch.device, dtype: torch.dtype) -> None:
        self.task, self.device = task, device
        self.module = self.model = place(VQVAE(task.model), device)
        self.model.dtype = dtype

    def phases(self) -> list[Phase]:
        return [Phase("vqvae", [each for each in self.module.parameters() if each.requires_grad], self.loss, self.remember)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        """The squared error of a batch and the distances from the codes, over all levels."""
        task, network = self.task, self.model.network
        x = pixels.encode(batch.image.to(self.device))
        found = network.encode(x, self.model.dtype)
        error = (network.decode([coded.values for coded, _ in found], self.model.dtype) - x).square().flatten(1).mean(dim=1)
        commitment = torch.stack([coded.commitment for coded, _ in found]).sum(dim=0)
        total = error + task.commitment * commitment
        if task.model.network.book.learning == "gradient":
            total = total + task.pull * torch.stack([coded.pull for coded, _ in found]).sum(dim=0)
        terms, noted = {"mse": error.detach(), "commitment": commitment.detach()}, dict[str, Tensor]()
        for level, (name, (coded, z)) in enumerate(zip(task.model.network.names, found, strict=True)):
            book = network.book(level)
            terms |= {f"perplexity/{name}": book.perplexity.expand(len(x)), f"alive/{name}": book.alive.expand(len(x))}
            draws = rng.draw(partial(_uniform, coded.numbers.shape[1:]))
            noted |= {f"{level}/z": z.detach(), f"{level}/numbers": coded.numbers, f"{level}/draws": draws}
        return Losses(total, terms, noted)

    def remember(self, noted: Mapping[str, Tensor]) -> None:
        """Have the codes follow the vectors of a step, and learn the vectors' moments."""
        for level in range(self.task.model.network.levels):
            z, numbers, draws = (noted[f"{level}/{name}"] for name in ("z", "numbers", "draws"))
            self.model.network.book(level).follow(z, numbers, draws)
        self.model.follow(noted["0/z"])

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        errors, generator = [], torch.Generator(device=self.device).manual_seed(0)
        for batch in batches():
            errors.append(self.loss(batch, Rng(generator, len(batch))).terms["mse"])
        return {"held_out/mse": torch.cat(errors).double().mean().item()}

    def compile(self) -> None:
        self.model.network.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "vqvae", self.task.model.to_json())}


def _uniform(shape: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    return torch.rand((count, *shape), generator=generator, device=generator.device)
