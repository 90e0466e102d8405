#!/usr/bin/env bash
# adam-atan2-pytorch 0.4.1 (torch 2.13.0): MuonAdamAtan2 with the kernels of convolutions among Muon's parameters.
#
# One expects: a kernel is a matrix [out, in · height · width], as in Muon's own code, and its step has the size that the class gives to every matrix's (root
# mean square about 0.2 · lr), whatever the length of the gradients is; or a shape that Muon cannot take goes to Adam's half of the class, or is refused.
# What happens: what has four dimensions is passed by the orthogonalisation (`muon_bypass_update_fn`), and by everything else: the step is the mean gradient
# itself times √side · 0.2 · lr, plain gradient descent at a learning rate that was meant for steps of length one. With gradients of 10⁻⁴, usual for a
# loss that is a mean over pixels, a kernel moves about ten thousand times less than a matrix beside it: it stays as it was initialised. No error or warning.
# Who is hurt: U-Nets, autoencoders and patch embeddings, whose weights are nearly all kernels, with Muon's list made by `p.ndim >= 2`, as is usual: the loss
# falls a little, by the biases and the attention, and Muon seems to be no good. Kernels in the other list move as Adam's.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 adam-atan2-pytorch==0.4.1
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata

import torch
from adam_atan2_pytorch import MuonAdamAtan2

RATE = 1e-3


def step_size(shape, gradient, muon):
    """Root mean square of the tenth step along one gradient of this size, in learning rates."""
    torch.manual_seed(0)
    weight, other = (torch.nn.Parameter(torch.zeros(each)) for each in (shape, (1,)))
    listed = ([weight], [other]) if muon else ([other], [weight])
    optimizer = MuonAdamAtan2(*listed, lr=RATE)
    slope = gradient * torch.randn(shape)
    for _ in range(10):
        before = weight.detach().clone()
        weight.grad = slope.clone()
        optimizer.step()
    return (weight.detach() - before).square().mean().sqrt().item() / RATE


def trained(muon):
    """Loss of a small convolutional network, before and after 200 steps towards another one's outputs."""
    torch.manual_seed(0)

    def network():
        return torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(32, 3, 3, padding=1))

    teacher, model, pictures = network(), network(), torch.randn(16, 3, 16, 16)
    kernels = [each for each in model.parameters() if each.ndim == 4]
    rest = [each for each in model.parameters() if each.ndim == 1]
    optimizer = MuonAdamAtan2(kernels, rest, lr=RATE) if muon else MuonAdamAtan2(rest[:0], [*kernels, *rest], lr=RATE)
    losses = []
    with torch.no_grad():
        target = teacher(pictures)
    for _ in range(201):
        loss = (model(pictures) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


print("adam-atan2-pytorch", importlib.metadata.version("adam-atan2-pytorch"), "torch", torch.__version__)
shapes = {"matrix 64 × 576": (64, 576), "kernel 64 × 64 × 3 × 3": (64, 64, 3, 3)}
seen = {}
for name, shape in shapes.items():
    for muon in (True, False):
        seen[name, muon] = [step_size(shape, size, muon) for size in (1.0, 1e-2, 1e-4)]
        print(f"{name} in {'Muon' if muon else 'Adam'}'s list: steps of", " ".join(f"{each:.1e}" for each in seen[name, muon]),
              "learning rates, for gradients of 1, 10⁻² and 10⁻⁴")
losses = {muon: trained(muon) for muon in (True, False)}
for muon, (first, last) in losses.items():
    print(f"two convolutions, kernels in {'Muon' if muon else 'Adam'}'s list: loss {first:.4f}, after 200 steps {last:.4f}")
matrix, kernel = (seen[name, True] for name in shapes)
scale_free = all(max(each) < 1.2 * min(each) for case, each in seen.items() if each is not kernel)
plain = abs(kernel[0] / kernel[2] / 1e4 - 1) < 0.01 and kernel[2] < 1e-3 * matrix[2]
stuck = losses[True][1] > 0.7 * losses[True][0] and losses[False][1] < 0.3 * losses[False][0]
raise SystemExit(0 if scale_free and plain and stuck else 1)
PYTHON
