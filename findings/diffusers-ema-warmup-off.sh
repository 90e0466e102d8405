#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0): EMAModel(use_ema_warmup=False), its default, and `decay`.
#
# One expects: without "EMA warmup" an average of the constant `decay`, "the decay factor for the exponential moving average", which of 0.9999 looks back over
# some 10,000 steps. The warm-up's own settings, inv_gamma and power, are said to count only if use_ema_warmup is true.
# What happens: another warm-up is in its place, (1 + step)/(10 + step), which no setting turns off: the average weighs step t by about t⁸, and so looks back
# over the last tenth of the run, whatever `decay` is, until 9/(1 − decay) steps: 9,000 of 0.999, 90,000 of 0.9999. In a run of 5,000 steps 0.999, 0.9999 and
# 0.99999 are the same average, bit for bit. (min_decay=decay is what makes the decay constant from the second step on.)
# Who is hurt: fine-tuning and comparisons of decays in short runs: a table of them has one row, several times over, and the decay in a
# paper or card is not the one that made the weights.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 numpy==2.4.6 requests==2.34.2
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata

import torch
from diffusers.training_utils import EMAModel

STEPS = 5_000


def run(**settings):
    """The average of a weight that is the number of the step; the decay of the last step."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average = EMAModel([weight], **settings)
    for step in range(1, STEPS + 1):
        weight.data.fill_(step)
        average.step([weight])
    return average.shadow_params[0].item(), average.cur_decay_value


def exact(decay):
    """An average of constant decay, begun with the first step's weight."""
    mean = 1.0
    for step in range(2, STEPS + 1):
        mean = decay * mean + (1 - decay) * step
    return mean


print("diffusers", importlib.metadata.version("diffusers"), "torch", torch.__version__)
seen = {}
for decay in (0.99, 0.999, 0.9999, 0.99999):
    seen[decay] = run(decay=decay, use_ema_warmup=False)
    print(f"decay {decay}: average of step {seen[decay][0]:.1f}, at a constant decay {exact(decay):.1f}; last decay {seen[decay][1]:.6f}")
constant = run(decay=0.9999, use_ema_warmup=False, min_decay=0.9999)
print(f"decay and min_decay 0.9999: average of step {constant[0]:.1f}")
same = seen[0.999] == seen[0.9999] == seen[0.99999]
ramp = abs(seen[0.9999][1] - STEPS / (STEPS + 9)) < 1e-9 and abs(seen[0.9999][0] / STEPS - 0.9) < 0.01
short = abs(seen[0.99][0] - exact(0.99)) < 1 and abs(constant[0] - exact(0.9999)) < 1
print("three decays, one average:", same, "| the last tenth of the run:", ramp, "| as asked for where the ramp is over, or min_decay is given:", short)
raise SystemExit(0 if same and ramp and short else 1)
PYTHON
