#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0): use_karras_sigmas with beta_schedule="squaredcos_cap_v2" in DPM-Solver, UniPC and DEIS.
#
# One expects: both are documented settings of these schedulers, so that sampling takes N steps through Karras' levels of the cosine chain.
# What happens: the first levels of that chain (σ up to 20,000) all have nearly the same fractional time, which is cut off to a whole one and so
# repeated (999, 999, 999, …). A step looks its place up by that time and takes the second match, so that it begins one level too late and runs over the
# end: DPM-Solver and DEIS raise an IndexError, UniPC an AssertionError, in the last step, after all the work is done. The same on a linear chain works.
# Who is hurt: whoever gives a model of a cosine chain (Improved DDPM, DeepFloyd, Karlo) the setting that is recommended for few steps; and whoever
# reads such a folder into another library and compares pictures.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

warnings.simplefilter("ignore")
import diffusers
import torch

diffusers.utils.logging.set_verbosity_error()


def outcome(name, chain):
    scheduler = getattr(diffusers, name)(beta_schedule=chain, use_karras_sigmas=True)
    scheduler.set_timesteps(20)
    x, done = torch.zeros(1, 3, 4, 4), 0
    try:
        for time in scheduler.timesteps:
            x = scheduler.step(torch.zeros_like(x), time, x).prev_sample
            done += 1
    except (IndexError, AssertionError) as error:
        return scheduler.timesteps[:3].tolist(), f"{type(error).__name__} in step {done + 1} of 20"
    return scheduler.timesteps[:3].tolist(), "20 steps"


print("diffusers", diffusers.__version__, "torch", torch.__version__)
expected = {
    "DPMSolverMultistepScheduler": "IndexError", "DPMSolverSinglestepScheduler": "IndexError", "DEISMultistepScheduler": "IndexError",
    "UniPCMultistepScheduler": "AssertionError",
}
changed = False
for name, error in expected.items():
    for chain in ("linear", "squaredcos_cap_v2"):
        times, what = outcome(name, chain)
        print(f"{name:30s} {chain:18s} first times {times}: {what}")
        changed |= not what.startswith("20 steps" if chain == "linear" else error)
raise SystemExit(1 if changed else 0)
PYTHON
