"""The pass of a kernel over weights, moments and averages against PyTorch's own functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lodestar.nets.native import native
from lodestar.training import update
from lodestar.training.ema import Average, Decay, HalfLife, Power
from lodestar.training.update import Move

kernel = pytest.mark.skipif(native().library is None, reason=f"no kernels here: {native().why}")

SHAPES = [(3,), (8, 20), (24, 17, 3, 3), (130, 128, 1, 1), (1,), (40_000,)]
PROFILES = (HalfLife(images=50, ramp=1), Decay(decay=0.9), Power())


class Run:
    """Weights with an optimizer and averages, of all of them but the first two, which has no gradient now and then."""

    def __init__(self, **settings: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        values = [torch.randn(shape, generator=generator) for shape in SHAPES]
        self.weights = [
            nn.Parameter(each.contiguous(memory_format=torch.channels_last) if each.ndim == 4 else each) for each in values
        ]
        groups = [{"params": self.weights[:3]}, {"params": self.weights[3:], "betas": (0.5, 0.9)}]
        self.optimizer = torch.optim.AdamW(groups, **{"lr": 1e-2, "betas": (0.9, 0.99), "fused": True} | settings)
        self.averaged = [*self.weights[2:], torch.randn(7, generator=generator)]  # the last is no parameter of the optimizer
        self.averages = [Average(profile, self.averaged) for profile in PROFILES]
        self.generator, self.steps = generator, 0

    def __call__(self, clip: float | None = None) -> None:
        self.steps += 1
        for index, each in enumerate(self.weights):
            gradient = torch.empty_like(each).copy_(torch.randn(each.shape, generator=self.generator))
            each.grad = None if index == 1 and self.steps % 2 else gradient
        norm = torch.nn.utils.get_total_norm([each.grad for each in self.weights if each.grad is not None])
        averages = [(average, average.share(8 * self.steps, 8)) for average in self.averages]
        update.update(Move(self.optimizer, clip, norm), self.averaged, averages)

    def tensors(self) -> Iterator[Tensor]:
        yield from self.weights
        for average in self.averages:
            yield from average.values
        for slots in self.optimizer.state_dict()["state"].values():
            yield from slots.values()


@kernel
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"lr": 0.5, "eps": 1e-3}], ids=str)
def test_the_kernel_moves_weights_and_averages_as_pytorch_does(
    settings: dict[str, Any], clip: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = Run(**settings), Run(**settings)
    stepped = []
    ours.optimizer.register_step_post_hook(lambda *_: stepped.append(ours.steps))
    for _ in range(5):
        ours(clip)
    assert stepped == [1, 2]  # the state of the second weight, which has no gradient at first, is made in the second step
    monkeypatch.setattr(update, "_fits", lambda move: False)
    monkeypatch.setattr(update, "_plain", lambda tensor: False)
    for _ in range(5):
        theirs(clip)
    same = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    for one, other in zip(ours.tensors(), theirs.tensors(), strict=True):
        torch.testing.assert_close(one, other, **({"rtol": 0, "atol": 0} if same else {"rtol": 2e-6, "atol": 1e-7}))


@kernel
def test_a_gradient_in_another_order_of_memory_is_understood() -> None:
    weight = nn.Parameter(torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    twin = nn.Parameter(weight.detach().clone())
    optimizer, plain = torch.optim.AdamW([weight], lr=0.1, fused=True), torch.optim.AdamW([twin], lr=0.1, foreach=False)
    for step in range(3):
        gradient = torch.randn(8, 4, 3, 3)
        weight.grad, twin.grad = (torch.empty_like(weight).copy_(gradient) if step == 0 else gradient), gradient.clone()
        update.update(Move(optimizer, None, torch.tensor(1.0)))
        plain.step()
    torch.testing.assert_close(weight, twin)


@kernel
def test_its_bits_do_not_depend_on_the_number_of_threads() -> None:
    runs, threads = [Run(), Run()], torch.get_num_threads()
    try:
        for count, run in enumerate(runs, 1):
            torch.set_num_threads(count)
            for _ in range(3):
                run(0.5)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*(run.tensors() for run in runs), strict=True))


@pytest.mark.parametrize("other", [torch.optim.Adam, torch.optim.SGD])
def test_other_optimizers_take_their_own_step(other: type[torch.optim.Optimizer]) -> None:
    weight = nn.Parameter(torch.ones(20))
    optimizer, twin = other([weight], lr=0.1), nn.Parameter(torch.ones(20))  # type: ignore[call-arg]
    plain, average = other([twin], lr=0.1), Average(Decay(decay=0.25), [weight])  # type: ignore[call-arg]
    for _ in range(3):
        weight.grad, twin.grad = torch.full((20,), 2.0), torch.full((20,), 2.0)
        update.update(Move(optimizer, None, torch.tensor(9.0)), [weight], [(average, 0.75)])
        plain.step()
    assert torch.equal(weight, twin)
    assert ((average.values[0] - weight).abs() > 0).all()
