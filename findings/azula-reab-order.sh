#!/usr/bin/env bash
# azula 0.11.1 (torch 2.13.0): REABSampler(order=1, 2, 3), the Rosenbrock-type multistep sampler.
#
# One expects: the step that its documentation gives, √(1 + e^2s) · Σ f · ∫ …, both roots at the new time s, so that a solver of order n errs with the n-th power
# of the step, as zABSampler and xEABSampler beside it do; and the higher order is the better one.
# What happens: the root before the sum has the new signal scale and the *old* noise scale, √(α_s² + σ_t²). That is too large by a share that is the step's own
# width, so that the solver is of first order whatever n is: doubling the steps halves the error. On an exponential schedule (VESchedule) orders 2 and 3 are
# twice as far off as plain DDIM, and in 256 steps a hundred thousand times as far as xEABSampler's third order. The documented formula, with the class's
# own coefficients, is of its order there. No error or warning.
# Who is hurt: comparisons of multistep solvers in few steps, in which "the generalization of DPM-Solver-v3" seems to be the worst of all; and ports of it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 einops==0.8.2 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --no-deps azula==0.11.1
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import math

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import RectifiedSchedule, VESchedule
from azula.sample import DDIMSampler, REABSampler, xEABSampler, zABSampler

torch.set_default_dtype(torch.float64)
TRUE, COUNTS = 0.25, (16, 32, 64, 128, 256)


class Exact(Denoiser):
    """The exact denoiser of Gaussian data; the way of a sample is known: it keeps its share of the deviation."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t, t, **_):
        alpha, sigma = self.schedule(t)
        return DiracPosterior(alpha * TRUE**2 / (alpha**2 * TRUE**2 + sigma**2) * x_t)

    def end(self):
        first, last = (self.schedule(torch.tensor(time)) for time in (1.0, 0.0))
        return math.sqrt((last[0] ** 2 * TRUE**2 + last[1] ** 2) / (first[0] ** 2 * TRUE**2 + first[1] ** 2))


class Documented(REABSampler):
    """The step that the class's documentation gives, in x / α, from the class's own coefficients."""

    def __call__(self, x, **_):
        alpha, sigma = self.denoiser.schedule(self.timesteps)
        level = sigma.log() - alpha.log()
        x, past = x / alpha[0], []
        for number, time in enumerate(self.timesteps[:-1]):
            here, there = level[number].exp() ** 2, level[number + 1].exp() ** 2
            estimate = self.denoiser(alpha[number] * x, time).mean
            past = [*past, (x / (1 + here) - estimate) * ((1 + here) / here).sqrt()][-self.order :]
            weights = self._exponential_adams_bashforth(level, i=number, n=self.order)
            x = ((1 + there) / (1 + here)).sqrt() * x + (1 + there).sqrt() * sum(weight * each for weight, each in zip(weights, past))
        return alpha[-1] * x


print("azula", importlib.metadata.version("azula"), "torch", torch.__version__)
seen = {}
for schedule in (VESchedule(1e-2, 1e2), RectifiedSchedule()):
    denoiser = Exact(schedule)
    solvers = [(DDIMSampler, {}), (zABSampler, {"order": 2}), (xEABSampler, {"order": 2}), (xEABSampler, {"order": 3})]
    solvers += [(name, {"order": order}) for name in (REABSampler, Documented) for order in (1, 2, 3)]
    for name, settings in solvers:
        errors = []
        for count in COUNTS:
            sampler = name(denoiser, steps=count, silent=True, dtype=torch.float64, **settings)
            errors.append(abs(sampler(torch.ones(1)).item() / denoiser.end() - 1))
        order = math.log2(errors[-2] / errors[-1])
        seen[type(schedule).__name__, name.__name__, settings.get("order")] = errors, order
        print(f"{type(schedule).__name__}, {name.__name__} {settings.get('order', '')}: errors in {', '.join(map(str, COUNTS))} steps",
              *(f"{each:.1e}" for each in errors), f"order {order:.2f}")
first = all(0.7 < seen["VESchedule", "REABSampler", order][1] < 1.3 for order in (1, 2, 3))
others = all(seen["VESchedule", *case][1] > 1.8 for case in (("zABSampler", 2), ("xEABSampler", 2), ("xEABSampler", 3), ("Documented", 2), ("Documented", 3)))
worse = all(seen["VESchedule", "REABSampler", order][0][0] > 1.5 * seen["VESchedule", "DDIMSampler", None][0][0] for order in (2, 3))
slow = all(seen["RectifiedSchedule", "REABSampler", order][0][-1] > 10 * seen["RectifiedSchedule", "zABSampler", 2][0][-1] for order in (2, 3))
raise SystemExit(0 if first and others and worse and slow else 1)
PYTHON
