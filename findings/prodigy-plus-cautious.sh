#!/usr/bin/env bash
# prodigy-plus-schedule-free 2.0.1 (torch 2.13.0): ProdigyPlusScheduleFree(use_cautious=True, use_schedulefree=False).
#
# One expects: cautious updates (Liang et al. 2024), which its documentation cites: of the optimizer's own update the entries whose sign is not the gradient's are set
# to 0 and the others enlarged; weights move down the loss as without, or stand still.
# What happens: the mask is made and thrown away; the update is the product of gradient and mean gradient, entry by entry. That is positive wherever the two agree,
# whatever their sign is, so that weights go *down*: those that should fall do so, those that should rise fall too, and their loss rises. The step is also as
# long as the gradient is, not of Adam's length. Of a quadratic whose weights should go from 0 to 1, they go to −0.13 (with Prodigy's adaptation, which sees
# no progress, they stay at 0), and to −0.1 where they should go to −1. use_grams, and cautious with Schedule-Free, are right. No error or warning.
# Who is hurt: fine-tunings (the optimizer's field) with an own schedule and this option: a loss that stalls high looks like a bad rate, and Prodigy's is adaptive.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps prodigy-plus-schedule-free==2.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata

import torch
from prodigyplus import ProdigyPlusScheduleFree

ProdigyPlusScheduleFree.log = lambda *_: None


def reached(goal, **settings):
    """The weights' mean after 300 steps from 0 towards a goal."""
    weight = torch.nn.Parameter(torch.zeros(8, 8))
    optimizer = ProdigyPlusScheduleFree([weight], **settings)
    for _ in range(300):
        optimizer.zero_grad()
        (weight - goal).square().mean().backward()
        optimizer.step()
    optimizer.eval()
    return weight.mean().item()


print("prodigy-plus-schedule-free", importlib.metadata.version("prodigy-plus-schedule-free"), "torch", torch.__version__)
steady = {"d0": 1e-2, "prodigy_steps": 1}  # a rate of 0.01 that is not adapted
seen = {}
for option in ("neither", "use_cautious", "use_grams"):
    for free in (True, False):
        settings = {"use_schedulefree": free} | ({} if option == "neither" else {option: True})
        seen[option, free] = [reached(goal, **settings, **more) for more in (steady, {}) for goal in (1.0, -1.0)]
        print(f"{option}, use_schedulefree={free}: goals of 1 and −1 at a steady rate: {{:.3f}} {{:.3f}}; adapted: {{:.5f}} {{:.5f}}".format(*seen[option, free]))
up, down, adapted, _ = seen.pop(("use_cautious", False))
right = all(abs(abs(each) - 1) < 0.1 and (each > 0) == (number % 2 == 0) for case in seen.values() for number, each in enumerate(case))
raise SystemExit(0 if right and up < -0.05 and -0.5 < down < 0 and -1e-3 < adapted < 0 else 1)
PYTHON
