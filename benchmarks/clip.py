"""Speed of a CLIP: training against `transformers.CLIPModel` of the same size, and guidance against sampling without it.

    python benchmarks/clip.py [--repeats 5]

Both sides train in turn, on the same pictures and texts, with the same optimizer; ours in the format that the probe chooses. The
texts fill half of the context, to which transformers' tokenizer pads them. Needs ``pip install transformers``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from rich.console import Console
from rich.table import Table

import lodestar
from lodestar.core.schedule import Cosine
from lodestar.data import Batch
from lodestar.models.clip import ClipModelConfig
from lodestar.nets.clip import ClipConfig, TextTowerConfig
from lodestar.nets.clip_image import ViTConfig
from lodestar.nets.native import processor
from lodestar.nets.precision import choose_dtype
from lodestar.tasks import Rng, TrainClip
from lodestar.text import OwnTokenizer

BATCH, SIDE, CONTEXT = 64, 32, 32
CPU = torch.device("cpu")
CAPTION = "a red ball, a box"


def config(time: str = "none") -> ClipModelConfig:
    image = ViTConfig(size=(SIDE, SIDE), patch=4, width=128, layers=4, heads=4, embed=64, activation="gelu", time=time)  # type: ignore[arg-type]
    text = TextTowerConfig(vocabulary=OwnTokenizer().vocabulary, context=CONTEXT, width=128, layers=2, heads=4, activation="gelu")
    return ClipModelConfig(network=ClipConfig(image=image, text=text), schedule=Cosine())


def ours(batch: Batch) -> Callable[[], float]:
    """A step of training in our form; returns its loss."""
    made = TrainClip(model=config()).build(CPU, choose_dtype(None, CPU, "training"))
    optimizer = torch.optim.AdamW(made.module.parameters(), lr=1e-3, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        loss = made.grade(made.encode(batch, Rng(torch.Generator(), BATCH))).total.mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def theirs(batch: Batch) -> Callable[[], float]:
    """A step of training in transformers' form."""
    image, text = config().network.image, config().network.text
    assert isinstance(image, ViTConfig)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            vision_config={
                "hidden_size": image.width, "intermediate_size": 4 * image.width, "num_hidden_layers": image.layers,
                "num_attention_heads": image.heads, "image_size": SIDE, "patch_size": image.patch, "hidden_act": "gelu",
            },
            text_config={
                "hidden_size": text.width, "intermediate_size": 4 * text.width, "num_hidden_layers": text.layers,
                "num_attention_heads": text.heads, "vocab_size": text.vocabulary, "max_position_embeddings": CONTEXT,
                "hidden_act": "gelu", "bos_token_id": 0, "eos_token_id": text.vocabulary - 1,
            },
            projection_dim=image.embed,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    captions = batch.fields["caption"]
    assert isinstance(captions, tuple)
    tokens, mask = OwnTokenizer().batch(captions, CONTEXT)

    def step() -> float:
        optimizer.zero_grad()
        pixels = batch.image.float() / 127.5 - 1
        loss = model(input_ids=tokens, attention_mask=mask.long(), pixel_values=pixels, return_loss=True).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def medians(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each side, taken in turn, after a first time of each that does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name, call in sides.items():
            begin = time.process_time()
            call()
            if number:
                times[name].append(time.process_time() - begin)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=rng)
    batch = Batch({"image": images, "caption": tuple(f"{CAPTION[: 8 + k % 9]} {k}" for k in range(BATCH))})
    table = Table("", "ms", "ratio", title=f"{processor().name}, one thread")
    training = {"transformers.CLIPModel, a step": theirs(batch), "ours, a step": ours(batch)}
    losses: dict[str, list[float]] = {name: [] for name in training}
    sides = {name: lambda name=name, step=step: losses[name].append(step()) for name, step in training.items()}  # type: ignore[misc]
    first, *_ = found = medians(sides, repeats)
    for name, seconds in found.items():
        table.add_row(
            f"{name} (loss {losses[name][0]:.2f} → {losses[name][-1]:.2f})",
            f"{1e3 * seconds:.1f}",
            f"{found[first] / seconds:.2f} times as fast",
        )

    model, clip = lodestar.load("cifar10", "cpu"), config("sinusoid").build().requires_grad_(False).eval()
    clip.lower(choose_dtype(None, CPU))
    plain = lambda **more: model.sample("ship", count=8, steps=8, sampler="ddim", **more)  # noqa: E731
    guided = {"guidance": "clip:3", "guides": {"clip": clip}, "prompt": CAPTION}
    found = medians({"8 pictures of cifar10, 8 steps": plain, "with CLIP guidance": lambda: plain(**guided)}, repeats)
    (first, base), *_ = found.items()
    for name, seconds in found.items():
        table.add_row(name, f"{1e3 * seconds:.1f}", f"{seconds / base:.2f} times the time")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
