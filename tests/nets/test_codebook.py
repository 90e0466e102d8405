"""The codebook: the search is exact, learning ends at the data, dead codes come back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lodestar.nets import codebook
from lodestar.nets.codebook import Codebook, CodebookConfig, nearest


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few codes are searched in 16 bits too, where it is asked for."""
    monkeypatch.setattr(codebook, "_MANY", 1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def explicit(vectors: Tensor, codes: Tensor) -> Tensor:
    return (vectors.double()[:, None] - codes.double()).square().sum(2).argmin(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("codes", "channels", "away"), [(1, 3, 0.0), (7, 1, 0.0), (33, 5, 100.0), (700, 16, 3.0)])
def test_the_nearest_code_is_found_exactly(dtype: torch.dtype, codes: int, channels: int, away: float) -> None:
    book, vectors = normal(codes, channels, seed=1) + away, normal(300, channels) + away
    assert torch.equal(nearest(vectors, book, dtype), explicit(vectors, book))
    close = book[torch.arange(300) % codes] + 0.05 * normal(300, channels)  # as trained vectors are
    assert torch.equal(nearest(close, book, dtype), explicit(close, book))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_codes_the_first_is_taken(dtype: torch.dtype) -> None:
    book = normal(5, 4).repeat(40, 1)  # so many that 16 bits leave too much in question
    assert torch.equal(nearest(normal(50, 4, seed=1), book, dtype), explicit(normal(50, 4, seed=1), book[:5]))


@pytest.mark.parametrize("learning", ["average", "gradient"])
def test_as_many_codes_as_points_have_distance_zero(learning: str) -> None:
    book = Codebook(CodebookConfig(codes=24, channels=3, learning=learning, decay=0.0, revive=0.1))
    points = normal(4, 3, 2, 3, seed=5)  # 24 of them
    for step in range(30):
        coded = book(points)
        if learning == "gradient":
            (grad,) = torch.autograd.grad(coded.pull.sum(), book.codes)
            book.codes.data -= 4.5 * grad  # half of the way to a single point
        draws = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(step))
        book.follow(points, coded.numbers, draws)
    coded = book(points)
    assert float(coded.commitment.detach().max()) < 1e-10
    assert len(coded.numbers.unique()) == 24
    assert float(book.alive) == 1.0


def test_each_distance_has_its_gradient_and_values_pass_theirs_through() -> None:
    book, z = Codebook(CodebookConfig(codes=6, channels=3, learning="gradient")), normal(2, 3, 4, 4).requires_grad_()
    coded = book(z)
    through = normal(2, 3, 4, 4, seed=2)
    (grad,) = torch.autograd.grad((coded.values * through).sum(), z, retain_graph=True)
    assert torch.equal(grad, through)
    coded.pull.sum().backward(retain_graph=True)
    assert z.grad is None and book.codes.grad is not None
    chosen = book.look_up(coded.numbers)
    (grad,) = torch.autograd.grad(coded.commitment.sum(), z)
    torch.testing.assert_close(grad, 2 * (z - chosen) / z[0].numel())


def test_unused_codes_move_to_vectors_and_used_ones_do_not() -> None:
    book = Codebook(CodebookConfig(codes=4, channels=2, decay=0.5, revive=0.5))
    with torch.no_grad():
        book.codes.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [50.0, 50.0], [90.0, 0.0]]))
        book.total.copy_(book.codes)
        book.size.fill_(1.0)
    z = torch.tensor([[0.0, 0.0], [0.0, 0.1], [1.0, 0.0], [1.0, 0.2], [1.0, 9.0], [0.0, 9.0]]).T[None]
    for step in range(4):
        index = book(z).numbers
        book.follow(z, index, torch.rand(index.shape, generator=torch.Generator().manual_seed(step)))
    assert book.codes[2:, 0].max() <= 1  # the far ones are among the data
    assert book.codes[2:, 1].max() > 4  # where the others were worst
    assert float(book.perplexity) > 2.5


def test_perplexity_counts_codes_used_alike() -> None:
    book = Codebook(CodebookConfig(codes=8))
    book.size[:5] = 3.0
    torch.testing.assert_close(book.perplexity, torch.tensor(5.0))
    assert float(book.alive) == 5 / 8
