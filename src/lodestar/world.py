"""The processes of a run, as torchrun starts them: each computes a share of every batch, and all take the same step."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor

from lodestar import __version__
from lodestar.config import Note, Problem
from lodestar.data.batch import share

TIMEOUT = "LODESTAR_TIMEOUT"
"""Environment variable: longest wait, in seconds, for the answer of another process. A dead process ends the run at once."""
_USUAL = 3_600.0
"""An hour: the first process alone makes what is kept in the cache, and the others wait."""
_BUCKET = 2**25
"""Number of values that are sent at once."""


class World:
    """A process of a run, with its communication. This class is for a single process; several override it."""

    rank: int = 0
    """Index of the process."""
    size: int = 1
    """Number of processes."""

    def share(self, count: int) -> slice:
        """The rows of a batch of `count` that belong to this process."""
        return share(count, self.rank, self.size)

    def rows(self, count: int) -> range:
        """The numbers of this process's share of `count` pictures. Raises Problem if there are fewer than processes."""
        if count < self.size:
            raise Problem(f"{count} pictures for {self.size} processes: each needs one, start fewer")
        return range(count)[self.share(count)]

    def sum(self, tensors: Sequence[Tensor], sent: torch.dtype | None = None) -> None:
        """Replace every tensor by its sum over the processes, computed in the number format `sent`, or each in its own."""
        return

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors [n, ...] of all processes, concatenated by rank, in the order of the batch."""
        return tensor

    def any(self, flag: bool) -> bool:
        """True on all processes if the flag is true on one."""
        return flag

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """A block that the first process finishes before the others begin; an error in one of them ends all, and is told once."""
        yield

    def agree(self, facts: Mapping[str, object]) -> None:
        """Raise Problem unless these facts are the same on all processes."""
        return

    def follow(self, tensors: Sequence[Tensor], owners: Sequence[int] | None = None) -> None:
        """Replace every tensor by the first process's, or by that of its owner."""
        return


class Processes(World):
    """A process of several, started by torchrun."""

    def __init__(self) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def sum(self, tensors: Sequence[Tensor], sent: torch.dtype | None = None) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([each.detach().reshape(-1).to(sent or each.dtype) for each in bucket])
            with _reached():
                torch.distributed.all_reduce(flat)
            for each, total in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                each.detach().copy_(total.view_as(each))

    def gather(self, tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bool:
            return self.gather(tensor.byte()).bool()
        (lengths,) = self._all(torch.tensor([[len(tensor)]], device=tensor.device)).T.tolist()
        padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor.detach()
        parts = self._all(padded).split(max(lengths))
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def any(self, flag: bool) -> bool:
        flags = torch.tensor([float(flag)])
        self.sum([flags])
        return bool(flags.item())

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        if self.rank > 0:
            self._go_on()
        try:
            yield
        except BaseException:
            self.any(True)
            raise
        self._go_on()
        if self.rank == 0:
            self._go_on()

    def agree(self, facts: Mapping[str, object]) -> None:
        told: list[Mapping[str, object]] = [{}] * self.size
        with _reached():
            torch.distributed.all_gather_object(told, {name: str(value) for name, value in facts.items()})
        for rank, theirs in enumerate(told):
            for name in {**told[0], **theirs}:
                value, first = (each.get(name, "not given") for each in (theirs, told[0]))
                if value == first:
                    continue
                if self.rank > 0:
                    raise SystemExit(2)  # the first process tells
                raise Problem(f"process {rank} has {name} {value}, and process 0 has {first}: they have to be the same")

    def follow(self, tensors: Sequence[Tensor], owners: Sequence[int] | None = None) -> None:
        for each, owner in zip(tensors, owners or [0] * len(tensors), strict=True):
            if self.rank != owner:
                each.detach().zero_()
        self.sum(tensors)

    def _go_on(self) -> None:
        """End this process quietly if the one whose turn it was has failed, and has said why."""
        if self.any(False):
            raise SystemExit(2)

    def _all(self, tensor: Tensor) -> Tensor:
        """Tensors [n, ...] of equal length of all processes, concatenated."""
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        with _reached():
            torch.distributed.all_gather(parts, tensor)
        return torch.cat(parts)


def here() -> World:
    """The world of this process, as torchrun, or another launcher with the same variables, describes it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return World()
    import torch.distributed
    import torch.distributed.nn.functional  # before there is a group, or it keeps that in its defaults

    if not torch.distributed.is_initialized():
        local, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if devices:
            torch.cuda.set_device(local % devices)
        # NCCL wants a GPU for each process.
        alone = devices >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        with _reached():
            torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if devices and alone else "gloo", timeout=_timeout())
        atexit.register(torch.distributed.destroy_process_group)
        atexit.register(gc.collect)  # runs before it: modules in shards hold the group, and are in cycles
        if torch.distributed.get_rank() > 0:
            warnings.simplefilter("ignore", Note)
        Processes().agree({"lodestar": __version__, "torch": torch.__version__, **_options(sys.argv[1:])})
    return Processes()


def _timeout() -> timedelta:
    """The longest wait. Raises Problem where the environment has no such number."""
    told = os.environ.get(TIMEOUT) or _USUAL
    try:
        return timedelta(seconds=min(max(float(told), 1.0), 1e6))
    except ValueError:
        raise Problem(f"{TIMEOUT} is {told!r}: give a number of seconds") from None


def _options(words: Sequence[str]) -> dict[str, str]:
    """The values of a command's words, by the option or the setting that they belong to, so that a difference has a name."""
    found: dict[str, list[str]] = {}
    name = "arguments"
    for word in words:
        setting, equals, value = word.partition("=")
        if word.startswith("--"):
            name = setting
            found.setdefault(name, []).extend([value] if equals else [])
        elif equals and name == "arguments":
            found.setdefault(setting, []).append(value)
        else:
            found.setdefault(name, []).append(word)
    return {name: " ".join(values) or "given" for name, values in found.items()}


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor in shards, for which all processes ask; another tensor as it is."""
    return cast(Any, tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor in shards that is this process's; another tensor as it is."""
    return cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of one device and type, and of not many more values than are sent at once."""
    for _, alike in groupby(tensors, lambda each: (each.device, each.dtype)):
        bucket: list[Tensor] = []
        for each in alike:
            bucket.append(each)
            if sum(map(Tensor.numel, bucket)) >= _BUCKET:
                yield bucket
                bucket = []
        if bucket:
            yield bucket


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """A context of communication: a process that cannot be reached is a Problem."""
    try:
        yield
    except RuntimeError as error:
        why = re.sub(r"\[[^]]*]", "", str(error)).strip().partition(".")[0].strip()
        raise Problem(f"another process of this run has ended, or cannot be reached ({why}): the same command goes on") from error
