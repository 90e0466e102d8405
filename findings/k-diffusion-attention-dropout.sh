#!/usr/bin/env bash
# k-diffusion 0.1.1.post1 (torch 2.13.0): dropout_rate of the U-Net (config type image_v1) where there is attention, in model.eval().
#
# One expects: dropout is of training alone: after eval(), or under utils.eval_mode, as its training evaluates, the network is a function, and
# so are the samplers without noise of their own: one seed, one picture.
# What happens: the blocks of convolutions obey, those of attention do not: they hand the rate of an nn.Dropout that is never called to
# scaled_dot_product_attention, which, as torch's documentation says, drops at whatever rate it is given. Sampled pictures, the losses of an evaluation and
# the gradients of guidance have dropout's noise in them at every step (below, a tenth more loss), and Euler's method makes other pictures of one noise each time.
# The transformer of the package (image_transformer_v1) drops behind attention by a module and is right, as is the U-Net with rate 0.
# Who is hurt: small data, for which one sets the rate: the average of weights is evaluated as a worse network than it is; and who looks for what makes runs differ.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 einops==0.8.2 tqdm==4.70.1 safetensors==0.8.0 pillow==13.0.0
"$folder/venv/bin/pip" install --quiet --no-deps k-diffusion==0.1.1.post1
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.metadata
import importlib.util
import sys
import types

import torch

# For pictures from files, other solvers and a loss over frequencies, none of which is asked for.
for name in ("torchvision", "torchvision.transforms", "dctorch", "torchdiffeq", "torchsde", "scipy"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["torchvision.transforms"].functional = sys.modules["dctorch"].functional = sys.modules["scipy"].integrate = None
sys.modules["torchdiffeq"].odeint = None
package = types.ModuleType("k_diffusion")
package.__path__ = importlib.util.find_spec("k_diffusion").submodule_search_locations
sys.modules["k_diffusion"] = package
layers, sampling = (importlib.import_module(f"k_diffusion.{name}") for name in ("layers", "sampling"))
network = importlib.import_module("k_diffusion.models.image_v1").ImageDenoiserModelV1


def pictures(count):
    """A bright square somewhere on black, 8 × 8."""
    made = torch.full((count, 1, 8, 8), -1.0)
    for picture, (row, column) in zip(made, torch.randint(0, 6, (count, 2)).tolist()):
        picture[0, row : row + 3, column : column + 3] = 1.0
    return made


def trained(attention, rate):
    torch.manual_seed(0)
    inner = network(1, 32, [2, 2], [32, 32], [attention, attention], dropout_rate=rate)
    model = layers.Denoiser(inner, sigma_data=0.6)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(120):
        loss = model.loss(pictures(32), torch.randn(32, 1, 8, 8), (torch.randn(32) * 1.2 - 0.6).exp()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def evaluated(model):
    """The loss of 512 pictures at one noise level."""
    torch.manual_seed(1)
    given, noise = pictures(512), torch.randn(512, 1, 8, 8)
    with torch.no_grad():
        return model.loss(given, noise, torch.full((512,), 0.5)).mean().item()


def apart(model):
    """Root mean square difference of pictures that Euler's method makes of one noise, twice."""
    noise = 10.0 * torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    one, other = (sampling.sample_euler(model, noise, sampling.get_sigmas_karras(20, 0.02, 10.0), disable=True) for _ in range(2))
    return (one - other).square().mean().sqrt().item()


print("k-diffusion", importlib.metadata.version("k-diffusion"), "torch", torch.__version__)
seen = {}
for attention, rate in ((False, 0.1), (True, 0.0), (True, 0.1)):
    model = trained(attention, rate)
    seen[attention, rate] = apart(model), evaluated(model)
    print(f"{'with' if attention else 'without'} attention, dropout_rate {rate}, after eval(): two samples of one noise differ by {seen[attention, rate][0]:.3f};",
          f"loss {seen[attention, rate][1]:.4f}")
for module in model.modules():
    if isinstance(module, layers.SelfAttention2d):
        module.dropout.p = 0.0
off = apart(model), evaluated(model)
print(f"the last one with the rate of its attention set to 0 by hand: {off[0]:.3f}; loss {off[1]:.4f}")
right = seen[False, 0.1][0] == seen[True, 0.0][0] == off[0] == 0
raise SystemExit(0 if right and seen[True, 0.1][0] > 0.005 and seen[True, 0.1][1] > 1.02 * off[1] else 1)
PYTHON
