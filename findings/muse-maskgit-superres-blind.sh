#!/usr/bin/env bash
# muse-maskgit-pytorch 0.3.5 (torch 2.13.0): the super-resolution MaskGit, made with cond_image_size and trained as the README shows it, superres(images,
# texts=…).
#
# One expects: what the README and an assertion beside it say: cond_image_size is the one field to set, the training gets pictures of the large size, makes
# them small itself, and the transformer learns their codes given those of the small pictures, which generate is given later (cond_images).
# What happens: the small pictures are made, in a variable that nothing reads. No small picture is ever encoded, and the transformer is trained without a
# condition: every training of the README's kind is one of a second base model. generate and Muse do hand it the small picture's codes, which it has never
# seen: of eight colours, each a class of its own, the enlarged picture has that of the small one in an eighth of all cases, that is by chance. Trained with
# cond_images= handed in, which nothing asks for, it has it always. No error or warning; the README's list of things to do has a word that the argument is not
# right.
# Who is hurt: who trains the second stage of Muse, for days: the loss falls as it does for a base model, and enlarged pictures are of something else.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 einops==0.8.2 beartype==0.22.9 tqdm==4.70.1 packaging==26.3
"$folder/venv/bin/pip" install --quiet --no-deps muse-maskgit-pytorch==0.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.metadata
import importlib.util
import sys
import types

import torch
from torch.nn import functional

# For pictures from files, texts, quantizers and other kernels, none of which is asked for: codes and texts are our own below.
for name in ("torchvision", "torchvision.transforms", "vector_quantize_pytorch", "memory_efficient_attention_pytorch",
             "memory_efficient_attention_pytorch.flash_attention", "muse_maskgit_pytorch.t5"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
sys.modules["vector_quantize_pytorch"].VectorQuantize = sys.modules["vector_quantize_pytorch"].LFQ = None
sys.modules["memory_efficient_attention_pytorch.flash_attention"].FlashAttentionFunction = None
sys.modules["muse_maskgit_pytorch.t5"].DEFAULT_T5_NAME = "none"
sys.modules["muse_maskgit_pytorch.t5"].get_encoded_dim = lambda name: 8
sys.modules["muse_maskgit_pytorch.t5"].t5_encode_text = lambda texts, name: torch.ones(len(texts), 1, 8)
package = types.ModuleType("muse_maskgit_pytorch")
package.__path__ = importlib.util.find_spec("muse_maskgit_pytorch").submodule_search_locations
sys.modules["muse_maskgit_pytorch"] = package
muse = importlib.import_module("muse_maskgit_pytorch.muse_maskgit_pytorch")
COLOURS, LARGE, SMALL, BATCH = 8, 8, 4, 64


class Codes(muse.VQGanVAE):
    """The code of 2 × 2 pixels is which of eight grey levels they have; it notes the size of what it encodes."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.codebook_size, self.sizes = COLOURS, []

    def copy_for_eval(self):
        return self

    def get_encoded_fmap_size(self, image_size):
        return image_size // 2

    def encode(self, pictures):
        self.sizes.append(pictures.shape[-1])
        return None, (functional.avg_pool2d(pictures[:, :1], 2)[:, 0] * COLOURS).long(), None

    def decode_from_ids(self, codes):
        return ((codes + 0.5) / COLOURS)[:, None].repeat_interleave(2, 2).repeat_interleave(2, 3).repeat(1, 3, 1, 1)


def pictures(count, size):
    """Pictures of one level all over."""
    levels = (torch.randint(0, COLOURS, (count, 1, 1, 1)) + 0.5) / COLOURS
    return levels.expand(count, 3, size, size).contiguous()


def trained(handed):
    """A super-resolution model after 300 steps, the loss of its last ones, and the sizes that were encoded."""
    torch.manual_seed(0)
    codes = Codes()
    transformer = muse.MaskGitTransformer(num_tokens=COLOURS, seq_len=(LARGE // 2) ** 2, dim=32, depth=2, dim_head=16, heads=2, flash=False)
    model = muse.MaskGit(image_size=LARGE, cond_image_size=SMALL, transformer=transformer, vae=codes, cond_drop_prob=0.0)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(300):
        images = pictures(BATCH, LARGE)
        given = {"cond_images": functional.interpolate(images, SMALL)} if handed else {}
        loss = model(images, texts=["a colour"] * BATCH, **given)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, sum(losses[-50:]) / 50, sorted(set(codes.sizes))


print("muse-maskgit-pytorch", importlib.metadata.version("muse-maskgit-pytorch"), "torch", torch.__version__)
seen = {}
for handed in (False, True):
    model, loss, sizes = trained(handed)
    small = pictures(256, SMALL)
    made = model.generate(["a colour"] * 256, cond_images=small, timesteps=6, cond_scale=1, temperature=0.5)
    share = (made == small[:, :, :1, :1]).float().mean().item()
    seen[handed] = share, sizes
    print(f"trained {'with cond_images' if handed else 'as the README shows'}: sizes that were encoded {sizes}, loss {loss:.3f};",
          f"the enlarged picture has the small one's colour in {100 * share:.0f} % of all places")
raise SystemExit(0 if seen[False][1] == [LARGE] and seen[False][0] < 0.25 and seen[True][1] == [SMALL, LARGE] and seen[True][0] > 0.95 else 1)
PYTHON
