"""Lists of noise levels."""

from __future__ import annotations

import math

import pytest

from lodestar.core import sigmas


@pytest.mark.parametrize(
    "levels",
    [
        sigmas.karras(12, 0.002, 80.0),
        sigmas.exponential(12, 0.002, 80.0),
        sigmas.polyexponential(12, 0.002, 80.0, 2.5),
        sigmas.vp(12, *sigmas.vp_betas(0.002, 80.0)),
    ],
    ids=["karras", "exponential", "polyexponential", "vp"],
)
def test_they_fall_from_one_end_to_the_other(levels: list[float]) -> None:
    assert len(levels) == 12
    assert levels[0] == pytest.approx(80.0)
    assert levels[-1] == pytest.approx(0.002)
    assert levels == sorted(levels, reverse=True)


def test_one_level_is_the_noisiest() -> None:
    for one in (sigmas.karras(1, 0.1, 10.0), sigmas.exponential(1, 0.1, 10.0)):
        assert one == [pytest.approx(10.0)]
    assert sigmas.vp(1) == [sigmas.vp_sigma(1.0)]


def test_vp_time_is_the_inverse_of_vp_sigma() -> None:
    for time in (1e-5, 1e-3, 0.3, 1.0):
        assert sigmas.vp_time(sigmas.vp_sigma(time)) == pytest.approx(time, rel=1e-10)
        assert sigmas.vp_time(sigmas.vp_sigma(time, 12.0, 0.2), 12.0, 0.2) == pytest.approx(time, rel=1e-10)
    assert sigmas.vp_betas(sigmas.vp_sigma(1e-3), sigmas.vp_sigma(1.0)) == (pytest.approx(19.9), pytest.approx(0.1))


def test_the_chain_of_improved_ddpm() -> None:
    chain = sigmas.iddpm_chain()
    assert len(chain) == 1001
    assert chain[-1] == 0
    assert chain == sorted(chain, reverse=True)
    # Away from the capped end, the cosine's ᾱ = 1/(1 + σ²).
    share = [1 / (1 + sigma**2) for sigma in chain]
    for step in (200, 500, 900):
        expected = math.sin(0.5 * math.pi * step / 1000 / 1.008) ** 2 / math.sin(0.5 * math.pi / 1.008) ** 2
        assert share[step] == pytest.approx(expected)
    picked = sigmas.iddpm(18)
    assert len(picked) == 18
    assert set(picked) <= set(chain)
    assert 0.002 <= picked[-1] < picked[0] <= 81
