#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0): the guider AdaptiveProjectedGuidance, with its defaults and with eta=0.
#
# One expects: algorithm 1 of its paper, conditional + (s − 1)·Δ with Δ shortened to a radius and freed of its part along the conditional prediction (η = 0,
# as the paper advises): the nearer s is to 1, the nearer the result is to the conditional prediction, which s = 1 gives exactly.
# What happens: it is unconditional + s·Δ. That is the same for classifier-free guidance, where Δ is the whole difference, but not once Δ is changed: what
# shortening and projection take away is taken from the conditional prediction itself. Just above s = 1 the result jumps away from it; with η = 0 the
# condition's own part along the prediction is gone at any scale, and a radius far below ‖Δ‖ leads to the *un*conditional prediction. And the default η is
# 1: no projection at all, without which the method is a limit to a length. With use_original_formulation=True, and s − 1 for s, it is the paper's.
# Who is hurt: who compares APG with guidance, or takes radius and η from the paper's table: weaker conditions, and colours that are not the method's.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import inspect
import warnings

warnings.simplefilter("ignore")
import diffusers
import torch
from diffusers.guiders import AdaptiveProjectedGuidance

diffusers.utils.logging.set_verbosity_error()
torch.manual_seed(0)
null = torch.randn(1, 4, 64, 64, dtype=torch.float64)
cond = null + 0.3 * torch.randn(1, 4, 64, 64, dtype=torch.float64)


def theirs(scale, radius, eta, original=False):
    guider = AdaptiveProjectedGuidance(
        guidance_scale=scale, adaptive_projected_guidance_rescale=radius, eta=eta, use_original_formulation=original
    )
    return guider.forward(cond, null).pred


def paper(scale, radius, eta):
    """Algorithm 1, without momentum."""
    change = cond - null
    change = change * min(1.0, radius / change.norm().item())
    axis = cond / cond.norm()
    along = (change * axis).sum() * axis
    return cond + (scale - 1) * (change - along + eta * along)


def off(one, other):
    """The difference in units of the length of conditional − unconditional."""
    return ((one - other).norm() / (cond - null).norm()).item()


default = inspect.signature(AdaptiveProjectedGuidance).parameters["eta"].default
print("diffusers", diffusers.__version__, "torch", torch.__version__, "default eta", default)
print(f"the length of conditional − unconditional is {(cond - null).norm():.1f}; differences below are in units of it")
same = True
cases = (
    ("no radius, eta 1 (plain guidance)", 1e9, 1.0), ("radius 15 and eta 1, the defaults", 15.0, 1.0), ("no radius, eta 0", 1e9, 0.0),
    ("radius 2.5, eta 0", 2.5, 0.0),
)
for what, radius, eta in cases:
    from_paper = [off(theirs(scale, radius, eta), paper(scale, radius, eta)) for scale in (1.001, 4.0)]
    original = off(theirs(3.0, radius, eta, original=True), paper(4.0, radius, eta))
    near, far = off(theirs(1.001, radius, eta), cond), off(theirs(1.001, radius, eta), null)
    print(f"{what}: from the paper at s = 1.001 and 4: {from_paper[0]:.3f}, {from_paper[1]:.3f} (in the original formulation {original:.3f});",
          f"at s = 1.001 {near:.3f} from the conditional prediction, {far:.3f} from the unconditional")
    plain = eta == 1 and radius > 1e6
    same &= original < 1e-9 and (max(from_paper) < 1e-9 and near < 0.01 if plain else min(from_paper) > 0.2 and near > 0.2)
raise SystemExit(0 if same and default == 1 else 1)
PYTHON
