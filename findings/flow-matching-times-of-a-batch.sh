#!/usr/bin/env bash
# flow-matching 1.0.10 (torch 2.13.0): AffineProbPath's conversions, velocity_to_target, epsilon_to_velocity and the four others, with the times of a batch.
#
# One expects: what `sample` takes and gives back, one time a picture, shape [B], is what the conversions take: their docs say "time in [0,1]" and no shape, and the
# discrete path's posterior_to_velocity spreads [B] over the pictures. A shape that cannot be meant is refused, as `sample` refuses all but [B].
# What happens: the factors keep the shape [B] and meet pictures by broadcasting, that is at their *last* axis: column k of every picture is converted with the
# time of picture k. If the batch is as large as a picture is wide (32 of 32 × 32, 64 latents of 64 × 64; vectors: as many as values) there is no error,
# and what comes out is off by 0.4 to 0.8 of the data's own deviation. Other batches fail with an error about shapes; with t shaped [B, 1, 1, 1], or one time
# for all, as in the solvers, all is right.
# Who is hurt: losses on x̂₁ or ε̂ from a velocity network (perceptual ones, guidance, distillation): the gradients are of mixed times, and nothing says so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps flow-matching==1.0.10
"$folder/venv/bin/python" - <<'PYTHON'
import flow_matching
import torch
from flow_matching.path import AffineProbPath
from flow_matching.path.scheduler import CosineScheduler

torch.manual_seed(0)
path = AffineProbPath(scheduler=CosineScheduler())


def off(name, batch, spread):
    """Root mean square error of a conversion of what `sample` gave, in deviations of what it should give."""
    picture, noise = torch.randn(2, batch, 3, 16, 16, dtype=torch.float64)
    sample = path.sample(x_0=noise, x_1=picture, t=torch.linspace(0.2, 0.8, batch, dtype=torch.float64))
    values = {"target": picture, "epsilon": noise, "velocity": sample.dx_t}
    given, wanted = name.split("_to_")
    times = sample.t.view(-1, 1, 1, 1) if spread else sample.t
    try:
        made = getattr(path, name)(values[given], sample.x_t, times)
    except RuntimeError as error:
        return f"RuntimeError ({str(error)[:50]} …)"
    return ((made - values[wanted]).square().mean().sqrt() / values[wanted].std()).item()


print("flow-matching", flow_matching.__version__, "torch", torch.__version__)
names = [f"{given}_to_{wanted}" for given in ("target", "epsilon", "velocity") for wanted in ("target", "epsilon", "velocity") if given != wanted]
seen = {}
for name in names:
    seen[name] = off(name, 16, spread=False), off(name, 16, spread=True), off(name, 8, spread=False), off(name, 8, spread=True)
    print(f"{name}, 16 pictures of 16 × 16: times of shape [16] {seen[name][0]:.3f}, [16, 1, 1, 1] {seen[name][1]:.1e}; 8 pictures: {seen[name][2]}")
silent = all(isinstance(each[0], float) and each[0] > 0.3 for each in seen.values())
right = all(max(each[1], each[3]) < 1e-9 for each in seen.values())
raise SystemExit(0 if silent and right and all(str(each[2]).startswith("RuntimeError") for each in seen.values()) else 1)
PYTHON
