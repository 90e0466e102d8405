"""Nearest training neighbour: a test for copies of training pictures, which have to be the reference.

Each picture's distance to its nearest training picture is compared with the distances of training pictures to each other, which
fresh pictures would have as well:

    authenticity = share of pictures x with |x - t| > |t - t'|, t the nearest training picture to x and t' the nearest other
                   one to t (Alaa et al. 2022, arXiv:2102.08921, section 4.3)
    closer       = P(|x - t| < |u - u'|) for a picture x and a training picture u, each with its nearest, ties counting half:
                   the Mann-Whitney statistic of Meehan et al. 2020, arXiv:2004.05675, eq. 1, u in the place of held-out pictures

``closer`` is 0.5 for fresh pictures of the same distribution and 1 for copies; worse pictures are farther away and lower the
value. Measure held-out pictures too (``--samples``): near-duplicates within the data move the scale.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lodestar.core.neighbours import nearest, ranks, squared_radii, within
from lodestar.evaluation.metrics.base import BaseMetric
from lodestar.evaluation.statistics import Part, Statistics


class Nearest(BaseMetric):
    """Tests for copies: ``authenticity``, ``closer``, and median distances ``nearest`` of pictures, ``nearest_reference`` of
    training."""

    kind: Literal["nearest"] = "nearest"
    needs: ClassVar[Part] = "features"

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        x, training = self.both(generated, reference)
        distances2, indices = nearest(x, training)
        ours2, theirs2 = distances2[:, 0], squared_radii(training, 1)
        below, up_to = ranks(ours2, theirs2)
        return {
            "authenticity": 1 - float(within(ours2, theirs2[indices[:, 0]]).double().mean()),
            "closer": 1 - float((below + up_to).double().mean()) / (2 * len(training)),
            "nearest": float(ours2.sqrt().median()),
            "nearest_reference": float(theirs2.sqrt().median()),
        }
