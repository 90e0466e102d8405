#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0): VQModel's commitment loss, the second value of its forward pass.
#
# One expects: the loss of VQ-VAE's paper, ‖sg(z) − e‖² + β·‖z − sg(e)‖² with β = 0.25: codes follow vectors at full weight, vectors are held to codes at a quarter.
# What happens: β stands at the other term: vectors are held at full weight, and codes follow at a quarter. The class beneath has a switch for it
# (`legacy`, on by default), which VQModel does not hand on: no setting of the model turns it off.
# Who is hurt: whoever trains a VQModel with the loss that it returns: codes learn four times as slowly, and more of them die.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import inspect
import warnings

warnings.simplefilter("ignore")
import diffusers
import torch

diffusers.utils.logging.set_verbosity_error()
torch.manual_seed(0)
model = diffusers.VQModel(block_out_channels=(32,), num_vq_embeddings=8, latent_channels=3)
z = torch.randn(1, 3, 4, 4, requires_grad=True)
_, loss, (_, _, index) = model.quantize(z)
loss.backward()
codes = model.quantize.embedding.weight
chosen = codes.detach()[index].view(1, 4, 4, 3).movedim(-1, 1)
unit = 2 * (z.detach() - chosen) / z.numel()  # the gradient of the mean squared distance to its vector
of_vectors = (z.grad / unit).mean().item()
of_codes = (codes.grad.sum(0) / -unit.sum(dim=(0, 2, 3))).mean().item()
print("diffusers", diffusers.__version__)
print(f"weight of the pull on vectors: {of_vectors:.2f} (the paper's: 0.25); of the pull on codes: {of_codes:.2f} (the paper's: 1.00)")
handed = "legacy" in inspect.signature(diffusers.VQModel.__init__).parameters
print(f"VQModel has a setting for it: {'yes' if handed else 'no'}")
raise SystemExit(0 if abs(of_vectors - 1) < 1e-3 and abs(of_codes - 0.25) < 1e-3 and not handed else 1)
PYTHON
