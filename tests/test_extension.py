"""A network, a condition, a guide with its guidance, a codec, a kind of generator and a task from outside of the package: each is
one class and one line that names it, and is then trained, sampled, saved and loaded as ours are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from lodestar import checkpoint, codecs, conditions, guidance, library, nets, tasks
from lodestar.codecs import Codec, Coder, pixels
from lodestar.conditions import Ask, Condition, Encoder, Fields, Label, Signals
from lodestar.config import Config, Problem, decode, edit
from lodestar.conversion import diffusers
from lodestar.data.batch import Batch, DataFacts
from lodestar.denoiser import DenoiserConfig
from lodestar.generators.album import Manifest
from lodestar.generators.base import Generator
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.guide import Critic, Guides
from lodestar.generators.request import Frame, Request, Settings
from lodestar.guidance import Context, LogP, Sees, Steering
from lodestar.guidance import Critic as Climbed
from lodestar.info import describe
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets import DenoiserNetwork, DenoiserNetworkConfig, Part, UNetConfig
from lodestar.nets.attention import Gather
from lodestar.nets.layers import Conv2d
from lodestar.objectives import Losses
from lodestar.tasks import Export, Learner, Phase, Rng, Task, TrainDenoiser
from lodestar.training.ablate import ablate
from lodestar.training.init import initialize
from lodestar.training.loop import train
from lodestar.training.run import Run
from tests.training.runs import denoising, write_pictures


class Brightness(Condition):
    """How bright a picture is, in [−1, 1]."""

    kind: Literal["brightness"] = "brightness"

    def build(self, width: int) -> BrightnessEncoder:
        return BrightnessEncoder(width)

    def asked(self, asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
        given = [ask.given(self.kind) for ask in asks]
        return torch.tensor([each or 0.0 for each in given]), torch.tensor([each is not None for each in given])

    def seen(self, fields: Fields, x0: Tensor) -> Tensor:
        return x0.flatten(1).mean(1)


class BrightnessEncoder(Encoder):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        emb = given[:, None] * self.weight
        return Signals(emb if keep is None else emb * keep[:, None])

    def null(self, count: int) -> Signals:
        return Signals(self.weight.new_zeros(count, len(self.weight)))


class Negative(Codec):
    """Pictures as their negatives."""

    kind: Literal["negative"] = "negative"

    @property
    def limit(self) -> float | None:
        return 1.0

    def data_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def build(self) -> NegativeCoder:
        return NegativeCoder()


class NegativeCoder(Coder):
    def encode(self, data: Tensor) -> Tensor:
        return -pixels.encode(data)

    def decode(self, x: Tensor) -> Tensor:
        return pixels.decode(-x)


class ColumnConfig(DenoiserNetworkConfig):
    """Two convolutions, with the time and the conditions between them."""

    kind: Literal["column"] = "column"
    silent: ClassVar[tuple[str, ...]] = ("sharp",)
    width: int = 16
    sharp: bool = False
    """What the weights do not tell: whether what is between is cut at zero."""

    @property
    def divisor(self) -> int:
        return 4

    @property
    def emb_width(self) -> int:
        return self.width

    def build(self) -> Column:
        return Column(self)


class Column(DenoiserNetwork):
    def __init__(self, config: ColumnConfig) -> None:
        super().__init__()
        self.config = config
        self.time = nn.Linear(1, config.width)
        self.first = Conv2d(config.in_channels, config.width, 3, padding=1)
        self.last = Conv2d(config.width, config.out_channels, 3, padding=1)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        emb: Tensor | None = None,
        dtype: torch.dtype | None = None,
        gather: Mapping[Part, Gather] | None = None,
    ) -> Tensor:
        e = self.time(time[:, None] / 1000) + (0 if emb is None else emb)
        h = self.first(x.to(dtype or x.dtype)).to(x.dtype) + e[:, :, None, None]
        return self.last(h.relu() if self.config.sharp else h.tanh())

    def lower(self, dtype: torch.dtype) -> None:
        self.first.to(dtype)


class Glow(Steering):
    """Guidance towards light, which a guide of the role "lamp" tells."""

    role: ClassVar[str | None] = "lamp"
    kind: Literal["glow"] = "glow"
    scale: float = 1.0

    @property
    def looks_at(self) -> Sees:
        return "noisy"

    def critic(self, context: Context) -> Climbed:
        return Climbed(context.critics["lamp", "noisy"], self.scale)


class LampConfig(Config):
    kind: Literal["lamp"] = "lamp"


class Lamp(nn.Module):
    """A guide: the brighter, the likelier."""

    name, digest = "", ""
    known: tuple[tuple[str, ...], int | None] = ((), None)

    def __init__(self, config: LampConfig) -> None:
        super().__init__()
        self.config, self.gain = config, nn.Parameter(torch.tensor(1.0))

    def agree(self, model: DiffusionConfig, sees: Sees) -> None:
        """Any model will do."""

    def logp(self, asks: Sequence[Ask], sees: Sees, device: torch.device) -> LogP:
        return lambda x, level: self.gain * x.flatten(1).mean(1)


class FlatConfig(Config):
    kind: Literal["flat"] = "flat"
    size: tuple[int, int] = (8, 8)


class Flat(nn.Module, Generator):
    """A generator of pictures of one colour."""

    def __init__(self, config: FlatConfig) -> None:
        super().__init__()
        self.config, self.colour = config, nn.Parameter(torch.zeros(3))

    @property
    def shape(self) -> tuple[int, int, int]:
        return (3, *self.config.size)

    @property
    def device(self) -> torch.device:
        return self.colour.device

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        return "float32"

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        return (), None

    @property
    def defaults(self) -> Settings:
        return Settings()

    def agree(self, guide: Critic, sees: Sees) -> None:
        """Nothing guides it."""

    def label(self, asked: str | int | None, guides: Guides) -> Label:
        return None

    def prepare(self, asked: Request, guides: Guides | None = None) -> Painted:
        return Painted(self, asked)


class Painted:
    length = 1

    def __init__(self, model: Flat, asked: Request) -> None:
        self.model, self.asked = model, asked

    def frames(self, batch_size: int = 32, start: Tensor | None = None) -> Iterator[Frame]:
        colour = self.model.colour.detach()[:, None, None].expand(self.model.shape)
        yield Frame(0, 1, 1, colour.expand(len(self.asked.asks), *self.model.shape))


class FitColour(Task):
    """Learns the mean colour of pictures."""

    kind: Literal["fit_colour"] = "fit_colour"
    model: FlatConfig = FlatConfig()

    @property
    def conditions(self) -> bool:
        return False

    def resolve(self, facts: DataFacts) -> Self:
        return self.replace(model=FlatConfig(size=facts.size))

    def build(self, device: torch.device, dtype: torch.dtype) -> ColourLearner:
        return ColourLearner(self)


class ColourLearner(Learner):
    def __init__(self, task: FitColour) -> None:
        self.task, self.module = task, Flat(task.model)

    def phases(self) -> list[Phase]:
        return [Phase("colour", list(self.module.parameters()), self.loss)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        x0 = pixels.encode(batch.image)
        error = (x0 - self.module.colour[:, None, None]).square().flatten(1).mean(1)
        return Losses(error, {"mse": error.detach()})

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "flat", self.task.model.to_json())}

    def compile(self) -> None:
        """There is no network."""


KINDS: list[tuple[Any, type[Config]]] = [
    (conditions.KINDS, Brightness), (codecs.KINDS, Negative), (guidance.KINDS, Glow), (nets.KINDS, ColumnConfig),
    (tasks.KINDS, FitColour),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The one line of each; taken out again afterwards."""
    for kinds, kind in KINDS:
        kinds.register(kind)
    monkeypatch.setitem(library.KINDS, "flat", library.Kind(FlatConfig, Flat))
    monkeypatch.setitem(library.KINDS, "lamp", library.Kind(LampConfig, Lamp))
    yield
    for kinds, kind in KINDS:
        kinds.remove(kind)


