#!/bin/sh
# diffusers 0.42.1 with torch 2.13.0: PNDMScheduler(skip_prk_steps=False), the published PNDM with its Runge–Kutta start.
# Expected: the model is told the timestep whose noise level its input has, at every evaluation.
# Happens: where the stride is odd (18 steps of 1,000: 55), the first of the two stages half way is told time 907, and its input is
# stepped to the noise level of 908: `timesteps` counts half a stride (27) up from the end of the step, `step_prk` counts it down from
# the begin. A count that divides 1,000 does not help: with 40 steps (25) the second evaluation of each of the first three is off too.
# Hurt: who ports the method, or checks a port against it at the table of timesteps alone; and few steps, a little.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 numpy==2.4.1 transformers==5.23.0 requests==2.34.2
cat > "$folder/look.py" <<'PY'
import sys

import diffusers
import torch
from diffusers import PNDMScheduler

print("diffusers", diffusers.__version__, "torch", torch.__version__)


def told_and_true(count):
    """Times that the model is told in the first step, and those whose noise level its input has: of pure noise, σ tells it."""
    scheduler = PNDMScheduler(num_train_timesteps=1000, beta_schedule="linear", skip_prk_steps=False)
    scheduler.set_timesteps(count)
    sigmas = (1 - scheduler.alphas_cumprod.double()).sqrt()
    # A model of data that are all zero: x is σ·ε, and so is every x of the way.
    noise = torch.tensor([1.0], dtype=torch.float64)
    x = sigmas[scheduler.timesteps[0]] * noise
    told, true = [], []
    for time in scheduler.timesteps[:12].tolist():
        told.append(time)
        true.append(int((sigmas - x.item()).abs().argmin()))
        x = scheduler.step(noise, time, x).prev_sample
    return told, true


seen = {count: told_and_true(count) for count in (10, 18, 40)}
for count, (told, true) in seen.items():
    print(f"{count} steps, told:", *told)
    print(f"{count} steps, true:", *true)
wrong = {count: [a - b for a, b in zip(*seen[count])] for count in seen}
same = not any(wrong[10]) and all(sorted(set(wrong[count])) == [-1, 0] for count in (18, 40))
print("as described" if same else "it has changed")
sys.exit(0 if same else 1)
PY
"$folder/venv/bin/python" "$folder/look.py"
