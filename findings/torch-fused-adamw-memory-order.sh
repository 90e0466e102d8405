#!/usr/bin/env bash
# torch 2.13.0: torch.optim.AdamW(fused=True) on the CPU, with a gradient that lies in another order of memory than its parameter.
#
# One expects: an optimizer goes by a tensor's values, so a channels-last weight moves alike whether its gradient is channels-last too or contiguous; a
# combination that the fused form cannot take is refused, as other unsupported ones are.
# What happens: the fused form pairs the values as they lie in memory, so that weights move along gradients of other weights. No error, no warning; the
# plain and the foreach form are right for both orders.
# Who is hurt: whoever trains a channels-last network (the fast order for convolutions) and sets `.grad` from elsewhere: `torch.autograd.grad`, gradients
# averaged by hand or read from a file. Autograd's own accumulation follows the parameter's order and hides it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

torch.manual_seed(0)
weight, gradient = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
orders = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


def moved(order, **form):
    parameter = torch.nn.Parameter(weight.clone(memory_format=torch.channels_last))
    parameter.grad = gradient.clone(memory_format=orders[order])
    torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0, **form).step()
    return parameter.detach()


print("torch", torch.__version__)
right = moved("channels-last")
off = {}
for name, form in {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}.items():
    for order in orders:
        off[name, order] = (moved(order, **form) - right).abs().max().item()
        print(f"channels-last weight, {order:13s} gradient, {name:7s}: largest difference {off[name, order]:.1e} (a step is 0.1)")
wrong = {case for case, difference in off.items() if difference > 1e-5}
raise SystemExit(0 if wrong == {("fused", "contiguous")} else 1)
PYTHON
