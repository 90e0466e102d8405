"""Speed and memory, measured and printed as tables, and at the end the targets. Nothing is asserted: ratios of one run compare.

    python benchmarks/run.py [PART …] [--threads 1] [--repeats 7]

``forward``, ``train``, ``start`` and ``memory`` compare with `diffusers.UNet2DModel` of the same width and depth in its default
form, taken in turn with ours (``pip install diffusers``); ``adm`` with a checkout of openai/guided-diffusion, ``glide`` with one
of openai/glide-text2im, ``clip`` with `transformers.CLIPModel` (``pip install transformers``), and ``degradations`` with a
checkout of cszn/BSRGAN, whose code needs opencv-python-headless, scipy<1.12 and numpy<2.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from clip import clip
from codes import codes, walks
from common import Goal, Setting, head, summary
from family import family
from gan import gan
from loader import loader
from memory import memory
from priors import priors
from rich.console import Console
from shapes import shapes
from speed import adm, forward, train
from start import loop, sample, start
from text_speed import glide, guided, masked, prompt, text

from degradations import degradations

PARTS = {
    "forward": forward,
    "adm": adm,
    "shapes": shapes,
    "codes": codes,
    "walks": walks,
    "priors": priors,
    "train": train,
    "loader": loader,
    "gan": gan,
    "family": family,
    "loop": loop,
    "start": start,
    "memory": memory,
    "sample": sample,
    "degradations": degradations,
    "text": text,
    "masked": masked,
    "guided": guided,
    "clip": clip,
    "glide": glide,
    "prompt": prompt,
}


def main() -> None:
    """Run the tables that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; default all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--guided-diffusion", type=Path, metavar="PATH", help="a checkout of openai/guided-diffusion")
    parser.add_argument("--bsrgan", type=Path, metavar="PATH", help="a checkout of cszn/BSRGAN")
    parser.add_argument("--glide", type=Path, metavar="PATH", help="a checkout of openai/glide-text2im")
    parser.add_argument("--tiny", action="store_true", help="texts, walks, family and loader in small, to see that they run")
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    console, goals = Console(), list[Goal]()
    checkouts = {name: getattr(options, name) for name in ("guided_diffusion", "glide", "bsrgan")}
    setting = Setting(options.repeats, **checkouts, **({"batches": (2,)} if options.tiny else {}))
    console.print(head())
    for name in options.parts or PARTS:
        try:
            for each in PARTS[name](setting):
                if isinstance(each, Goal):
                    goals.append(each)
                else:
                    console.print(each)
        except ImportError as error:
            console.print(f"{name}: skipped, {error}")
    if goals:
        console.print(summary(goals))


if __name__ == "__main__":
    main()
