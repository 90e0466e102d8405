"""Training of a CLIP against `transformers.CLIPModel` of the same size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from common import CPU, Goal, Setting, chosen, own_time, seconds
from rich.table import Table

from lodestar.conversion.clip import FOLDER
from lodestar.conversion.rename import rename
from lodestar.core.schedule import Cosine
from lodestar.data import Batch, Shuffled, open_source
from lodestar.models.clip import ClipModelConfig
from lodestar.nets.clip import ClipConfig, TextTowerConfig
from lodestar.nets.clip_image import ViTConfig
from lodestar.nets.precision import choose_dtype
from lodestar.tasks import Rng, TrainClip
from lodestar.text import OwnTokenizer

BATCH, SIDE, CONTEXT, WIDTH = 64, 32, 32, 128
END = "."
"""End of every caption, which transformers' model looks for: ours takes the last token itself."""

Step = Callable[[], float]


def batches(count: int) -> list[Batch]:
    """Pictures of shapes with captions."""
    stream = Shuffled(open_source("shapes", size=SIDE, captions=True), BATCH, workers=0).batches(0)
    drawn = [next(stream) for _ in range(count)]
    return [Batch({**each.fields, "caption": tuple(f"{text}{END}" for text in captions(each))}) for each in drawn]


def captions(batch: Batch) -> tuple[str, ...]:
    """The captions of a batch."""
    given = batch.fields["caption"]
    assert isinstance(given, tuple)
    return given


def config(tokenizer: OwnTokenizer) -> ClipModelConfig:
    """A CLIP of the size of the presets of shapes, with 4 blocks for pictures and 2 for texts."""
    image = ViTConfig(size=(SIDE, SIDE), patch=4, width=WIDTH, layers=4, heads=4, embed=WIDTH, activation="gelu")
    text = TextTowerConfig(vocabulary=tokenizer.vocabulary, context=CONTEXT, width=WIDTH, layers=2, heads=4, activation="gelu")
    return ClipModelConfig(network=ClipConfig(image=image, text=text), tokenizer=tokenizer, schedule=Cosine())


def sides(model: ClipModelConfig, given: list[Batch]) -> dict[str, Step]:
    """Steps of training on one batch after the other, which return their losses: transformers' model, and ours, begun as it."""
    import transformers

    image, text = model.network.image, model.network.text
    assert isinstance(image, ViTConfig)
    towers = [
        {
            "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": each.layers,
            "num_attention_heads": each.heads, "hidden_act": each.activation,
        }
        for each in (image, text)
    ]  # fmt: skip
    tokenizer = model.tokenizer
    words = {"vocab_size": text.vocabulary, "max_position_embeddings": CONTEXT, "eos_token_id": tokenizer.encode(END)[0]}
    picture = {"image_size": SIDE, "patch_size": image.patch}
    settings = transformers.CLIPConfig(
        vision_config={**towers[0], **picture}, text_config={**towers[1], **words}, projection_dim=image.embed
    )
    theirs = transformers.CLIPModel(settings)
    ours = TrainClip(model=model).build(CPU, choose_dtype(None, CPU, "training"))
    state = {name: each for name, each in theirs.state_dict().items() if not name.endswith("position_ids")}
    ours.model.network.load_state_dict(rename(state, FOLDER, ours.model.network.state_dict()))

    def their_loss(batch: Batch) -> torch.Tensor:
        tokens, mask = tokenizer.batch(captions(batch), CONTEXT, cut=True)
        pixels = batch.image.float() / 127.5 - 1
        loss: torch.Tensor = theirs(input_ids=tokens, attention_mask=mask.long(), pixel_values=pixels, return_loss=True).loss
        return loss

    def our_loss(batch: Batch) -> torch.Tensor:
        return ours.grade(ours.encode(batch, Rng(torch.Generator(), BATCH))).total.mean()

    return {
        "transformers.CLIPModel": stepper(list(theirs.parameters()), their_loss, given),
        f"ours, {chosen(True)}": stepper(list(ours.module.parameters()), our_loss, given),
    }


def stepper(parameters: list[torch.nn.Parameter], loss: Callable[[Batch], torch.Tensor], given: list[Batch]) -> Step:
    """A step with AdamW."""
    optimizer, batches = torch.optim.AdamW(parameters, lr=1e-3, fused=True), iter(given)

    def step() -> float:
        optimizer.zero_grad()
        found = loss(next(batches))
        found.backward()
        optimizer.step()
        return found.item()

    return step


def clip(setting: Setting) -> Iterator[Table | Goal]:
    """Steps of training, in turn, on the same pictures and from the same weights, with the losses of both."""
    torch.manual_seed(0)
    repeats = setting.repeats * 3
    given = batches(repeats + 2)
    tokenizer = OwnTokenizer(size=400).learned(text.removesuffix(END) for each in given for text in captions(each))
    steps, losses = sides(config(tokenizer), given), dict[str, list[float]]()

    def noted(name: str) -> None:
        losses.setdefault(name, []).append(steps[name]())

    took = seconds({name: functools.partial(noted, name) for name in steps}, repeats, clock=own_time)
    table = Table("training step of a CLIP", "pictures/s", "times", "loss at first", f"after {repeats + 2} steps")
    first, last = took
    for name, each in took.items():
        loss = (f"{losses[name][0]:.3f}", f"{losses[name][-1]:.3f}")
        table.add_row(name, f"{BATCH / each:.0f}", f"{took[first] / each:.2f}", *loss)
    yield table
    yield Goal("training step of a CLIP, against transformers", took[first] / took[last], 1.5, 1.5)
