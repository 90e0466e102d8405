"""A CLIP: one space for texts and pictures, which are clean, or noised, with the level told, for guidance (GLIDE, section 5)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.codecs import Embeddings
from lodestar.conditions import Ask, ClipText, Embedding
from lodestar.conditions.clip_text import ClipTextEncoder
from lodestar.config import Config, Kinds, Note, Problem, shown
from lodestar.core.level import CLEAN, Level
from lodestar.core.schedule import AnySchedule, Cosine
from lodestar.guidance import LogP, Observed, Sees
from lodestar.models.classifier import network_times
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.look import look
from lodestar.models.save import Model
from lodestar.nets.clip import ClipConfig, unit
from lodestar.nets.int8 import between
from lodestar.text import ClipTokenizer, GlideTokenizer, OwnTokenizer, Tokenizer

TOKENIZERS = Kinds(OwnTokenizer, ClipTokenizer, GlideTokenizer)
"""Tokenizers of texts, which the text tower has a vector for every token of."""
_KEPT = 10_000
"""Maximum number of texts with kept embeddings."""
_Channel = Annotated[float, Field(ge=-1e3, le=1e3)]
_Deviation = Annotated[float, Field(gt=0, le=1e3)]


class ClipModelConfig(Config):
    """A CLIP of pictures and texts."""

    kind: Literal["clip"] = "clip"
    network: ClipConfig = ClipConfig()
    tokenizer: Annotated[Tokenizer, TOKENIZERS] = OwnTokenizer()
    schedule: AnySchedule = Cosine()
    """The noise schedule of training, of a noise-aware CLIP; the same as the guided diffusion model's."""
    mean: tuple[_Channel, ...] = Field(default=(0.5,), min_length=1, max_length=100)
    """Mean of the channels (or of all) of pictures in [0, 1], subtracted before the network."""
    std: tuple[_Deviation, ...] = Field(default=(0.5,), min_length=1, max_length=100)
    """Standard deviation of the channels (or of all), divided by."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        channels, text = self.network.image.in_channels, self.network.text
        if any(len(each) not in (1, channels) for each in (self.mean, self.std)):
            raise Problem(f"mean and std have {len(self.mean)} and {len(self.std)} values for {channels} channels")
        if self.tokenizer.vocabulary > text.vocabulary:
            raise Problem(
                f"tokenizer {self.tokenizer.kind} has {self.tokenizer.vocabulary:,} tokens, and the text tower knows "
                f"{text.vocabulary:,}: these weights are of another tokenizer"
            )
        return self

    @property
    def noised(self) -> bool:
        """True if trained on noised pictures, conditional on their level."""
        return self.network.image.noised

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures in training; a CLIP of clean pictures resizes others."""
        return self.network.image.size

    def told(self, text: ClipText, digest: str) -> ClipText:
        """A condition on texts by this CLIP's tower; digest: SHA-256 of its file."""
        tower, embed = self.network.text, self.network.image.embed
        fields = {"tokenizer": self.tokenizer, "length": tower.context, "states": tower.width, "embed": embed, "space": digest}
        return text.replace(**fields)

    def check_space(self, name: str, digest: str, wanted: str | None) -> None:
        """Raise Problem unless this is the CLIP that is wanted, if any, and of clean pictures. name: of its file."""
        if wanted not in (None, digest):
            raise Problem(f"{name} is not the CLIP that this run needs: its SHA-256 is {digest}, not {wanted}")
        if self.noised:
            raise Problem(f"{name} is a CLIP of noised pictures: embeddings are those of clean ones")

    def build(self) -> PictureClip:
        return PictureClip(self)


