"""Muon for the matrices of hidden layers, beside AdamW for all other parameters, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lodestar.config import Problem
from lodestar.nets.base import Network
from lodestar.tasks import OptimizerConfig
from lodestar.world import World


class Muon(torch.optim.Optimizer):
    """Muon for matrices of hidden layers, AdamW for the other parameters (Jordan et al. 2024; `torch.optim.Muon`).

    A kernel [O, I, H, W] is the matrix [O, I·H·W], a view of its memory: Muon's update does not depend on the order of columns.
    Its root mean square is that of AdamW's updates (Liu et al. 2025, section 2.2), so both take one rate and one weight decay.
    Of several processes each orthogonalizes a part of the matrices and tells the others, which is most of the work of a step.
    """

    world = World()
    """The processes that take the same steps."""

    def __init__(self, hidden: Sequence[nn.Parameter], others: Sequence[nn.Parameter], settings: OptimizerConfig) -> None:
        shared: dict[str, Any] = {"lr": settings.rate, "weight_decay": settings.weight_decay}
        self.matrices = [_matrix(parameter, parameter) for parameter in hidden]
        self.muon = torch.optim.Muon(self.matrices, **shared, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW([{"params": list(others)}], **shared, betas=settings.betas, fused=True)
        super().__init__([{"params": list(hidden)}, {"params": list(others), **self.adamw.defaults}], shared)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step. The state of both optimizers is this one's `state`, by parameter and in the parameter's shape."""
        assert closure is None, "the gradient is there already"
        hidden, others = self.param_groups
        owners = _divided(self.matrices, self.world.size)
        moved = [number for number, parameter in enumerate(hidden["params"]) if parameter.grad is not None]
        for number in moved:
            parameter, matrix = hidden["params"][number], self.matrices[number]
            slots = self.state[parameter] or {"momentum_buffer": torch.zeros_like(parameter)}
            self.state[parameter] = slots
            momentum, gradient = _matrix(slots["momentum_buffer"], parameter), _matrix(parameter.grad, parameter)
            if owners[number] == self.world.rank:
                matrix.grad, self.muon.state[matrix] = gradient, {"momentum_buffer": momentum}
            else:  # every process has the whole state, as it is saved by one
                momentum.lerp_(gradient, 1 - self.muon.param_groups[0]["momentum"])
        self.adamw.state = self.state
        for group, inner in ((hidden, self.muon), (others, self.adamw)):
            inner.param_groups[0]["lr"] = group["lr"]
            inner.step()  # type: ignore[no-untyped-call]
        for matrix in self.matrices:
            matrix.grad = None  # else the next step's gradients would lie beside these
        self.world.follow([self.matrices[number] for number in moved], [owners[number] for number in moved])


def muon(module: nn.Module, parameters: Sequence[nn.Parameter], settings: OptimizerConfig) -> Muon:
    """The optimizer of some parameters of a module, the hidden layers being its networks'. Raises Problem if there are none."""
    if not hasattr(torch.optim, "Muon"):
        raise Problem(
            f"optimizer 'muon' needs torch 2.9 or newer, this is {torch.__version__}: "
            "take method 'adamw' (train.optimizer.method=adamw)"
        )
    parts = [part for network in module.modules() if isinstance(network, Network) for part in network.hidden]
    known = {id(parameter) for part in parts for parameter in part.parameters() if parameter.ndim > 1}
    hidden = [parameter for parameter in parameters if id(parameter) in known]
    if not hidden:
        raise Problem(
            "optimizer 'muon' is for matrices of hidden layers, and this network names none: "
            "take method 'adamw' (train.optimizer.method=adamw)"
        )
    return Muon(hidden, [parameter for parameter in parameters if id(parameter) not in known], settings)


def _divided(matrices: Sequence[Tensor], processes: int) -> list[int]:
    """The process of each matrix: the largest first, each to the one that has least to multiply."""
    work = [min(each.shape) * each.numel() for each in matrices]
    owners, busy = [0] * len(matrices), [0] * processes
    for number in sorted(range(len(matrices)), key=work.__getitem__, reverse=True):
        owners[number] = busy.index(min(busy))
        busy[owners[number]] += work[number]
    return owners


def _matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """A kernel [O, ...] as a matrix [O, N], its columns in the memory's order of `like`; a view if both are laid out alike."""
    order = sorted(range(1, like.ndim), key=like.stride, reverse=True)
    ordered = tensor.detach().permute(0, *order)
    return ordered.view(len(ordered), -1) if tensor.stride() == like.stride() else ordered.reshape(len(ordered), -1)
