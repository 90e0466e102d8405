#!/usr/bin/env bash
# monai 1.6.1 (torch 2.13.0): DDPMScheduler, DDIMScheduler and PNDMScheduler in fewer steps than the chain has, and PNDM in all.
#
# One expects: after set_timesteps(N) a step leads to the level of the next time of `timesteps`, at which the network is asked next.
# What happens: each class steps to another one, and says nothing. DDPM goes from t to t − 1, whatever N is. DDIM has its times evenly over the whole chain
# since 1.6, and still steps down by 1000 // N. PNDM, which begins with Runge–Kutta steps, sets N to the length of its list, N + 9, and then steps by
# 1000 // (N + 9): by 16 of 20 with N = 50, and by 0 with N = 1000, which is what it is made with: all evaluations are done, and noise comes out.
# With the exact model of Gaussian data of deviation 0.25: DDPM's samples deviate by 0.87 after 50 steps, DDIM's by 0.43 after 600, PNDM's by 0.33 after
# 50 and 0.99 after 1000.
# Who is hurt: samples of medical models in fewer steps, where nobody tells grain from tissue; and who compares samplers at equal counts.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps monai==1.6.1
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

warnings.simplefilter("ignore")
import monai
import torch
from monai.networks import schedulers

TRUE = 0.25


def sampled(name, count):
    """Deviation of 4,000 samples in `count` steps of the exact model."""
    settings = {} if name == "PNDMScheduler" else {"clip_sample": False}
    scheduler = getattr(schedulers, name)(num_train_timesteps=1000, **settings)
    scheduler.set_timesteps(count)
    torch.manual_seed(0)
    x = torch.randn(4_000, 1, 1, 1)
    for time in scheduler.timesteps.tolist():
        alpha = scheduler.alphas_cumprod[time]
        x = scheduler.step((1 - alpha).sqrt() * x / (alpha * TRUE**2 + 1 - alpha), time, x)[0]
    return x.std().item()


print("monai", monai.__version__, "torch", torch.__version__)
wrong = {("DDPMScheduler", 50): 0.8, ("DDPMScheduler", 250): 0.5, ("DDIMScheduler", 600): 0.4, ("PNDMScheduler", 50): 0.31, ("PNDMScheduler", 1000): 0.9}
same = True
for name, counts in (("DDPMScheduler", (50, 250, 1000)), ("DDIMScheduler", (50, 600, 1000)), ("PNDMScheduler", (50, 300, 1000))):
    for count in counts:
        found = sampled(name, count)
        print(f"{name} in {count} steps: deviation {found:.3f}, true {TRUE}")
        same &= found > wrong[name, count] if (name, count) in wrong else abs(found - TRUE) < 0.03
raise SystemExit(0 if same else 1)
PYTHON
