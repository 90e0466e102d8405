"""Speed and memory, measured and printed as tables, and at the end the targets. Nothing is asserted: ratios of one run compare.

    python benchmarks/run.py [forward] [adm] [shapes] [codes] [train] [loop] [start] [memory] [sample] [--threads 1] [--repeats 7]

``forward``, ``train``, ``start`` and ``memory`` compare with `diffusers.UNet2DModel` of the same width and depth in its default
form, taken in turn with ours (``pip install diffusers``); ``adm`` with a checkout of openai/guided-diffusion.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from codes import codes
from common import Goal, Setting, head, summary
from memory import memory
from rich.console import Console
from shapes import shapes
from speed import adm, forward, train
from start import loop, sample, start

PARTS = {
    "forward": forward,
    "adm": adm,
    "shapes": shapes,
    "codes": codes,
    "train": train,
    "loop": loop,
    "start": start,
    "memory": memory,
    "sample": sample,
}


def main() -> None:
    """Run the tables that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; default all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--guided-diffusion", type=Path, metavar="PATH", help="a checkout of openai/guided-diffusion")
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    console, goals = Console(), list[Goal]()
    console.print(head())
    for name in options.parts or PARTS:
        try:
            for each in PARTS[name](Setting(options.repeats, options.guided_diffusion)):
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
