#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0): UniPCMultistepScheduler with solver_type="bh1", or with predict_x0=False.
#
# One expects: pictures; the documentation recommends bh1 for unconditional sampling in fewer than ten steps. DPM-Solver's classes refuse the combinations
# that their last step cannot take, when they are made.
# What happens: all values are NaN, in any number of steps, without an error or a warning: with the default final_sigmas_type="zero" the last step has an
# infinite width, and bh1 multiplies it by a difference that is 0; with predict_x0=False it is the exponential of that width times a σ of 0. All steps but
# the last are right. With final_sigmas_type="sigma_min" the same settings work.
# Who is hurt: who follows the recommendation, and who turns an older UniPC, which ended at the cleanest noisy level, into one of today: a folder of before
# that setting existed takes its default. The pictures are lost after all the work is done.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

warnings.simplefilter("ignore")
import diffusers
import torch

diffusers.utils.logging.set_verbosity_error()
TRUE = 0.25


def states(count, **settings):
    """The state after each of `count` steps of the exact model of Gaussian data."""
    scheduler = diffusers.UniPCMultistepScheduler(**settings)
    scheduler.set_timesteps(count)
    x, made = torch.randn(2_000, 1, 1, 1, generator=torch.Generator().manual_seed(0)), []
    for time in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[int(time)]
        x = scheduler.step(x * (1 - alpha).sqrt() / (alpha * TRUE**2 + 1 - alpha), time, x).prev_sample
        made.append(x)
    return made


print("diffusers", diffusers.__version__, "torch", torch.__version__)
same = True
for settings in ({}, {"solver_type": "bh1"}, {"predict_x0": False}):
    for end in ("zero", "sigma_min"):
        for count in (8, 50):
            made = states(count, **settings, final_sigmas_type=end)
            bad = [number for number, x in enumerate(made, 1) if not x.isfinite().all()]
            what = f"no number after step {', '.join(map(str, bad))} of {count}" if bad else f"deviation {made[-1].std():.3f}"
            print(f"{settings or 'defaults'}, {end}, {count} steps: {what}")
            same &= bad == ([count] if settings and end == "zero" else [])
try:
    diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver", final_sigmas_type="zero")
    same = False
except ValueError as error:
    print("DPMSolverMultistepScheduler, of noise, zero: ValueError:", str(error)[:90])
raise SystemExit(0 if same else 1)
PYTHON
