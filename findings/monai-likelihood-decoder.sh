#!/usr/bin/env bash
# monai 1.6.1 (torch 2.13.0): DiffusionInferer.get_likelihood with DDPMScheduler as it comes (variance_type fixed_small).
#
# One expects: the terms of the variational bound, whose last one, the decoder's, has a deviation above zero: improved-diffusion, which the code names as its
# source, takes the posterior's variance of the second step, since that of the first is 0. With the exact model of Gaussian values of deviation 0.25 in 256
# steps of brightness the sum (without the prior's term, about 0) is then 5.4 nats a value, a little above the data's entropy of 4.9.
# What happens: the variance is 0 held at 1e-20, so that the decoder's term is 0 for a value that is restored within half a step of brightness, and
# −log(1e-12) = 27.6 nats for every other one, however near. It counts misses: 70 % of the values of this exact model, 19.2 nats in the mean, five times
# all other terms together; the sum is 22.9. And "log-likelihoods" are the bound's positive sum: lower is likelier.
# Who is hurt: who finds anomalies by likelihood, or compares models by bits: the number follows rounding in the last step alone.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps monai==1.6.1
"$folder/venv/bin/python" - <<'PYTHON'
import math
import warnings

warnings.simplefilter("ignore")
import monai
import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDPMScheduler

TRUE = 0.25


class Exact(torch.nn.Module):
    """The exact ε of Gaussian data."""

    def __init__(self, alphas):
        super().__init__()
        self.alphas = alphas

    def forward(self, x, timesteps, context=None):
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        return (1 - alpha).sqrt() * x / (alpha * TRUE**2 + 1 - alpha)


torch.manual_seed(0)
scheduler = DDPMScheduler(num_train_timesteps=1000)
scheduler.set_timesteps(1000)
pictures = ((TRUE * torch.randn(4, 1, 64, 64) + 1) * 127.5).round() / 127.5 - 1
total, terms = DiffusionInferer(scheduler).get_likelihood(
    pictures, Exact(scheduler.alphas_cumprod), scheduler, save_intermediates=True, verbose=False, scaled_input_range=(-1, 1)
)
total, decoder = total.mean().item(), terms[-1].flatten()
rest = total - decoder.mean().item()

# The decoder's term with improved-diffusion's deviation, from the same model.
first, second = scheduler.alphas_cumprod[:2].double()
noisy = first.sqrt() * pictures + (1 - first).sqrt() * torch.randn_like(pictures)
guess = first.sqrt() * TRUE**2 / (first * TRUE**2 + 1 - first) * noisy
normal = torch.distributions.Normal(guess, ((1 - first) / (1 - second) * scheduler.betas[1]).sqrt())
right = -(normal.cdf(pictures + 1 / 255) - normal.cdf(pictures - 1 / 255)).clamp(min=1e-12).log().mean().item()

print("monai", monai.__version__, "torch", torch.__version__)
entropy = math.log(TRUE * math.sqrt(2 * math.pi * math.e) * 127.5)
missed, met = ((decoder > 27.6).double().mean().item(), (decoder.abs() < 1e-3).double().mean().item())
print(f"entropy of the data: {entropy:.2f} nats a value")
print(f"get_likelihood: {total:.2f}, of it the decoder's term {decoder.mean():.2f}; of the values, {missed:.2f} have 27.6 nats and {met:.2f} have 0")
print(f"with the second step's variance in the decoder: {rest + right:.2f}, of it {right:.2f}")
same = missed + met == 1 and total > 4 * entropy and 0 <= rest + right - entropy < 0.8
raise SystemExit(0 if same else 1)
PYTHON
