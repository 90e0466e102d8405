#!/usr/bin/env bash
# vector-quantize-pytorch 1.32.0 (torch 2.13.0): VectorQuantize called with mask= (or lens=), with use_cosine_sim=True or with several heads.
#
# One expects: padding is left out of the commitment loss and nothing else changes, so that a mask that hides nothing gives the loss of a call without one: the
# distance of a code to the vector that it stands for, which is of length 1 with use_cosine_sim, and is the output of project_in with several heads.
# What happens: with any mask the loss is the distance of the code to the layer's *input*, before it is normalised or projected. With cosine similarity, which
# is blind to length, inputs are drawn to length 1, and the loss grows with their square. With heads=2 the codes of both heads, which live behind project_in,
# are held against the unprojected input: that works since a head is as wide as the input by default, pulls the encoder to codes of another space, and gives
# project_in no gradient at all. No error, codes and codebook are right; with heads torch remarks once that shapes were broadcast, with cosine similarity
# nothing is said. A plain codebook with one head is right in all.
# Who is hurt: tokenizers of pictures of several sizes or of sequences in one padded batch: the term beside the reconstruction, by which runs are watched and
# compared, is another one as soon as a mask is given.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 vector-quantize-pytorch==1.32.0
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata

import torch
from vector_quantize_pytorch import VectorQuantize

torch.manual_seed(0)
vectors = 3 * torch.randn(4, 50, 8)
nothing_hidden = torch.ones(4, 50, dtype=torch.bool)
layers = {
    "one head": {},
    "use_cosine_sim=True": {"use_cosine_sim": True},
    "heads=2": {"heads": 2, "separate_codebook_per_head": True},
}


def loss_of(settings, scale=1.0, **call):
    """The loss of a fresh layer, the codes, and how long the loss's gradients to input and projection are."""
    torch.manual_seed(1)
    layer = VectorQuantize(dim=8, codebook_size=32, **settings)
    given = (scale * vectors).requires_grad_()
    _, codes, loss = layer(given, **call)
    loss.sum().backward()
    projection = [each.grad for each in layer.project_in.parameters()]
    length = sum(0.0 if each is None else each.square().sum().item() for each in projection) ** 0.5
    return loss.item(), codes, given.grad, length


print("vector-quantize-pytorch", importlib.metadata.version("vector-quantize-pytorch"), "torch", torch.__version__)
seen = {}
for name, settings in layers.items():
    plain, masked = loss_of(settings), loss_of(settings, mask=nothing_hidden)
    lens = loss_of(settings, lens=torch.full((4,), 50))
    alike = torch.nn.functional.cosine_similarity(plain[2].flatten(), masked[2].flatten(), dim=0).item()
    seen[name] = plain[0], masked[0], alike, torch.equal(plain[1], masked[1]) and masked[0] == lens[0], plain[3], masked[3]
    print(f"{name}: loss {plain[0]:.4f}, with a mask that hides nothing {masked[0]:.4f} (with lens {lens[0]:.4f}), codes the same: {torch.equal(plain[1], masked[1])};",
          f"cosine of its gradients to the input {alike:.2f}; gradient to project_in {plain[3]:.4f}, with the mask {masked[3]:.4f}")
cosine = {"use_cosine_sim": True}
small, large = (loss_of(cosine, scale, mask=nothing_hidden)[0] / loss_of(cosine, scale)[0] for scale in (1.0, 10.0))
print(f"use_cosine_sim=True: the loss with the mask is {small:.0f} times the one without; of inputs ten times as long, whose codes are the same, {large:.0f} times")
one, normed, heads = seen.values()
right = abs(one[0] - one[1]) < 1e-6 and one[2] > 0.999
wrong = normed[1] > 5 * normed[0] and normed[2] < 0.5 and large > 50 * small and heads[4] > 0 == heads[5] and heads[2] < 0.9
raise SystemExit(0 if right and wrong and all(each[3] for each in seen.values()) else 1)
PYTHON
