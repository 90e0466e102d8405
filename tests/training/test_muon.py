"""Muon moves the matrices of hidden layers, AdamW all else; a run goes on with it to the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from lodestar.config import Problem, decode
from lodestar.data import DataFacts
from lodestar.nets.layers import Conv2d
from lodestar.nets.unet import UNet
from lodestar.tasks import OptimizerConfig
from lodestar.training.loop import train
from lodestar.training.muon import Muon, muon
from lodestar.training.start import start
from lodestar.training.step import Snapshot, Step
from lodestar.world import World

from .runs import assert_same, denoising

MUON = OptimizerConfig(method="muon", rate=1e-3, weight_decay=0.01, warmup_images=16, fall="cosine", clip=0.5)
FACTS = DataFacts(3, (8, 8), ("a", "b", "c"))


def parameters(layout: torch.memory_format = torch.channels_last) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    """A kernel, a matrix and a bias with gradients."""
    rng = torch.Generator().manual_seed(0)
    kernel, matrix, bias = (nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((6, 4, 3, 3), (5, 7), (6,)))
    kernel.data = kernel.data.to(memory_format=layout)
    for each in (kernel, matrix, bias):
        each.grad = torch.randn(each.shape, generator=rng)  # in another order of memory than the kernel
    return kernel, matrix, bias


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_kernels_are_matrices_and_the_rest_is_adamws(layout: torch.memory_format) -> None:
    kernel, matrix, bias = parameters(layout)
    copies = [nn.Parameter(each.detach().clone().flatten(1)) for each in (kernel, matrix)]
    plain = nn.Parameter(bias.detach().clone())
    shared = {"lr": MUON.rate, "weight_decay": MUON.weight_decay}
    flat = torch.optim.Muon(copies, **shared, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([plain], **shared, betas=MUON.betas)
    both = Muon([kernel, matrix], [bias], MUON)
    before = kernel.detach().clone()
    for _ in range(3):
        for copy, each in zip((*copies, plain), (kernel, matrix, bias), strict=True):
            assert each.grad is not None
            copy.grad = each.grad.reshape(copy.shape).clone()
        for optimizer in (flat, adamw, both):
            optimizer.step()
    moved = (kernel.detach() - before).norm()
    # Muon orthogonalizes in 16 bits, so another order of columns rounds otherwise.
    assert (kernel.detach().flatten(1) - copies[0]).norm() < 0.02 * moved
    assert torch.equal(matrix, copies[1])
    assert torch.allclose(bias, plain, atol=1e-7)
    assert both.state[kernel]["momentum_buffer"].stride() == kernel.stride()
    assert all(each.grad is None for each in both.matrices), "gradients end with zero_grad, before the next ones are made"


def test_updates_have_adamws_size(tmp_path: Path) -> None:
    """At its first step AdamW moves each weight by the rate; Muon's matrices move by 0.2 of it in the root mean square."""
    kernel, matrix, bias = parameters()
    before = [each.detach().clone() for each in (kernel, matrix, bias)]
    Muon([kernel, matrix], [bias], MUON.replace(weight_decay=0.0)).step()
    sizes = [
        (each.detach() - old).square().mean().sqrt().item() for each, old in zip((kernel, matrix, bias), before, strict=True)
    ]
    assert sizes == [pytest.approx(2e-4, rel=0.3), pytest.approx(2e-4, rel=0.3), pytest.approx(1e-3, rel=0.01)]


def test_first_and_last_layers_norms_and_embeddings_are_adamws(tmp_path: Path) -> None:
    run = denoising("", optimizer=MUON)
    state = start(run.replace(task=run.task.resolve(FACTS)), tmp_path)
    (optimizer,) = state.optimizers.values()
    names = {id(parameter): name for name, parameter in state.learner.module.named_parameters()}
    hidden, others = ([names[id(each)] for each in group["params"]] for group in optimizer.param_groups)
    assert sorted(hidden + others) == sorted(names.values())
    network = "denoiser.network."
    expected = {f"{network}{part}" for part in ("stem.weight", "head.weight", "time.linear1.weight", "time.linear2.weight")}
    shapes = {name: parameter.ndim for name, parameter in state.learner.module.named_parameters()}
    assert {name for name in others if shapes[name] > 1} == {*expected, "denoiser.label.table.weight"}
    assert all(shapes[name] > 1 and name.startswith(network) for name in hidden)


@pytest.mark.parametrize("images_seen", [24, 40])
def test_a_run_with_muon_goes_on_to_the_same_bits(
    images_seen: int, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = denoising(pictures, optimizer=MUON, images=64)
    train(run, tmp_path / "whole")
    phases = Step._phases

    def dies(self: Step, *args: object) -> object:
        if self.state.counters.images_seen == images_seen:
            raise RuntimeError("power cut")
        return phases(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Step, "_phases", dies)
        with pytest.raises(RuntimeError):
            train(run, tmp_path / "run")
    train(run, tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")


class Told(World):
    """One of two processes, which hears what the other one made."""

    size = 2

    def __init__(self, rank: int) -> None:
        self.rank, self.made = rank, {}  # type: ignore[var-annotated]

    def follow(self, tensors: Sequence[torch.Tensor], owners: Sequence[int] | None = None) -> None:
        self.made = {
            place: each for place, (each, owner) in enumerate(zip(tensors, owners or (), strict=True)) if owner == self.rank
        }


def test_each_of_two_processes_makes_a_part_of_the_step_of_one() -> None:
    alone, pair = parameters(), (parameters(), parameters())
    optimizers, worlds = [Muon(each[:2], each[2:], MUON) for each in (alone, *pair)], (Told(0), Told(1))
    for optimizer, world in zip(optimizers[1:], worlds, strict=True):
        optimizer.world = world
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.step()
        assert all(len(world.made) == 1 for world in worlds)
        assert {*worlds[0].made} | {*worlds[1].made} == {0, 1}
        for optimizer in optimizers[1:]:
            for world in worlds:
                for place, matrix in world.made.items():
                    optimizer.matrices[place].copy_(matrix)
    for others, optimizer in zip(pair, optimizers[1:], strict=True):
        for each, other in zip(alone, others, strict=True):
            assert torch.equal(each, other)
            for name, slot in optimizers[0].state[each].items():
                assert torch.equal(slot, optimizer.state[other][name])


@pytest.mark.parametrize("steps", [0, 2])
def test_an_undone_step_leaves_no_trace(steps: int) -> None:
    made, twin = parameters(), parameters()
    optimizers = [Muon(each[:2], each[2:], MUON) for each in (made, twin)]
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.step()
    snapshot = Snapshot(made, optimizers[0])
    optimizers[0].step()
    snapshot.restore()
    for optimizer in optimizers:
        optimizer.step()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(made, twin, strict=True))


def test_networks_without_hidden_matrices_are_refused() -> None:
    layer = Conv2d(3, 3, 3)
    with pytest.raises(Problem, match=r"this network names none: take method 'adamw' \(train\.optimizer\.method=adamw\)"):
        muon(layer, list(layer.parameters()), MUON)
    with pytest.raises(Problem, match=r"method is 'soap'"):
        OptimizerConfig(method="soap")  # type: ignore[arg-type]
    assert decode(OptimizerConfig, {"rate": 1e-3}).method == "adamw", "as files from before there were several say"


def test_old_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network = denoising("").task.model.denoiser.network.build()  # type: ignore[union-attr]
    assert isinstance(network, UNet)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(Problem, match=r"needs torch 2\.9 or newer"):
        muon(network, list(network.parameters()), MUON)
