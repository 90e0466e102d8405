"""Complete runs by name, each a function, one file a data set or paper; and the published models, mostly made by them."""

from collections.abc import Callable

from lodestar.conversion.published import Published
from lodestar.presets import (
    adm,
    autoencoders,
    clip,
    code_priors,
    consistency,
    ddpm,
    emoji,
    gans,
    glide,
    iddpm,
    imagen,
    karlo,
    published,
    shapes,
)
from lodestar.presets.cifar10 import cifar10, cifar10_classifier, cifar10_fast, cifar10_features, cifar10_weak
from lodestar.presets.digits import digits, digits_classifier
from lodestar.training.run import Run

_PAPERS = (adm, iddpm, ddpm, consistency, glide, clip, karlo, published)
_SETS = (shapes, emoji)

RUNS: dict[str, Callable[[], Run]] = {
    **{
        run.__name__: run
        for run in (cifar10, cifar10_weak, cifar10_fast, cifar10_classifier, cifar10_features, digits, digits_classifier)
    },
    **{f"{paper.__name__.rpartition('.')[2]}.{run.__name__}": run for paper in (*_PAPERS, *_SETS) for run in paper.RUNS},
    **autoencoders.RUNS,
    **gans.RUNS,
    **imagen.RUNS,
    **code_priors.RUNS,
}

PUBLISHED: tuple[Published, ...] = tuple(each for paper in _PAPERS for each in paper.PUBLISHED)
"""Every published model that `lodestar convert` knows."""
