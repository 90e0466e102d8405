"""Complete runs by name; each is a function, one file a data set or paper."""

from collections.abc import Callable

from lodestar.presets.cifar10 import cifar10, cifar10_classifier, cifar10_features
from lodestar.presets.digits import digits, digits_classifier
from lodestar.train.run import Run

RUNS: dict[str, Callable[[], Run]] = {
    run.__name__: run for run in (cifar10, cifar10_classifier, cifar10_features, digits, digits_classifier)
}
