"""Pairing of pictures with noise in training: independent, or a minibatch's optimal transport."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lodestar.extras import need

Pairing = Literal["independent", "optimal"]
"""independent: each picture has noise of its own. optimal: the minibatch optimal-transport coupling, see `optimal`."""


def optimal(x0: Tensor, eps: Tensor, group: Tensor) -> Tensor:
    """Noise [B, ...] permuted within groups of pictures so that the sum of |x0 − ε|² is least; group: their numbers, int64 [B].

    The minibatch optimal-transport coupling (Pooladian et al. 2023, Tong et al. 2023). A group is a class, or the pictures that
    have none. A coupling across classes would skew the noise of each class in training, whereas samples begin with plain noise:
    conditional models get worse by it (Cheng and Schwing 2025, who forbid it as here). Few pictures in a group leave little to
    choose, so batches should be large.

    Noise then depends on the picture. Solvers of the probability-flow ODE are right for every coupling; samplers with fresh noise
    suppose independence.
    """
    # Of |x0 − ε|² only the product depends on the pairing.
    gain = (x0.flatten(1) @ eps.flatten(1).T).double()
    gain[group[:, None] != group] = -torch.inf
    _, order = need("scipy.optimize").linear_sum_assignment(gain.numpy(force=True), maximize=True)
    return eps[torch.from_numpy(order).to(eps.device)]
