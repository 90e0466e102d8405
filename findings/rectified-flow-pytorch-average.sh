#!/usr/bin/env bash
# rectified-flow-pytorch 0.14.0 (torch 2.13.0): RectifiedFlow(use_consistency=True), its loss, and sample(use_ema=True).
#
# One expects: consistency flow matching (Yang et al. 2024), which its code names: the network's guess of the data at t is held to that of its *average over the
# training* at t + Δt, and pictures may be sampled from the average.
# What happens: predict_flow is given the network to ask, and asks self.model whatever it is given. Of the average, which is kept, updated and saved, no output is
# ever taken: the target of the consistency losses is the trained network itself, and sample(use_ema=True) is that of the trained network to the last bit.
# The decay does nothing at all. With an average whose weights are off by any amount the losses and the samples are the same. No error or warning.
# Who is hurt: every training with use_consistency: self-consistency without the slow target is another method, which has less to hold it; and the pictures that are
# shown as the average's. Trainer(use_ema=True) without consistency averages the whole model from outside, and is right.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 scipy==1.17.1 einops==0.8.2 tqdm==4.70.1 pillow==13.0.0
"$folder/venv/bin/pip" install --quiet --no-deps rectified-flow-pytorch==0.14.0 ema-pytorch==0.8.3 torchdiffeq==0.2.5
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.metadata
import importlib.util
import sys
import types

import torch

# Files, other networks and other flows, none of which is asked for.
absent = {
    "torchvision": (), "torchvision.utils": ("save_image",), "torchvision.models": ("VGG16_Weights",), "torchvision.transforms": (),
    "einx": (), "x_unet": ("XAttnRes",), "accelerate": ("Accelerator",),
    "rectified_flow_pytorch.nano_flow": ("NanoFlow",), "rectified_flow_pytorch.self_flow": ("SelfFlow",),
}
package = types.ModuleType("rectified_flow_pytorch")
package.__path__ = importlib.util.find_spec("rectified_flow_pytorch").submodule_search_locations
sys.modules["rectified_flow_pytorch"] = package
for name, names in absent.items():
    sys.modules[name] = types.ModuleType(name)
    for each in names:
        setattr(sys.modules[name], each, type(each, (), {"DEFAULT": None}))
RectifiedFlow = importlib.import_module("rectified_flow_pytorch.rectified_flow").RectifiedFlow


class Network(torch.nn.Module):
    """A velocity that is one number, and how often it was asked."""

    def __init__(self):
        super().__init__()
        self.velocity, self.asked = torch.nn.Parameter(torch.zeros(())), 0

    def forward(self, x, times):
        self.asked += 1
        return self.velocity.expand_as(x)


def made(average):
    """The parts of the loss, and samples with and without the average, where the average's velocity is `average` and the network's 0."""
    torch.manual_seed(0)
    flow = RectifiedFlow(Network(), use_consistency=True, data_shape=(1, 8, 8), consistency_velocity_match_alpha=1.0)
    flow.ema_model.update()  # copies the network
    flow.ema_model.ema_model.velocity.data.fill_(average)
    torch.manual_seed(1)
    _, parts = flow(torch.rand(16, 1, 8, 8), return_loss_breakdown=True)
    noise = torch.randn(4, 1, 8, 8)
    pictures = [flow.sample(4, noise=noise.clone(), use_ema=each) for each in (False, True)]
    return [each.item() for each in parts], pictures, flow.ema_model.ema_model.asked, flow


print("rectified-flow-pytorch", importlib.metadata.version("rectified-flow-pytorch"), "torch", torch.__version__)
seen = {}
for average in (0.0, 1.0, 100.0):
    parts, (plain, averaged), asked, flow = made(average)
    seen[average] = parts, plain, averaged, asked
    print(f"the average's velocity {average:5.1f}, the network's 0: data match {parts[2]:.3g}, velocity match {parts[3]:.3g};",
          f"mean of a sample {plain.mean():.3f}, with use_ema {averaged.mean():.3f} (half the velocity more is right); the average was asked {asked} times")
first = seen[0.0]
blind = all(each[0] == first[0] and torch.equal(each[1], first[1]) and torch.equal(each[2], first[1]) and each[3] == 0 for each in seen.values())
direct = flow.ema_model(torch.zeros(1, 1, 8, 8), times=torch.zeros(1)).mean().item()
print(f"the average by itself, asked directly: {direct:.1f}; the network was asked {flow.model.asked} times")
raise SystemExit(0 if blind and direct == 100 and seen[100.0][0][3] < 1e-9 else 1)
PYTHON
