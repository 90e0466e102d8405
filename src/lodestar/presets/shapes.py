"""The runs that made the embedded models of `shapes`: text-to-image, inpainting, and CLIPs for guidance and for measuring; and
the run of an upsampler.

Their data is drawn as they go, so they need none. Pictures are not mirrored, as their captions tell left and right.
"""

from __future__ import annotations

from lodestar.codecs import Embeddings, VQVAECodec
from lodestar.conditions import ClipText, Condition, Embedding, LowRes, Masked, TextCondition
from lodestar.core.draws import LogNormal
from lodestar.core.prediction import X0, Velocity
from lodestar.core.schedule import Cosine
from lodestar.data import Transforms
from lodestar.degradations import Blur
from lodestar.denoiser import DenoiserConfig
from lodestar.guidance import Clamp
from lodestar.models.autoregressive import AutoregressiveConfig
from lodestar.models.clip import ClipModelConfig
from lodestar.models.code_prior import CodePriorConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets import TransformerConfig
from lodestar.nets.clip import ClipConfig, TextTowerConfig
from lodestar.nets.clip_image import ViTConfig
from lodestar.nets.codebook import CodebookConfig
from lodestar.nets.codes import CodesConfig
from lodestar.nets.prior import PriorConfig
from lodestar.nets.pyramid import PyramidConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Simple
from lodestar.presets.parts import small_unet
from lodestar.tasks import OptimizerConfig, TrainAutoregressive, TrainClip, TrainCodePrior, TrainDenoiser, TrainUnclip, TrainVQVAE
from lodestar.text import OwnTokenizer
from lodestar.training.ema import HalfLife
from lodestar.training.run import DataConfig, Run, TrainConfig

_SIZE = 32
_CONTEXT = 32
"""Tokens of the longest caption, with some to spare."""
_WORDS = OwnTokenizer(size=400)
_DATA = DataConfig(source="shapes", transforms=Transforms(size=(_SIZE, _SIZE)))


_RATES = OptimizerConfig(rate=1e-3, betas=(0.9, 0.99), warmup_images=5_000, fall="cosine")
_LEVELS = LogNormal(mean=1.2, std=1.4)
"""Few and large things are seen through much noise: where they stand is settled in levels that a uniform draw seldom visits."""
_OPTIMIZER = OptimizerConfig(method="muon", rate=1e-3, betas=(0.9, 0.99), warmup_images=10_000, fall="cosine")


def pairs() -> Run:
    """The run before `text`: pictures of two things, until the network tells whose colour and whose place a caption means.

    Among pictures of one to three things, 500,000 were not enough; of two things, 50,000 to 100,000 were.
    """
    run = _denoise(200_000)
    return run.replace(data=run.data.replace(source="shapes@pairs"))


def text() -> Run:
    """The text-to-image model of 32×32 pictures, begun with `pairs`; captions are dropped from one picture in ten."""
    return _denoise(240_000)


def inpaint() -> Run:
    """The model that repaints a part of a picture after a caption: begin it with ``--init shapes``."""
    return _denoise(120_000, Masked())


def _denoise(images: int, *pictures: Condition) -> Run:
    """pictures: the conditions beside the text."""
    blocks = TextTransformerConfig(context=_CONTEXT, width=128, layers=3, heads=4, neighbours=3)
    words = TextCondition(tokenizer=_WORDS, network=blocks)
    denoiser = DenoiserConfig(network=small_unet(), prediction=Velocity(), channels=3, conditions=(words, *pictures))
    model = DiffusionConfig(denoiser=denoiser, schedule=Cosine(), size=(_SIZE, _SIZE), droppable=True)
    return Run(
        task=TrainDenoiser(model=model, objective=Simple(), levels=_LEVELS, conditional=False, label_drop=0.0, caption_drop=0.1),
        data=_DATA,
        train=TrainConfig(
            images=images,
            batch_size=32,
            optimizer=_OPTIMIZER,
            ema=(HalfLife(images=20_000),),
        ),
    )


def up2() -> Run:
    """The upsampler from 32×32 to 64×64, which learns from windows; small pictures have a slight blur, and noise."""
    whole, small = 2 * _SIZE, LowRes(size=(_SIZE, _SIZE), degradation=Blur(), augment=0.2)
    network = UNetConfig(
        width=32,
        multipliers=(1, 2),
        blocks=1,
        attention=(),
        norm_groups=8,
        resample="plain",
        in_channels=6,
        out_channels=3,
    )
    denoiser = DenoiserConfig(network=network, prediction=Velocity(), channels=3, conditions=(small,))
    return Run(
        task=TrainDenoiser(
            model=DiffusionConfig(denoiser=denoiser, schedule=Cosine(), size=(whole, whole)), conditional=False, label_drop=0.0
        ),
        data=DataConfig(source="shapes", transforms=Transforms(size=(_SIZE, _SIZE), crop="random", whole=(whole, whole))),
        train=TrainConfig(
            images=200_000,
            batch_size=32,
            optimizer=OptimizerConfig(method="muon", rate=1e-3, betas=(0.9, 0.99), warmup_images=5_000, fall="cosine"),
            ema=(HalfLife(images=5_000),),
        ),
    )


