#!/usr/bin/env bash
# piq 0.8.0 (torch 2.13.0): FID of features, whose square root of a matrix is found by Newton and Schulz's iteration.
#
# One expects: the formula that its documentation gives, so that the distance of a set from itself is 0 to many digits, which the computation in float64 is meant for.
# What happens: the iteration ends when the *square* of the root is right to 10⁻⁵ of its largest part. Of a direction whose variance is a hundredth of the largest the
# root may then be off by as much as it is; and features of networks have some strong directions and many such weak ones. Their share of 2·tr√(Σ₁Σ₂) is lost
# and counts as distance. With 256 features of variances 1, 1/4, 1/9 … the distance of a set from itself is 0.06, 4 % of all variance; two sets of one
# distribution, truly 0.002 apart, have 0.06 too. And detail is punished: a set whose 224 weakest directions are damped to a twentieth, truly 0.025
# away, has 0.045. With equal variances, as in tests on noise, the number is right to five digits. No error or warning.
# Who is hurt: comparisons of good models: below some per cent of the variance of the features the order is not that of FID, and smoother pictures win.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps piq==0.8.0
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.metadata
import importlib.util
import sys
import types

import torch

path = importlib.util.find_spec("piq").submodule_search_locations
for name in ("piq", "piq.feature_extractors"):  # without its __init__, and the networks that make features
    sys.modules[name] = types.ModuleType(name)
sys.modules["piq"].__path__ = path
sys.modules["piq.feature_extractors"].InceptionV3 = None
fid = importlib.import_module("piq.fid").FID()
torch.manual_seed(0)
WIDTH = 256


def formula(one, other):
    """The distance with the root's trace from the eigenvalues of Σ₁^½ Σ₂ Σ₁^½."""
    first, second = torch.cov(one.T), torch.cov(other.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return ((one.mean(0) - other.mean(0)).square().sum() + first.trace() + second.trace() - 2 * shared).item()


print("piq", importlib.metadata.version("piq"), "torch", torch.__version__)
seen = {}
for kind, power in (("all 1", 0.0), ("1, 1/4, 1/9 …", 1.0)):
    deviations = torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -power
    real, made = (torch.randn(5_000, WIDTH, dtype=torch.float64) * deviations for _ in range(2))
    damped = made * torch.where(torch.arange(WIDTH) < 32, 1.0, 0.05)
    total = real.var(0).sum().item()
    sets = {"the same set": real, "another of the same distribution": made, "that with its weak directions damped": damped}
    for name, other in sets.items():
        seen[power, name] = fid.compute_metric(real, other).item(), formula(real, other)
        print(f"variances {kind}, {total:.2f} in all, {name}: {seen[power, name][0]:.5f}, by the formula {seen[power, name][1]:.5f}")
flat = all(abs(found - right) < 1e-4 * WIDTH for (power, _), (found, right) in seen.items() if power == 0)
itself, alike, damped = (each for (power, _), each in seen.items() if power == 1)
raise SystemExit(0 if flat and itself[0] > 0.03 > 1e-6 > itself[1] and damped[0] < 0.9 * alike[0] and damped[1] > 5 * alike[1] else 1)
PYTHON
