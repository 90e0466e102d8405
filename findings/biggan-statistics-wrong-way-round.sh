#!/usr/bin/env bash
# pytorch-pretrained-biggan 0.1.1 (torch 2.13.0): the batch statistics that BigGAN-deep takes for a truncation.
#
# One expects: statistics are kept for 51 truncations, 0, 0.02 … 1; between two of them those of both are mixed, the nearer with the larger weight, so that
# a truncation of 0.401 takes nearly what 0.40 takes, and 0.58, which is one of the 51, its own.
# What happens: the weights are the wrong way round (`start · coef + next · (1 − coef)`, coef the way to the next): 0.401 takes nearly those of 0.42, and the
# result jumps at each of the 51. And since 0.58 / 0.02 is a little less than 29 in floating point, 0.58 takes those of 0.56: some of the 51 are never right.
# Who is hurt: sweeps of fidelity against diversity over truncations, interpolations of truncation, and ports that copy the line.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --no-deps pytorch-pretrained-biggan==0.1.1
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.metadata
import importlib.util
import sys
import types

import torch

for name in ("boto3", "botocore", "botocore.exceptions", "requests", "scipy", "scipy.stats"):  # for downloads and noise, not asked for
    sys.modules[name] = types.ModuleType(name)
sys.modules["botocore.exceptions"].ClientError = RuntimeError
sys.modules["scipy.stats"].truncnorm = None
package = types.ModuleType("biggan")
package.__path__ = importlib.util.find_spec("pytorch_pretrained_biggan").submodule_search_locations
sys.modules["biggan"] = package
norm = importlib.import_module("biggan.model").BigGANBatchNorm(1, conditional=False).eval()
norm.weight.data.fill_(1.0)
norm.bias.data.fill_(0.0)
# Each statistic's mean is its own truncation, and its variance 1, so that the norm of 0 tells which it took.
norm.running_means[:, 0] = torch.linspace(0, 1, 51)
print("pytorch-pretrained-biggan", importlib.metadata.version("pytorch-pretrained-biggan"))
taken = {}
for truncation in (0.40, 0.401, 0.41, 0.419, 0.42, 0.58):
    with torch.no_grad():
        taken[truncation] = -norm(torch.zeros(1, 1, 1, 1), truncation).item()
    print(f"truncation {truncation:.3f}: the statistics of {taken[truncation]:.4f}")
own = [number for number in range(1, 51) if abs(-norm(torch.zeros(1, 1, 1, 1), round(0.02 * number, 2)).item() - 0.02 * number) > 0.01]
print(f"of the 50 truncations above 0 that have statistics of their own, {len(own)} take others: {', '.join(f'{0.02 * each:.2f}' for each in own)}")
raise SystemExit(0 if abs(taken[0.401] - 0.419) < 1e-3 and abs(taken[0.419] - 0.401) < 1e-3 and own else 1)
PYTHON
