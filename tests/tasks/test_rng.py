"""A piece of a batch has the rows of what the whole batch draws."""

from __future__ import annotations

import torch

from lodestar.tasks import Rng


def asked(rng: Rng) -> list[torch.Tensor]:
    """Everything that can be asked for; the normal numbers are of a length at which torch draws them in another way."""
    return [
        rng.integers(10),
        rng.normal(3, 5),
        rng.uniform(),
        rng.draw(lambda count, generator: torch.arange(count)),
        rng.normal(),
    ]


def test_a_whole_batch_draws_what_the_generator_draws() -> None:
    generator = torch.Generator().manual_seed(3)
    expected = [
        torch.randint(10, (7,), generator=generator),
        torch.randn(7, 3, 5, generator=generator),
        torch.rand(7, generator=generator),
        torch.arange(7),
        torch.randn(7, generator=generator),
    ]
    assert all(map(torch.equal, asked(Rng(torch.Generator().manual_seed(3), 7)), expected))


def test_pieces_draw_what_the_whole_batch_draws_and_leave_the_generator_where_it_does() -> None:
    generator = torch.Generator().manual_seed(3)
    rng = Rng(generator, 7)
    pieces = [asked(rng.piece(slice(begin, end))) for begin, end in ((0, 2), (2, 3), (3, 7))]
    whole = Rng(torch.Generator().manual_seed(3), 7)
    assert all(
        torch.equal(torch.cat(parts), of_all) for parts, of_all in zip(zip(*pieces, strict=True), asked(whole), strict=True)
    )
    assert torch.equal(generator.get_state(), whole.generator.get_state())