def brightness(images: Tensor) -> float:
    return float(images.float().mean())


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_pictures(tmp_path / "pictures", 12)


def test_a_condition_a_codec_a_guide_and_its_guidance(source: str, tmp_path: Path) -> None:
    run = denoising(source, images=16, microbatch=None)
    assert isinstance(run.task, TrainDenoiser)
    model = run.task.model
    denoiser = model.denoiser.replace(conditions=(*model.denoiser.conditions, Brightness()))
    run = run.replace(task=run.task.replace(model=model.replace(denoiser=denoiser, codec=Negative())))
    path = train(run, tmp_path / "run")
    made = library.load(path, "cpu")
    assert [condition.kind for condition in made.config.denoiser.conditions] == ["label", "brightness"]
    assert made.config.codec == Negative() and made.denoiser.brightness.weight.shape == (32,)

    lamp = tmp_path / "lamp.safetensors"
    checkpoint.save(lamp, "lamp", LampConfig().to_json(), Lamp(LampConfig()).state_dict(), {})
    guide = library.load(lamp, "cpu")
    how = Settings(steps="4", guidance=(Glow(scale=300.0),))
    asked = Request(asks=tuple(Ask(seed=k, label=0, others={"brightness": 0.5}) for k in range(3)), settings=how)

    def images(asked: Request, **guides: Any) -> Tensor:
        return torch.cat([frame.images for frame in made.stream(asked, guides=guides) if frame.final])

    plain, lit = images(asked.replace(settings=Settings(steps="4"))), images(asked, lamp=guide)
    # The codec turns light into dark: what the guide finds likely is bright in what the model sees.
    assert brightness(lit) < brightness(plain) - 5
    other = asked.replace(asks=tuple(ask.replace(others={"brightness": -9.0}) for ask in asked.asks))
    assert not torch.equal(images(other, lamp=guide), lit)

    samples = made.sample(count=2, steps=4, guidance="glow:300", guides={"lamp": guide})
    samples.save(tmp_path / "album")
    again, guides = library.load_origin(Manifest.read(tmp_path / "album"), "cpu")
    request = Manifest.read(tmp_path / "album").request
    assert torch.equal(torch.cat([f.images for f in again.stream(request, guides=guides) if f.final]), samples.images)