def clip() -> Run:
    """The CLIP of clean pictures, which measures how well a picture suits a caption."""
    return _clip(noised=False)


def clip_noised() -> Run:
    """The CLIP of noised pictures, told the level, for guidance (GLIDE, section 4.4)."""
    return _clip(noised=True)


def _clip(noised: bool) -> Run:
    width, embed = 128, 128
    image = ViTConfig(
        size=(_SIZE, _SIZE),
        embed=embed,
        patch=4,
        width=width,
        layers=5,
        heads=width // 32,
        activation="gelu",
        time="sinusoid" if noised else "none",
    )
    words = TextTowerConfig(context=_CONTEXT, width=width, layers=3, heads=width // 32, activation="gelu")
    return Run(
        task=TrainClip(model=ClipModelConfig(network=ClipConfig(image=image, text=words), tokenizer=_WORDS, schedule=Cosine())),
        data=_DATA.replace(validation="shapes@test"),
        train=TrainConfig(
            images=400_000,
            batch_size=128,
            optimizer=_OPTIMIZER,
            ema=(HalfLife(images=20_000),),
        ),
    )


def prior() -> Run:
    """The diffusion prior of embeddings by the CLIP in ``runs/shapes.clip``, or in ``task.clip``."""
    network = PriorConfig(context=_CONTEXT, width=128, layers=4, heads=4)
    words = ClipText(length=_CONTEXT, width=network.width)
    model = DiffusionConfig(
        denoiser=DenoiserConfig(network=network, prediction=X0(), channels=Embeddings().embed, conditions=(words,)),
        schedule=Cosine(),
        codec=Embeddings(),
        size=(1, 1),
        droppable=True,
        steps="trailing:20",
        limit=Clamp(limit=10.0),
    )
    return _unclip(model, 2_000_000, 256, caption_drop=0.1)


def prior_ar() -> Run:
    """The autoregressive prior of the same embeddings."""
    network = CodesConfig(context=_CONTEXT, codes=64, buckets=256, width=192, layers=4, heads=6)
    model = AutoregressiveConfig(network=network, text=ClipText(length=_CONTEXT, width=network.width))
    return Run(
        task=TrainAutoregressive(model=model, clip="runs/shapes.clip"),
        data=_DATA,
        train=TrainConfig(images=250_000, batch_size=128, optimizer=_OPTIMIZER, ema=(HalfLife(images=20_000),)),
    )


def decoder() -> Run:
    """The decoder of those embeddings: 32×32 pictures; embeddings are dropped from one picture in ten."""
    told = Embedding(width=128, tokens=4)
    denoiser = DenoiserConfig(network=small_unet(), prediction=Velocity(), channels=3, conditions=(told,))
    model = DiffusionConfig(denoiser=denoiser, schedule=Cosine(), size=(_SIZE, _SIZE), droppable=True)
    return _unclip(model, 330_000, 32)


def _unclip(model: DiffusionConfig, images: int, batch_size: int, caption_drop: float = 0.5) -> Run:
    return Run(
        task=TrainUnclip(model=model, objective=Simple(), clip="runs/shapes.clip", caption_drop=caption_drop),
        data=_DATA,
        train=TrainConfig(images=images, batch_size=batch_size, optimizer=_OPTIMIZER, ema=(HalfLife(images=20_000),)),
    )


def vqvae() -> Run:
    """The VQ-VAE of 32×32 pictures: maps of 8×8 codes."""
    network = PyramidConfig(levels=1, width=64, hidden=32, blocks=2, book=CodebookConfig(codes=256, channels=32))
    return Run(
        task=TrainVQVAE(model=VQVAECodec(network=network, size=(_SIZE, _SIZE))),
        data=_DATA,
        train=TrainConfig(images=200_000, batch_size=32, optimizer=_RATES, ema=(HalfLife(images=10_000),)),
    )


def vqvae_prior() -> Run:
    """A small DALL·E 1: a transformer of these codes after a text, ``--codes runs/shapes.vqvae``."""
    network = TransformerConfig(width=192, layers=6, heads=6)
    words = TextCondition(tokenizer=_WORDS, network=TextTransformerConfig(context=_CONTEXT, width=192, layers=2, heads=6))
    start = vqvae()
    assert isinstance(start.task, TrainVQVAE)
    model = CodePriorConfig(codec=start.task.model, networks=(network,), conditions=(words,))
    return Run(
        task=TrainCodePrior(model=model, conditional=False),
        data=_DATA,
        train=TrainConfig(images=1_000_000, batch_size=64, optimizer=_OPTIMIZER, ema=(HalfLife(images=20_000),)),
    )


RUNS = (pairs, text, inpaint, up2, clip, clip_noised, prior, prior_ar, decoder, vqvae, vqvae_prior)
"""The runs of this file."""
