"""The evaluator against OpenAI's printed numbers (guided-diffusion, ``evaluations/README.md``)."""

from __future__ import annotations

from lodestar.config import Problem
from lodestar.data import open_source
from lodestar.download import place
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.metrics import PUBLISHED
from lodestar.evaluation.reference import open_reference
from lodestar.evaluation.report import Report
from lodestar.evaluation.run import Measurement, evaluate_pictures

_URL = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"
SAMPLES, REFERENCE = "admnet_guided_upsampled_imagenet256.npz", "VIRTUAL_imagenet256_labeled.npz"
"""Published files, 10 GB and 2 GB."""

EXPECTED: dict[str, tuple[float, float]] = {
    "score": (215.837, 0.2),
    "frechet": (3.9426, 0.01),
    "spatial_frechet": (6.1404, 0.02),
    "precision": (0.8265, 0.003),
    "recall": (0.5309, 0.003),
}
"""Printed number and allowed difference: theirs has distances between features in 16 bits, ours in 64."""


def self_test(samples: str | None, reference: str | None, extractor: Extractor, batch_size: int = 64) -> Report:
    """Measure the published samples; each file is given, or in the cache folder's ``downloads``.

    Raises Problem for a missing file, naming its place, and for a different number.
    """
    paths = [_find(given, name) for given, name in ((samples, SAMPLES), (reference, REFERENCE))]
    pictures = open_source(paths[0], channels=extractor.channels, labels=False)
    against = open_reference(paths[1], None, extractor, pictures.size)
    report = evaluate_pictures(pictures, against, extractor, run=Measurement(metrics=PUBLISHED, batch_size=batch_size))
    wrong = [
        f"{name} is {report.numbers[name]:.6g}, printed is {printed} ± {allowed}"
        for name, (printed, allowed) in EXPECTED.items()
        if abs(report.numbers[name] - printed) > allowed
    ]
    if wrong:
        raise Problem(f"the self-test fails: {'; '.join(wrong)}")
    return report


def _find(given: str | None, name: str) -> str:
    if given is not None:
        return given
    path = place(_URL + name)
    if not path.exists():
        raise Problem(f"the self-test needs {_URL}{name}: put it at {path}, or give --samples FILE and --reference FILE")
    return str(path)
