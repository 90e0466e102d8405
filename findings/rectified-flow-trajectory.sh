#!/usr/bin/env bash
# rectified-flow 1.0.1 (torch 2.13.0): the samplers' trajectories and time_points, and record_traj_period, "every step" by default.
#
# One expects: trajectories[k] is the state at time_points[k], and trajectories[-1] the finished sample, which is what the README takes from it; a longer period records
# fewer states on the way.
# What happens: a state is recorded after its step with the time of before: time_points are 0, 0, 0.01 … 0.99 for states of 0, 0.01 … 1. And with a period of 10 the
# steps 1, 11 … 91 of 100 are recorded and the last is not: the "sample" is the state of 0.91, labelled 0.9, with a tenth of the noise in it; of 10 steps it
# is that of 0.1, nearly all noise. No error or warning; sampler.x_t is the finished sample.
# Who is hurt: whoever saves memory by the period and takes pictures from where the README does; plots of straightness, losses or predictions over
# time_points, and distillation on recorded pairs, all of which are shifted by a step: much, in few steps.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 sympy==1.14.0 scipy==1.17.1
"$folder/venv/bin/pip" install --quiet --no-deps rectified-flow==1.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import sys
import types

import torch

for name in ("torchvision", "matplotlib", "matplotlib.pyplot", "matplotlib.widgets"):  # for plots, none of which is asked for
    sys.modules[name] = types.ModuleType(name)
sys.modules["matplotlib.widgets"].Slider = None
from rectified_flow.rectified_flow import RectifiedFlow
from rectified_flow.samplers import CurvedEulerSampler, EulerSampler

TRUE = 2.0


def exact(x_t, t):
    """The exact velocity of data that are all 2: its paths are straight, so that Euler's method has no error."""
    return (TRUE - x_t) / (1 - t).view(-1, 1)


def sampled(kind, steps, period):
    """The recorded times, the true ones of the recorded states, and the deviation of the last one and of the sampler's own state from the data."""
    torch.manual_seed(0)
    sampler = kind(RectifiedFlow((1,), exact), num_steps=steps, record_traj_period=period).sample_loop(num_samples=1_000)
    true = [((state - sampler.x_0) / (TRUE - sampler.x_0)).median().item() for state in sampler.trajectories]
    return sampler.time_points, true, (sampler.trajectories[-1] - TRUE).square().mean().sqrt().item(), (sampler.x_t - TRUE).square().mean().sqrt().item()


print("rectified-flow", importlib.metadata.version("rectified-flow"), "torch", torch.__version__)
same = True
for kind in (EulerSampler, CurvedEulerSampler):
    for steps, period, last, off in ((100, 1, 1.0, 0.0), (100, 10, 0.91, 0.2), (10, 10, 0.1, 2.0)):
        times, true, deviation, finished = sampled(kind, steps, period)
        print(f"{kind.__name__}, {steps} steps, recorded every {period}: time_points {times[0]:.2f} {times[1]:.2f} … {times[-1]:.2f},",
              f"the states' times {true[0]:.2f} {true[1]:.2f} … {true[-1]:.2f}; trajectories[-1] is off by {deviation:.2f}, x_t by {finished:.4f}")
        behind = all(abs(state - time - 1 / steps) < 1e-3 for time, state in zip(times[1:], true[1:]))
        same &= behind and abs(true[-1] - last) < 1e-3 and abs(deviation - off) < 0.05 * off + 1e-3 and finished < 1e-3
raise SystemExit(0 if same else 1)
PYTHON
