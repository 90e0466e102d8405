#!/usr/bin/env bash
# dalle2-pytorch 1.15.6 (torch 2.13.0): DiffusionPrior trained on embeddings made beforehand, and with predict_v=True or predict_x_start=False.
#
# One expects: the loss of a batch leaves the batch as it is; and what is predicted, picture's embedding, noise or v, is a matter of training: from exact networks all
# three sample the same embeddings.
# What happens: forward multiplies the image embeddings by √dim *in place*. Batches that are slices of one tensor, as of a file of embeddings, are 22.6 times as
# long after one epoch (of 512 values), 512 times after two: the prior is trained on ever longer vectors, and two evaluations of one batch differ. And with
# noise or v the predicted embedding is clipped to −1 … 1 at every step, as pictures are, though scaling has just given its values deviation 1: a third of
# them is cut. Of a single known embedding a perfect network makes one of cosine 0.94 and of 0.71 of the length; with predict_x_start it is exact.
# Who is hurt: trainings from arrays in memory: the loss of a few epochs explodes, or slowly fits the wrong length; and comparisons of objectives for priors, which
# find that predicting x₀ is the better one. No error or warning in either.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 einops==0.8.2 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --no-deps dalle2-pytorch==1.15.6
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.metadata
import importlib.util
import sys
import types

import torch

# Networks, text, files and augmentation, none of which is asked for.
absent = {
    "torchvision": (), "torchvision.transforms": (), "kornia": (), "kornia.augmentation": (), "kornia.filters": ("gaussian_blur2d",),
    "resize_right": ("resize",), "rotary_embedding_torch": ("RotaryEmbedding",), "x_clip": ("CLIP",), "coca_pytorch": ("CoCa",),
    "vector_quantize_pytorch": ("VectorQuantize",), "dalle2_pytorch.tokenizer": ("tokenizer",),
}
path = importlib.util.find_spec("dalle2_pytorch").submodule_search_locations
for name, names in {"dalle2_pytorch": (), **absent}.items():
    sys.modules[name] = types.ModuleType(name)
    for each in names:
        setattr(sys.modules[name], each, type(each, (), {}))
sys.modules["dalle2_pytorch"].__path__ = path
library = importlib.import_module("dalle2_pytorch.dalle2_pytorch")
library.tqdm = lambda steps, **_: steps
WIDTH = 512
torch.manual_seed(0)
known = torch.nn.functional.normalize(torch.randn(1, WIDTH), dim=1)


class Exact(torch.nn.Module):
    """The exact network of a single embedding."""

    dim, self_cond = WIDTH, False

    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def forward(self, x, time, **_):
        alpha = self.kept[time].view(-1, 1)
        x0 = (known * WIDTH**0.5).expand_as(x)
        noise = (x - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        return {"x_start": x0, "noise": noise, "v": alpha.sqrt() * noise - (1 - alpha).sqrt() * x0}[self.objective]

    def forward_with_cond_scale(self, x, time, cond_scale, **_):
        return self(x, time)


def prior(objective):
    network = Exact(objective)
    made = library.DiffusionPrior(
        network, image_embed_dim=WIDTH, timesteps=100, condition_on_text_encodings=False, predict_x_start=objective == "x_start", predict_v=objective == "v")
    network.kept = made.noise_scheduler.alphas_cumprod
    return made


print("dalle2-pytorch", importlib.metadata.version("dalle2-pytorch"), "torch", torch.__version__)
embeddings = known.repeat(64, 1)
trained, lengths = prior("x_start"), [embeddings.norm(dim=1).mean().item()]
losses = []
for _ in range(3):
    losses.append(sum(trained(text_embed=known.expand(16, -1), image_embed=batch).item() for batch in embeddings.split(16)) / 4)
    lengths.append(embeddings.norm(dim=1).mean().item())
print("length of the data's embeddings before and after each of three epochs:", *(f"{each:.4g}" for each in lengths))
print("loss of the perfect network in the three:", *(f"{each:.3g}" for each in losses))
seen = {}
for objective in ("x_start", "noise", "v"):
    for steps in (100, 20):
        made = prior(objective).p_sample_loop((4, WIDTH), text_cond={"text_embed": known.expand(4, -1)}, timesteps=steps)
        seen[objective, steps] = torch.nn.functional.cosine_similarity(made, known).mean().item(), made.norm(dim=1).mean().item()
        print(f"{objective}, {steps} of 100 steps: cosine to the known embedding {seen[objective, steps][0]:.3f}, length {seen[objective, steps][1]:.3f} (true: 1)")
grown = all(abs(after / before / WIDTH**0.5 - 1) < 1e-3 for before, after in zip(lengths, lengths[1:])) and losses[0] < 1e-9 and losses[2] > 1e3
exact = all(abs(each - 1) < 1e-3 for steps in (100, 20) for each in seen["x_start", steps])
cut = all(0.93 < seen[objective, steps][0] < 0.97 and seen[objective, steps][1] < 0.8 for objective in ("noise", "v") for steps in (100, 20))
raise SystemExit(0 if grown and exact and cut else 1)
PYTHON
