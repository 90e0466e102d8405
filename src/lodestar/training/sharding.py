"""A run's state in shards, one for each process: PyTorch's fully sharded data parallelism (FSDP2).

Weights, gradients, optimizer and averages are `DTensor`s, of which each process has its part. Blocks of the networks are gathered
for their own forward and backward pass alone, all other weights for the whole pass. Files hold whole tensors, so a run goes on
with any number of processes, sharded or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lodestar.config import Problem
from lodestar.nets.text import TextBlock
from lodestar.nets.unet import Stage
from lodestar.objectives import Losses
from lodestar.tasks import Learner
from lodestar.training.run import Run
from lodestar.world import World

T = TypeVar("T")

_BLOCKS = (Stage, TextBlock)
"""Modules that are gathered by themselves."""


class _Whole(nn.Module):
    """The module whose forward pass is any call that uses the weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, call: Callable[[], T]) -> T:
        return call()


class Shards:
    """The shards of a module's weights on a device, of which this process has its own.

    reduce: number format in which gradients are summed.
    """

    def __init__(self, module: nn.Module, world: World, device: torch.device, reduce: torch.dtype) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        self.mesh = init_device_mesh(device.type, (world.size,))
        # DTensor's caches keep a mesh to the end. It finds its group by name, and is not to keep its threads running.
        getattr(self.mesh, "_pg_registry", {}).clear()
        for parameter in module.parameters():
            parameter.data = parameter.data.contiguous()  # rows are divided in the order of memory
        whole, policy = _Whole(module), MixedPrecisionPolicy(reduce_dtype=reduce)
        for block in module.modules():
            if isinstance(block, _BLOCKS):
                fully_shard(block, mesh=self.mesh, mp_policy=policy)
        # Losses are weighted by the whole batch, so gradients are summed, not averaged.
        self.whole: Any = fully_shard(whole, mesh=self.mesh, mp_policy=policy)
        for each in whole.modules():
            if isinstance(each, FSDPModule):
                each.set_gradient_divide_factor(1.0)
                each.set_force_sum_reduction_for_comms(True)  # gloo has no other

    def run(self, call: Callable[[], T], last: bool = True) -> T:
        """The result of a call that uses the weights: losses, codes, or anything without a gradient.

        All processes make the same calls. last: the gradients of this call's backward pass, and those before, are summed.
        """
        self.whole.set_requires_gradient_sync(last)
        kept: list[T] = []

        def graded() -> Any:
            kept.append(call())
            return kept[0].total if isinstance(kept[0], Losses) else kept[0]

        self.whole(graded)
        if not torch.is_grad_enabled():
            self.whole.reshard()
        return kept[0]

    def part(self, tensor: Tensor) -> Tensor:
        """The whole tensor, the same on all processes, in shards as those of a weight of its shape."""
        from torch.distributed.tensor import Shard, distribute_tensor

        # In the memory layout of the weights, which a fused optimizer requires.
        return distribute_tensor(tensor.contiguous(), self.mesh, [Shard(0)], src_data_rank=None)


def check_shards(run: Run, learner: Learner, world: World) -> None:
    """Raise Problem where a run is to be sharded and cannot be."""
    if run.train.shard == "none" or world.size == 1:
        return
    sizes = {run.train.batch_at(share * run.train.images) for share in (0, *run.train.batch_doublings)}  # type: ignore[arg-type]
    if odd := [size for size in sorted(sizes) if size % world.size]:
        raise Problem(f"--shard full: a batch of {odd[0]} cannot be shared evenly by {world.size} processes")
    if len(phases := learner.phases()) > 1:
        raise Problem(f"--shard full: task {run.task.kind!r} has {len(phases)} phases, and one alone can be sharded")
    if (phases[0].optimizer or run.train.optimizer).method == "muon":
        raise Problem("--shard full: train.optimizer.method 'muon' needs whole matrices, take 'adamw'")
    if run.train.reduce != "float32" and run.train.microbatch is not None:
        raise Problem("--shard full: train.reduce 'bfloat16' would add up pieces in it too, leave train.microbatch out")
    if run.train.compile:
        raise Problem("--shard full: train.compile is for whole weights, leave one of them out")
