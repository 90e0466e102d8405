#!/usr/bin/env bash
# adam-atan2-pytorch 0.4.1 (torch 2.13.0): MuonAdamAtan2, given the matrices for Muon and all parameters of a model, as its examples and users do.
#
# One expects: its state is saved and loaded as that of any torch optimizer, which knows parameters by their place in the list that it was given; and
# parameters may come as any iterable, a generator as well.
# What happens: the matrices are taken out of the rest with sets, whose order follows addresses in memory and so is another one in each process. The
# state that one process saved is loaded in the next one to other parameters: of 24 biases and gains about 23 go on with the mean and the mean square of
# another one's gradients. Shapes that do not fit are an error at the next step; in a network whose layers are alike all fit, and nothing is said.
# And a generator of matrices is used up by its set, so that Muon's list is empty and the matrices, out of the rest too, are never trained.
# Who is hurt: whoever resumes: mean squares are slow to forget, and weights with small gradients stand still or jump; no run that is resumed repeats one
# that was not. With remove_muon_params_from_params=False and lists of one's own both are right.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 adam-atan2-pytorch==0.4.1
cat > "$folder/run.py" <<'PYTHON'
import importlib.metadata
import sys

import torch
from adam_atan2_pytorch import MuonAdamAtan2

action, way, path = sys.argv[1:]
saved = torch.load(path) if action == "resume" else None  # first, as a resumed training does
torch.manual_seed(0)
model = torch.nn.Sequential(*(each for _ in range(8) for each in (torch.nn.Linear(16, 16), torch.nn.LayerNorm(16))))
named = dict(model.named_parameters())
matrices = [each for each in named.values() if each.ndim == 2]
vectors = [each for each in named.values() if each.ndim == 1]
if way == "as it comes":
    optimizer = MuonAdamAtan2(matrices, model.parameters(), lr=1e-3)
elif way == "own lists":
    optimizer = MuonAdamAtan2(matrices, vectors, lr=1e-3, remove_muon_params_from_params=False)
else:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


def gradients():
    """Gradient of parameter k: k + 1, so that a mean tells whose it is."""
    for place, each in enumerate(named.values(), 1):
        each.grad = torch.full_like(each, float(place))


if action == "save":
    gradients()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
elif action == "resume":
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    gradients()
    others = [name for name, each in named.items() if each.ndim == 1 and not torch.allclose(optimizer.state[each]["exp_avg"], 0.1 * each.grad)]
    print(len(others), len(vectors))
else:
    print("adam-atan2-pytorch", importlib.metadata.version("adam-atan2-pytorch"), "torch", torch.__version__)
    optimizer = MuonAdamAtan2((each for each in matrices), model.parameters(), lr=1e-3)
    before = [each.detach().clone() for each in matrices]
    for _ in range(10):
        gradients()
        optimizer.step()
    still = sum(torch.equal(one, other) for one, other in zip(matrices, before))
    print(f"matrices given as a generator: {sum(len(group['params']) for group in optimizer.param_groups)} of {len(named)} parameters are in the optimizer,",
          f"{still} of {len(matrices)} matrices have not moved after 10 steps")
    raise SystemExit(0 if still == len(matrices) else 1)
PYTHON
run() { "$folder/venv/bin/python" "$folder/run.py" "$@" 2> "$folder/told" || { cat "$folder/told" >&2; exit 1; }; }
run generator - -
for way in "as it comes" "own lists" AdamW; do
  run save "$way" "$folder/state.pt"
  run resume "$way" "$folder/state.pt" > "$folder/count"
  read -r wrong all < "$folder/count"
  echo "$way: resumed in another process, $wrong of $all biases and gains have the state of another one"
  if [ "$way" = "as it comes" ]; then [ "$wrong" -gt 10 ]; else [ "$wrong" = 0 ]; fi
done