class PictureClip(Model):
    """Embeddings of pictures x, float32 [B, C, H, W] in [−1, 1] before the noise, at a level, and of texts."""

    def __init__(self, config: ClipModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network.build()
        self.dtype = torch.float32
        """Precision of the towers; in- and outputs are float32."""
        self._kept: dict[str, Tensor] = {}

    def __repr__(self) -> str:
        image = self.config.network.image
        sees = "of noised pictures" if self.config.noised else "of clean pictures"
        return look(self, (image.in_channels, *image.size), None, self.dtype, sees)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.network.log_scale.device

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        """No classes: what it knows are texts."""
        return (), None

    def look_at(self, x: Tensor, level: Level = CLEAN, maps: bool = True) -> tuple[Tensor, list[Tensor]]:
        """Embedding [B, E] and feature maps, differentiable in x. Other sizes are resized, of clean pictures alone.

        maps: False is faster, and gives none.
        """
        noised, size = self.config.noised, self.config.size
        assert noised or level == CLEAN, "a CLIP of clean pictures knows no noise"
        if tuple(x.shape[2:]) != size:
            assert not noised or level == CLEAN, "noise does not survive resizing"
            x = F.interpolate(x, size, mode="bicubic", antialias=True)
        time = network_times(x, level) if noised else None
        factor, addend = _standard(self.config.mean, self.config.std, x.device)
        embedding, seen = self.network.image(x * factor + addend, time, self.dtype, maps)
        return embedding, seen

    def image_features(self, x: Tensor, level: Level = CLEAN) -> Tensor:
        """Embeddings [B, E] of pictures, of no particular length."""
        return self.look_at(x, level, maps=False)[0]

    def read(self, texts: Sequence[str], cut: bool = False) -> tuple[Tensor, Tensor]:
        """Tokens [B, L] and mask [B, L] of texts, as long as the longest of them.

        Raises Problem for a text that is too long, unless it may be cut.
        """
        tokens, mask = self.config.tokenizer.batch(texts, self.config.network.text.context, cut)
        longest = max(1, int(mask.sum(dim=1).max()))
        return tokens[:, :longest].to(self.device), mask[:, :longest].to(self.device)

    def prompt(self, asked: str, cut: bool = False) -> str:
        """A prompt as it is to be asked for. cut: shorten one that is too long. Raises Problem."""
        tokenizer, context = self.config.tokenizer, self.config.network.text.context
        whole, asked = asked, tokenizer.cut(asked, context) if cut else asked
        tokenizer.check(asked, context, "prompt", "this CLIP's")
        if asked != whole:
            warnings.warn(Note(f"prompt {shown(whole)} is cut to {asked!r}"), stacklevel=2)
        return asked

    def text_features(self, texts: Sequence[str], cut: bool = False) -> Tensor:
        """Embeddings [B, E] of texts, of any length. Raises Problem for a text that is too long, unless it may be cut."""
        features: Tensor = self.network.text(*self.read(texts, cut), self.dtype)
        return features

    def said(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, L, width] of tokens int64 [B, L], negative after each text, and embeddings [B, E] of the texts."""
        mask, tower = tokens >= 0, self.network.text
        filled = tokens.where(mask, self.config.tokenizer.pad)
        states = tower.states(filled, self.dtype)
        return states, tower.embed(states, filled, mask)

    def join(self, model: Model) -> None:
        """Give a model of embeddings, or one that is told some, the text tower. Raises Problem for a model of another CLIP."""
        ours = self.config.network.image.embed
        for module in model.modules():
            config = getattr(module, "config", None)
            if not isinstance(config, ClipText | Embedding | Embeddings):
                continue
            if config.space is not None and self.digest and config.space != self.digest:
                which = f"its SHA-256 is {config.space}, and that of {_called(self)} {self.digest}"
                raise Problem(f"{_called(model)} knows the embeddings of another CLIP: {which}")
            if config.embed != ours:
                raise Problem(f"{_called(model)} knows embeddings of {config.embed} channels, {_called(self)} has {ours}")
            if isinstance(module, ClipTextEncoder):
                module.tower = self.said

    def similarity(self, x: Tensor, texts: Sequence[str], level: Level = CLEAN) -> Tensor:
        """Cosines [B, N] of the embeddings of pictures [B, C, H, W] and N texts."""
        return unit(self.image_features(x, level)) @ unit(self.text_features(texts)).T

    def agree(self, model: DiffusionConfig, sees: Sees) -> None:
        """Raise Problem unless a diffusion model's pictures suit the CLIP; see `suit`."""
        self.suit(model, sees)

    def suit(self, model: DiffusionConfig, sees: Sees) -> None:
        """Raise Problem unless a diffusion model's pictures suit the CLIP; sees "noisy": also its noised pictures."""
        ours, image = self.config, self.config.network.image
        if sees == "noisy" and not ours.noised:
            raise Problem("this CLIP was trained on clean pictures alone, and noised ones are new to it: try sees=clean")
        if sees == "noisy" and ours.schedule != model.schedule:
            raise Problem(f"this CLIP knows another noise schedule ({ours.schedule.kind}) than the model ({model.schedule.kind})")
        if image.in_channels != model.denoiser.channels:
            raise Problem(f"this CLIP sees pictures of {image.in_channels} channels, the model makes {model.denoiser.channels}")
        if sees == "noisy" and image.size != model.size:
            raise Problem(f"this CLIP sees noised pictures of size {image.size}, the model makes {model.size}: try sees=clean")

    def logp(self, asks: Sequence[Ask], sees: Sees, device: torch.device) -> LogP:
        """The factor times the cosine of picture and prompt: of noised pictures, or of clean ones whatever the level.

        Raises Problem for an ask without a prompt, or with one that is too long.
        """
        texts = self._embedded([_prompt(number, ask) for number, ask in enumerate(asks)]).to(device)
        scale = self.network.scale.detach()

        def logp(x: Tensor, level: Level) -> Tensor:
            return scale * (unit(self.image_features(x, level if sees == "noisy" else CLEAN)) * texts).sum(dim=-1)

        return logp

    def _embedded(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [B, E] of length 1; each text is encoded once."""
        if len(self._kept) > _KEPT:
            self._kept = {}
        kept = self._kept  # of this call, whatever other threads begin anew
        new = [text for text in dict.fromkeys(texts) if text not in kept]
        if new:
            with torch.inference_mode(False), torch.no_grad():
                kept |= dict(zip(new, unit(self.text_features(new)), strict=True))
        return torch.stack([kept[text] for text in texts])

    def observe(self, x: Tensor, level: Level) -> Observed:
        """The embedding and the maps of the image tower, differentiable in x."""
        embedding, maps = self.look_at(x, level)
        return Observed(embedding, tuple(maps))

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the towers' blocks in `dtype`, for inference. Norms, embeddings and projections stay in float32.

        A CLIP has no convolutions in 8 bits: int8 is the format of what is between them (`lodestar.nets.int8.between`).
        """
        dtype = between() if dtype == torch.int8 else dtype
        self.dtype = dtype
        self.network.lower(dtype)
        self._kept.clear()
        return self

    def train(self, mode: bool = True) -> Self:
        self._kept.clear()
        return super().train(mode)


@lru_cache(maxsize=16)
def _standard(mean: Sequence[float], std: Sequence[float], device: torch.device) -> tuple[Tensor, Tensor]:
    """Factors and addends [C, 1, 1] from pictures in [−1, 1] to those of mean 0 and deviation 1; once, not in every step."""
    with torch.inference_mode(False):
        middle, spread = (torch.tensor(each, device=device)[:, None, None] for each in (mean, std))
        return 0.5 / spread, (0.5 - middle) / spread


def _called(model: Model) -> str:
    return model.name or f"a {type(model).__name__} built in code"


def _prompt(number: int, ask: Ask) -> str:
    text = ask.given("text")
    if not isinstance(text, str) or not text.strip():
        raise Problem(f"picture {number} has no prompt ({shown(text)}), and a CLIP compares with one: give --prompt, or prompt=")
    return text