@pytest.fixture
def column(source: str) -> Run:
    """A run with the network from outside."""
    return edit(denoising(source, images=64, microbatch=None), ['task.model.denoiser.network={"kind":"column"}'])


def test_a_network(column: Run, source: str, tmp_path: Path) -> None:
    path = train(column, tmp_path / "run")
    made = library.load(path, "cpu", dtype=torch.float32)
    network = made.config.denoiser.network
    assert (network, made.denoiser.network.first.weight.shape) == (ColumnConfig(in_channels=3, out_channels=6), (16, 3, 3, 3))
    before = column.task.build(torch.device("cpu"), torch.float32).module.state_dict()
    assert not torch.equal(before["denoiser.network.first.weight"], made.denoiser.network.first.weight)
    samples = made.sample("b", count=3, steps=4, guidance="cfg:2", seed=1)
    assert samples.images.shape == (3, 3, 8, 8) and samples.images.float().std() > 1
    assert not torch.equal(samples.images, made.sample("a", count=3, steps=4, guidance="cfg:2", seed=1).images)
    lowered = library.load(path, "cpu", dtype=torch.bfloat16)
    assert lowered.denoiser.network.first.weight.dtype == torch.bfloat16
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lowered(x, 5).x0, made(x, 5).x0, rtol=0.02, atol=0.02)
    samples.save(tmp_path / "album")
    again, _ = library.load_origin(Manifest.read(tmp_path / "album"), "cpu")
    assert torch.equal(again.sample("b", count=3, steps=4, guidance="cfg:2", seed=1).images, samples.images)
    assert "column" in "".join(segment.text for segment in Console(width=200).render(describe(str(path))))


def test_what_a_network_cannot_do_is_refused_by_name(column: Run, tmp_path: Path) -> None:
    assert isinstance(column.task, TrainDenoiser)
    model = Diffusion(column.task.model)
    for text, reason in (
        ("pag:1", "pag needs a network with attention"),
        ("sag:1", "sag needs a network with attention in its middle"),
    ):
        with pytest.raises(Problem, match=reason):
            model.sample(0, count=1, steps=2, guidance=text)
    with pytest.raises(Problem, match="size is 8×6: both must be multiples of 4"):
        column.task.model.replace(size=(8, 6))
    with pytest.raises(
        Problem, match="diffusers has no network for this model: it is of kind 'column', and only a 'unet' is written"
    ):
        diffusers.export(model, tmp_path / "diffusers")
    given: Any = (tmp_path / "ablate", None, None, None)
    with pytest.raises(Problem, match="this run's network is of kind 'column': the variants are of a U-Net, 'unet'"):
        ablate(column, *given)
    assert not list(tmp_path.glob("[da]*"))


def test_weights_of_another_network_are_refused(column: Run, tmp_path: Path) -> None:
    assert isinstance(column.task, TrainDenoiser)
    learner = column.task.build(torch.device("cpu"), torch.float32)
    other = edit(column, ["task.model.denoiser.network.sharp=true"]).task.model.build()
    unet = denoising("digits").task.model.build()
    for module, reason in (
        (other, r"its network's sharp is True, this run's False.*: set task\.model\.denoiser\.network\.sharp=True$"),
        (unet, "its network is of kind 'unet', this run's of kind 'column'"),
    ):
        path = tmp_path / "there.safetensors"
        checkpoint.save(path, "diffusion", module.config.to_json(), module.state_dict(), {})
        with pytest.raises(Problem, match=reason):
            initialize(learner, str(path))


def test_a_network_that_does_not_say_its_kind_is_a_unet() -> None:
    assert decode(DenoiserConfig, {"network": {"width": 32}}) == DenoiserConfig(network=UNetConfig(width=32))
    for given, reason in (
        ({"widht": 32}, "unknown field 'network.widht': choose from .*; did you mean 'width'"),
        ({"kind": "column", "wdth": 2}, "unknown field 'network.wdth': choose from .*; did you mean 'width'"),
        ({"kind": "colunm"}, "network 'colunm': choose from unet, prior, ncsnpp, column; did you mean 'column'"),
        (3, "network is 3: it has to be an object with a kind: choose from unet, prior, ncsnpp, column"),
    ):
        with pytest.raises(Problem, match=reason):
            decode(DenoiserConfig, {"network": given})


def test_a_kind_of_generator_and_a_task(source: str, tmp_path: Path) -> None:
    run = denoising(source, images=4_000, optimizer=tasks.OptimizerConfig(rate=0.02)).replace(task=FitColour())
    made = library.load(train(run, tmp_path / "run"), "cpu")
    assert isinstance(made, Flat)
    samples = made.sample(count=2)
    assert samples.images.shape == (2, 3, 8, 8)
    from lodestar.data import open_source

    every = open_source(source, labels=False)
    mean = np.mean([every.image(k) for k in range(len(every))])
    assert abs(brightness(samples.images) - mean) < 3
    samples.save(tmp_path / "album")
    again, _ = library.load_origin(Manifest.read(tmp_path / "album"), "cpu")
    assert torch.equal(again.sample(count=2).images, samples.images)
