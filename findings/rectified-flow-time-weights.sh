#!/usr/bin/env bash
# rectified-flow 1.0.1 (torch 2.13.0): RectifiedFlow(train_time_weight=…), with a weighting of one's own as its README shows it, and get_loss(x_0, x_1).
#
# One expects: each datum's loss is multiplied with the weight of its own time, mean of w(t)·‖v − ẋ‖², so that a weight of 0 leaves a time out of the training.
# What happens: times that get_loss draws itself, which is the way of the README, come in the data's number of axes, for vectors [B, 1], the weights with them, and the
# losses in shape [B]: their product is [B, B], every weight with every loss, and its mean (mean weight) · (mean loss). The weights are nothing but a
# learning rate, which changes from batch to batch. A network's part for early times, whose weight is 0, is trained as the rest is. No error or warning.
# With times of shape [B] handed to get_loss the weights work; for pictures nothing else does: times of shape [B, 1, 1, 1] are a ValueError.
# Who is hurt: flows of embeddings (a prior's), codes and toy data, on which weightings are tried: they differ by chance alone, and a steep one is unsteady.
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
from rectified_flow.flow_components.train_time_weight import TrainTimeWeight
from rectified_flow.rectified_flow import RectifiedFlow


class Late(TrainTimeWeight):
    """Only times after a half."""

    def __call__(self, t):
        return (t > 0.5).to(t)


class Halves(torch.nn.Module):
    """A velocity for early times and one for late ones."""

    def __init__(self):
        super().__init__()
        self.early, self.late = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))

    def forward(self, x_t, t):
        chosen = torch.where(t > 0.5, self.late, self.early)
        return chosen.view(-1, 1).expand_as(x_t)


def trained(handed):
    """Both velocities after 300 steps on data that are all 1; times handed to get_loss, or drawn by it."""
    torch.manual_seed(0)
    network = Halves()
    flow = RectifiedFlow((16,), network, train_time_weight=Late())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        flow.get_loss(None, torch.ones(64, 16), t=torch.rand(64) if handed else None).backward()
        optimizer.step()
    return network.early.item(), network.late.item()


def loss():
    """The loss of a batch whose data are larger at later times, that of the formula, and the product of the means."""
    torch.manual_seed(1)
    flow = RectifiedFlow((16,), Halves(), train_time_weight=Late())
    times = torch.linspace(0.01, 0.99, 64)
    flow.train_time_sampler = lambda *_, **__: times
    noise, data = torch.randn(64, 16), torch.linspace(0, 4, 64).view(64, 1).expand(64, 16)
    given = flow.get_loss(noise, data).item()
    weights, losses = Late()(times), (data - noise).square().mean(1)
    return given, (weights * losses).mean().item(), (weights.mean() * losses.mean()).item()


print("rectified-flow", importlib.metadata.version("rectified-flow"), "torch", torch.__version__)
seen = {handed: trained(handed) for handed in (True, False)}
for handed, (early, late) in seen.items():
    print(f"weight 0 before a half, times {'handed over' if handed else 'drawn by get_loss'}: early velocity {early:.3f} (0 where it began), late {late:.3f}")
given, formula, means = loss()
print(f"loss of a batch whose data are larger at later times {given:.4f}; by the formula {formula:.4f}; mean weight times mean loss {means:.4f}")
try:
    RectifiedFlow((1, 4, 4), Halves()).get_loss(None, torch.ones(64, 1, 4, 4))
    refused = ""
except ValueError as error:
    refused = str(error)
print("pictures, times drawn by get_loss:", refused or "no error")
works = refused and seen[True][0] == 0 and seen[True][1] > 0.9
raise SystemExit(0 if works and seen[False][0] > 0.9 and abs(given / means - 1) < 1e-5 and abs(given / formula - 1) > 0.1 else 1)
PYTHON
