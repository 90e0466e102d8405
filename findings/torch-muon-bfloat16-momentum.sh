#!/usr/bin/env bash
# torch 2.13.0: torch.optim.Muon(nesterov=False) for parameters in bfloat16.
#
# One expects: the same momentum as for parameters in float32, B ← μ·B + (1 − μ)·g, of which the orthogonalised copy is the step.
# What happens: in bfloat16 no copy is made: dividing the step by its norm divides the momentum itself, which so has length 1 after every step, whatever the
# gradients' lengths are. A later gradient of length 0.01 then counts a hundredth of what it should: of gradients that change direction, weights go on in
# the first one's for hundreds of steps, where in float32 they turn within fifty. Long gradients erase the momentum instead. No error, no warning; with
# nesterov=True, the default, the step is a tensor of its own and all is right.
# Who is hurt: trainings in pure bfloat16 without Nesterov's form, as ablations of it are: they learn what the first batch says; and checkpoints, whose
# momentum has another scale than that of float32.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

torch.manual_seed(0)
first, later = (1e-3 * torch.randn(2, 8, 16)).bfloat16()  # of length about 0.011, the same numbers in both formats


def likeness(step, gradient):
    """Cosine of a step against a gradient."""
    return torch.nn.functional.cosine_similarity(-step.float().flatten(), gradient.float().flatten(), dim=0).item()


print("torch", torch.__version__)
seen = {}
for dtype in (torch.float32, torch.bfloat16):
    for nesterov in (True, False):
        weight = torch.nn.Parameter(torch.zeros(8, 16, dtype=dtype))
        optimizer = torch.optim.Muon([weight], lr=1.0, weight_decay=0.0, nesterov=nesterov)
        for number in range(200):
            weight.data.zero_()  # so that the weight is the step
            weight.grad = (first if number < 10 else later).to(dtype)
            optimizer.step()
        momentum = optimizer.state[weight]["momentum_buffer"].float().norm().item()
        seen[dtype, nesterov] = momentum, likeness(weight.data, first), likeness(weight.data, later)
        print(f"{dtype}, nesterov={nesterov}, after 10 steps of one gradient and 190 of another: length of the momentum {momentum:.4f};",
              "the step's cosine to the one {1:.2f}, to the other {2:.2f}".format(*seen[dtype, nesterov]))
wrong = {case for case, (momentum, one, other) in seen.items() if abs(momentum - 1) < 0.02 and one > 0.9 and other < 0.3}
right = {case for case, (momentum, one, other) in seen.items() if momentum < 0.02 and one < 0.3 and other > 0.9}
raise SystemExit(0 if wrong == {(torch.bfloat16, False)} and len(right) == 3 else 1)
PYTHON
