#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0): EDMEulerScheduler.set_timesteps(sigmas=…).
#
# One expects: "custom sigmas to use for the denoising process" in place of the schedule's own, as the same argument of other schedulers is meant; handing a
# schedule the levels that it has makes nothing different.
# What happens: the values are taken for *places* in the schedule, where 0 is its highest level and 1 its lowest, and the schedule is laid over them. With
# "karras", the default, the scheduler's own ten levels from 80 to 0.002 become numbers down to −3 · 10¹⁴; six of the times, ln(σ)/4, are no numbers. With
# "exponential" only their count is read: any ten numbers give the scheduler's own ten. Values in [0, 1] are the trap: 1, 0.5 and 0.1, all of them levels,
# become 0.002, 2.5 and 45, which go up. No error or warning. (The change that brought the argument hands it places; the documentation says levels.)
# Who is hurt: whoever brings levels of a paper or of an optimised schedule to an EDM model: pictures of noise, or of other levels than those in the report.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 numpy==2.4.6 requests==2.34.2
"$folder/venv/bin/python" - <<'PYTHON'
import diffusers
import torch
from diffusers import EDMEulerScheduler


def levels(schedule, given=None, steps=None):
    scheduler = EDMEulerScheduler(sigma_schedule=schedule)
    scheduler.set_timesteps(steps, sigmas=None if given is None else torch.as_tensor(given))
    return scheduler.sigmas[:-1], scheduler.timesteps


print("diffusers", diffusers.__version__, "torch", torch.__version__)
own, _ = levels("karras", steps=10)
again, times = levels("karras", own)
few, _ = levels("karras", [1.0, 0.5, 0.1])
evenly, _ = levels("exponential", steps=10)
odd, _ = levels("exponential", torch.linspace(3.0, 1.0, 10))
print("karras, its own ten levels: ", *(f"{each:.4g}" for each in own.tolist()))
print("the same, handed in:        ", *(f"{each:.4g}" for each in again.tolist()), "- times that are no numbers:", int(times.isnan().sum()))
print("1, 0.5 and 0.1, handed in:  ", *(f"{each:.4g}" for each in few.tolist()))
print("exponential, its own ten:   ", *(f"{each:.4g}" for each in evenly.tolist()))
print("3 … 1 in ten, handed in:    ", *(f"{each:.4g}" for each in odd.tolist()))
gone = again[0] < -1e14 and times.isnan().any() and not torch.isclose(few, torch.tensor([1.0, 0.5, 0.1])).any() and few[0] < few[1] < few[2]
raise SystemExit(0 if gone and torch.equal(evenly, odd) else 1)
PYTHON
