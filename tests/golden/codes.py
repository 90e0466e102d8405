"""Adapters for rosinality/vq-vae-2-pytorch: the quantiser with its updates, VQ-VAE-2 and PixelSNAIL, by their state dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lodestar.conversion.rename import Rule, rename
from lodestar.conversion.rosinality import BOOK, PIXELSNAIL, VQVAE2
from lodestar.nets.codebook import Codebook, CodebookConfig
from lodestar.nets.pixelsnail import PixelSnail, PixelSnailConfig
from lodestar.nets.pyramid import Pyramid, PyramidConfig

from .harness import Case, Check, Left, adapter


def fill(module: nn.Module, state: dict[str, Tensor], rules: Iterable[Rule], case: Case) -> None:
    """Load a case's state by the rules of its names; every name has a place, and every place is filled."""
    module.load_state_dict(rename(state, rules, module.state_dict(), case.path.name))


def buffers(book: Codebook) -> dict[str, Tensor]:
    """The codebook and its averages as the reference has them, [D, K]."""
    return {"embed": book.codes.T, "cluster_size": book.size, "embed_avg": book.total.T}


@adapter("vq")
def quantiser(case: Case) -> Iterator[Check | Left]:
    config, inputs = case.config, case.inputs
    settings = {"decay": config["decay"], "eps": config["eps"], "revive": 0.0}
    book = Codebook(CodebookConfig(codes=config["n_embed"], channels=config["dim"], **settings))
    fill(book, case.state, BOOK, case)
    x = inputs["x"].requires_grad_()
    coded = book(x.movedim(-1, 1))
    quantised = coded.values.movedim(1, -1)
    yield Check("quantize", quantised)
    yield Check("diff", coded.commitment.mean())
    yield Check("indices", coded.numbers)
    # The case's 0.25 is the usual weight of the commitment.
    yield Check("grad_x", torch.autograd.grad((quantised * inputs["cotangent"]).sum() + 0.25 * coded.commitment.mean(), x)[0])
    yield Check("decoded", book.look_up(inputs["codes"]).movedim(1, -1))
    calls = sorted(name.removesuffix(".x") for name in inputs if name.endswith(".x"))
    for call in calls:
        z = inputs[f"{call}.x"].movedim(-1, 1)
        coded = book(z)
        book.follow(z, coded.numbers)
        yield Check(f"{call}.quantize", coded.values.movedim(1, -1))
        yield Check(f"{call}.diff", coded.commitment.mean())
        yield Check(f"{call}.indices", coded.numbers)
        for name, value in buffers(book).items():
            yield Check(f"{call}.{name}", value.clone())
    yield Check("decoded_after", book.look_up(inputs["codes"]).movedim(1, -1))


def pyramid(config: dict[str, Any]) -> PyramidConfig:
    """The network of the reference's arguments, whose decay is not passed on."""
    book = CodebookConfig(codes=config["n_embed"], channels=config["embed_dim"], revive=0.0)
    return PyramidConfig(
        in_channels=config["in_channel"], levels=2, width=config["channel"], blocks=config["n_res_block"],
        hidden=config["n_res_channel"], book=book,
    )  # fmt: skip


@adapter("vqvae2")
def vqvae2(case: Case) -> Iterator[Check | Left]:
    network, x = Pyramid(pyramid(case.config)), case.inputs["x"]
    fill(network, case.state, VQVAE2, case)
    (bottom, z_bottom), (top, z_top) = network.encode(x)
    decoded = network.decode([bottom.values, top.values])
    latent = bottom.commitment.mean() + top.commitment.mean()
    yield Check("dec", decoded)
    yield Check("latent_loss", latent[None])
    for name, level in (("t", top), ("b", bottom)):
        yield Check(f"quant_{name}", level.values)
        yield Check(f"id_{name}", level.numbers)
    yield Check("decoded_code", network.decode(network.look_up([case.inputs["code_b"], case.inputs["code_t"]])))
    error = F.mse_loss(decoded, x)
    loss = error + 0.25 * latent
    loss.backward()
    yield Check("train.dec", decoded)
    yield Check("train.recon_loss", error)
    yield Check("train.latent_loss", latent[None])
    yield Check("train.loss", loss)
    for name in case.under("train.grad."):
        yield Check(name, gradient(network, case.state[name.removeprefix("train.grad.")]))
    for number, (coded, z) in enumerate(((bottom, z_bottom), (top, z_top))):
        book = network.books[number]
        assert isinstance(book, Codebook)
        book.follow(z, coded.numbers)
        for name, value in buffers(book).items():
            yield Check(f"train.quantize_{'bt'[number]}.{name}", value)


def gradient(network: Pyramid, weight: Tensor) -> Tensor:
    """The gradient of the parameter with these values: no two have the same."""
    (found,) = (each for each in network.parameters() if torch.equal(each, weight))
    assert found.grad is not None
    return found.grad


@adapter("pixelsnail")
@torch.no_grad()
def pixelsnail(case: Case) -> Iterator[Check | Left]:
    given = case.config
    told = {} if not given["n_cond_res_block"] else {
        "coarser": True, "told": given["cond_res_channel"], "told_kernel": given["cond_res_kernel"],
        "told_blocks": given["n_cond_res_block"],
    }  # fmt: skip
    config = PixelSnailConfig(
        size=tuple(given["shape"]), codes=given["n_class"], width=given["channel"], kernel=given["kernel_size"],
        blocks=given["n_block"], depth=given["n_res_block"], hidden=given["res_channel"], attention=given["attention"],
        dropout=given["dropout"], out_blocks=given["n_out_res_block"], **told,
    )  # fmt: skip
    network = PixelSnail(config).eval()
    state = case.state
    torch.testing.assert_close(network.places, state.pop("background"))
    fill(network, state, PIXELSNAIL, case)
    codes = case.inputs["codes"]
    features = network.tell(case.inputs["condition"]) if "condition" in case.inputs else None
    logits = network(codes, features)
    yield Check("logits", logits)
    if features is not None:
        yield Check("condition_features", features)
    yield Check("loss", F.cross_entropy(logits, codes))
    yield Check("partial.logits", network(codes[:, : config.size[0] // 2], features))
    greedy = torch.zeros_like(codes)
    for row in range(config.size[0]):
        for column in range(config.size[1]):
            greedy[:, row, column] = network(greedy[:, : row + 1], features)[:, :, row, column].argmax(dim=1)
    yield Check("greedy", greedy)
