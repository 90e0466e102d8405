"""The networks of the family, written with `torch.nn` alone, to compare training with: float32, no kernels of their own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lodestar.nets.autoencoder import AutoencoderConfig
from lodestar.nets.gan import ResidualDiscriminatorConfig
from lodestar.nets.pixelcnn import PixelCnnConfig
from lodestar.nets.pixelsnail import HEADS, PixelSnailConfig
from lodestar.nets.pyramid import PyramidConfig
from lodestar.nets.transformer import TransformerConfig
from lodestar.nets.unet import BackboneConfig, UNetConfig


class Block(nn.Module):
    """A residual block, told an embedding or none, that halves or doubles or neither."""

    def __init__(self, channels: int, out: int, config: BackboneConfig, told: bool = False, resample: float = 1.0) -> None:
        super().__init__()
        self.resample = resample
        self.norm1, self.norm2 = nn.GroupNorm(config.norm_groups, channels), nn.GroupNorm(config.norm_groups, out)
        self.conv1, self.conv2 = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.emb = nn.Linear(config.emb_width, 2 * out) if told else None
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = F.silu(self.norm1(x))
        if self.resample != 1:
            h, x = resampled(h, self.resample), resampled(x, self.resample)
        h = self.norm2(self.conv1(h))
        if self.emb is not None:
            scale, shift = self.emb(emb)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        out: Tensor = self.skip(x) + self.conv2(F.silu(h))
        return out


def resampled(x: Tensor, factor: float) -> Tensor:
    """The picture doubled or halved, without parameters."""
    return F.avg_pool2d(x, 2) if factor < 1 else F.interpolate(x, scale_factor=factor)


class Attention(nn.Module):
    """Residual attention of all places."""

    def __init__(self, channels: int, config: BackboneConfig) -> None:
        super().__init__()
        self.heads = config.heads_at(channels)
        self.norm = nn.GroupNorm(config.norm_groups, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).view(len(x), 3, self.heads, -1, x.shape[2] * x.shape[3]).transpose(3, 4)
        found = F.scaled_dot_product_attention(*qkv.unbind(1)).transpose(2, 3)
        return x + self.out(found.reshape(x.shape))  # type: ignore[no-any-return]


class Backbone(nn.Module):
    """Blocks and attention in a row, each told the embedding if it is told any; a number resamples."""

    def __init__(self, *parts: nn.Module | float) -> None:
        super().__init__()
        self.parts = nn.ModuleList(each for each in parts if isinstance(each, nn.Module))
        self.order = [each if isinstance(each, float) else None for each in parts]

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        modules = iter(self.parts)
        for factor in self.order:
            if factor is not None:
                x = resampled(x, factor)
                continue
            module = next(modules)
            x = module(x, emb) if isinstance(module, Block) else module(x)
        return x


def middle(config: BackboneConfig, told: bool = False) -> list[nn.Module]:
    """Block, attention, block at the coarsest resolution."""
    width = config.widths[-1]
    attention = [Attention(width, config)] if config.middle_attention else []
    return [Block(width, width, config, told), *attention, Block(width, width, config, told)]


def down(config: BackboneConfig, told: bool = False) -> list[nn.Module | float]:
    """The way down, of one block a resolution."""
    parts: list[nn.Module | float] = []
    channels = config.widths[0]
    for level, width in enumerate(config.widths):
        parts.append(Block(channels, width, config, told))
        channels = width
        if level + 1 < len(config.widths):
            parts.append(0.5 if config.resample == "plain" else Block(width, width, config, told, resample=0.5))
    return parts


class Autoencoder(nn.Module):
    """An autoencoder of one block a resolution."""

    def __init__(self, config: AutoencoderConfig, moments: int) -> None:
        super().__init__()
        widths, groups = config.widths, config.norm_groups
        up: list[nn.Module | float] = []
        channels = widths[-1]
        for level in reversed(range(len(widths))):
            up += [Block(channels, widths[level], config), Block(widths[level], widths[level], config)]
            channels = widths[level]
            if level:
                up.append(2.0 if config.resample == "plain" else Block(channels, channels, config, resample=2.0))
        self.encoder = nn.Sequential(
            nn.Conv2d(config.in_channels, widths[0], 3, padding=1), Backbone(*down(config), *middle(config)),
            nn.GroupNorm(groups, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], moments * config.latent, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent, widths[-1], 1), Backbone(*middle(config), *up), nn.GroupNorm(groups, widths[0]), nn.SiLU(),
            nn.Conv2d(widths[0], config.in_channels, 3, padding=1),
        )  # fmt: skip
        self.log_scale = nn.Parameter(torch.zeros(()))

    def loss(self, x: Tensor) -> Tensor:
        """−log p(x | z) per value, and the divergence from the prior where there are moments."""
        told, rate = self.encoder(x), torch.zeros(())
        if told.shape[1] == self.decoder[0].in_channels:
            z = told
        else:
            mean, logvar = told.chunk(2, dim=1)
            z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            rate = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1).mean() / x[0].numel()
        error = (self.decoder(z) - x) * torch.exp(-self.log_scale)
        return 0.5 * error.square().mean() + self.log_scale + rate


class Book(nn.Module):
    """A codebook by moving averages, searched by `torch.cdist`."""

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(codes, channels))
        self.register_buffer("size", torch.zeros(codes))
        self.register_buffer("total", torch.randn(codes, channels))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        flat = z.movedim(1, -1).reshape(-1, z.shape[1])
        index = torch.cdist(flat.detach(), self.codes).argmin(dim=1)
        values = self.codes[index]
        with torch.no_grad():
            hot = F.one_hot(index, len(self.codes)).float()
            self.size.mul_(0.99).add_(hot.sum(0), alpha=0.01)
            self.total.mul_(0.99).add_(hot.T @ flat, alpha=0.01)
            whole = self.size.sum()
            self.codes.copy_(self.total / ((self.size + 1e-5) / (whole + len(self.codes) * 1e-5) * whole)[:, None])
        commitment = (flat - values).square().mean()
        return (flat + (values - flat).detach()).view(*z.movedim(1, -1).shape).movedim(-1, 1), commitment


class Residual(nn.Module):
    """A residual block of a VQ-VAE."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, width, 1)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


class Pyramid(nn.Module):
    """A VQ-VAE of one level, or a VQ-VAE-2 of two."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        width, channels, two = config.width, config.book.channels, config.levels == 2

        def residuals() -> list[nn.Module]:
            return [*(Residual(width, config.hidden) for _ in range(config.blocks)), nn.ReLU()]

        self.bottom = nn.Sequential(
            nn.Conv2d(config.in_channels, width // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(width // 2, width, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), *residuals(),
        )  # fmt: skip
        self.before = nn.Conv2d(width + (channels if two else 0), channels, 1)
        self.book = Book(config.book.codes, channels)
        self.decoder = nn.Sequential(
            nn.Conv2d(2 * channels if two else channels, width, 3, padding=1), *residuals(),
            nn.ConvTranspose2d(width, width // 2, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(width // 2, config.in_channels, 4, 2, 1),
        )  # fmt: skip
        if two:
            self.top = nn.Sequential(
                nn.Conv2d(width, width // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(width // 2, width, 3, padding=1), *residuals()
            )
            self.before_top, self.book_top = nn.Conv2d(width, channels, 1), Book(config.book.codes, channels)
            self.down = nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=1), *residuals(), nn.ConvTranspose2d(width, channels, 4, 2, 1)
            )
            self.up = nn.ConvTranspose2d(channels, channels, 4, 2, 1)
        self.two = two

    def loss(self, x: Tensor) -> Tensor:
        """The squared error, and the commitment to the codes."""
        h, above, cost = self.bottom(x), [], torch.zeros(())
        if self.two:
            values, cost = self.book_top(self.before_top(self.top(h)))
            h, above = torch.cat([self.down(values), h], dim=1), [self.up(values)]
        values, more = self.book(self.before(h))
        return (self.decoder(torch.cat([*above, values], dim=1)) - x).square().mean() + 0.25 * (cost + more)


class Causal(nn.Module):
    """A weight-normalised convolution that sees what is above, left or before; see `lodestar.nets.causal`."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int], sees: str) -> None:
        super().__init__()
        height, width = kernel
        self.pad = (width - 1, 0, height - 1, 0) if sees == "left" else (width // 2, width // 2, height - 1, 0)
        self.own = width // 2 if sees == "before" else width
        self.conv = weight_norm(nn.Conv2d(channels, out, kernel))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.conv.parametrizations.weight.original1[:, :, -1, self.own :] = 0
        return self.conv(F.pad(x, self.pad))  # type: ignore[no-any-return]


def point(channels: int, out: int) -> nn.Module:
    """A weight-normalised 1×1 convolution."""
    return weight_norm(nn.Conv2d(channels, out, 1))


def shifted(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """What is above and what is left of each place."""
    return F.pad(rows, (0, 0, 1, 0))[:, :, :-1], F.pad(columns, (1, 0))[..., :-1]


class PixelCnnLayer(nn.Module):
    """A layer of both stacks."""

    def __init__(self, config: PixelCnnConfig) -> None:
        super().__init__()
        width, half = config.width, (config.kernel + 1) // 2
        self.up = Causal(width, 2 * width, (half, config.kernel), "up")
        self.left = Causal(width, 2 * width, (1, half), "left")
        self.link, self.out, self.dropout = point(2 * width, 2 * width), point(width, width), nn.Dropout(config.dropout)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        v = self.up(v)
        a, b = (self.left(h) + self.link(v)).chunk(2, dim=1)
        h = h + self.out(self.dropout(a.tanh() * b.sigmoid()))
        a, b = v.chunk(2, dim=1)
        return a.tanh() * b.sigmoid(), h


class PixelCnn(nn.Module):
    """A gated PixelCNN."""

    def __init__(self, config: PixelCnnConfig) -> None:
        super().__init__()
        self.codes, half = config.codes, config.kernel // 2
        self.rows = Causal(config.codes, config.width, (half, config.kernel), "up")
        self.columns = Causal(config.codes, config.width, (1, half), "left")
        self.layers = nn.ModuleList(PixelCnnLayer(config) for _ in range(config.layers))
        self.head = nn.Sequential(nn.ReLU(), point(config.width, config.hidden), nn.ReLU(), point(config.hidden, config.codes))

    def loss(self, codes: Tensor) -> Tensor:
        """The cross-entropy of codes int64 [B, H, W]."""
        x = F.one_hot(codes, self.codes).movedim(-1, 1).float()
        v, h = shifted(self.rows(x), self.columns(x))
        for layer in self.layers:
            v, h = layer(v, h)
        return F.cross_entropy(self.head(h), codes)


class Gated(nn.Module):
    """A gated residual block."""

    def __init__(self, channels: int, hidden: int, dropout: float, kernel: int = 0, beside: int = 0) -> None:
        super().__init__()
        pair = ((channels, hidden), (hidden, 2 * channels))
        self.conv1, self.conv2 = (Causal(*each, (kernel, kernel), "before") if kernel else point(*each) for each in pair)
        self.beside = point(beside, hidden) if beside else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        h = self.conv1(F.elu(x))
        if self.beside is not None and beside is not None:
            h = h + self.beside(F.elu(beside))
        return x + F.glu(self.conv2(self.dropout(F.elu(h))), dim=1)


class SnailBlock(nn.Module):
    """Gated blocks, then attention to the places before."""

    def __init__(self, config: PixelSnailConfig) -> None:
        super().__init__()
        width, drop = config.width, config.dropout
        self.blocks = nn.Sequential(*(Gated(width, config.hidden, drop, config.kernel) for _ in range(config.depth)))
        self.of_key, self.of_query = Gated(2 * width + 2, width, drop), Gated(width + 2, width, drop)
        self.query = weight_norm(nn.Linear(width + 2, width // 2))
        self.key, self.value = (weight_norm(nn.Linear(2 * width + 2, width // 2)) for _ in range(2))
        self.out = Gated(width, width, drop, beside=width // 2)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        h = self.blocks(x)
        seen = self.of_key(torch.cat([x, h, places], dim=1)).flatten(2).mT
        asked = self.of_query(torch.cat([h, places], dim=1)).flatten(2).mT
        q, k, v = (
            each.unflatten(2, (HEADS, -1)).transpose(1, 2) for each in (self.query(asked), self.key(seen), self.value(seen))
        )
        count = q.shape[2]
        earlier = torch.ones(count, count, dtype=torch.bool).tril(-1)
        earlier[0, 0] = True  # the first place, which has none before, gathers itself, and is left out below
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=earlier) * (torch.arange(count) > 0)[:, None]
        return self.out(h, found.transpose(1, 2).flatten(2).mT.unflatten(2, x.shape[2:]))  # type: ignore[no-any-return]


class PixelSnail(nn.Module):
    """A PixelSNAIL with attention."""

    def __init__(self, config: PixelSnailConfig) -> None:
        super().__init__()
        self.codes, kernel = config.codes, config.kernel
        self.rows = Causal(config.codes, config.width, (kernel // 2, kernel), "up")
        self.columns = Causal(config.codes, config.width, ((kernel + 1) // 2, kernel // 2), "left")
        self.blocks = nn.ModuleList(SnailBlock(config) for _ in range(config.blocks))
        self.head = nn.Sequential(nn.ELU(), point(config.width, config.codes))
        sides = (torch.arange(side) / side - 0.5 for side in config.size)
        self.places = torch.stack(torch.meshgrid(*sides, indexing="ij"))[None]

    def loss(self, codes: Tensor) -> Tensor:
        """The cross-entropy of codes int64 [B, H, W]."""
        x = F.one_hot(codes, self.codes).movedim(-1, 1).float()
        h = sum(shifted(self.rows(x), self.columns(x)))
        for block in self.blocks:
            h = block(h, self.places.expand(len(codes), -1, -1, -1))
        return F.cross_entropy(self.head(h), codes)


class Transformer(nn.Module):
    """A decoder-only transformer."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.code, self.start = nn.Embedding(config.codes, width), nn.Parameter(torch.zeros(width))
        self.row, self.column = (nn.Parameter(torch.zeros(side, width)) for side in config.size)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(width, config.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, config.codes)
        self.mask = nn.Transformer.generate_square_subsequent_mask(config.size[0] * config.size[1])

    def loss(self, codes: Tensor) -> Tensor:
        """The cross-entropy of codes int64 [B, H, W]."""
        before = self.code(codes.flatten(1))[:, :-1]
        x = torch.cat([self.start.expand(len(codes), 1, -1), before], dim=1) + (self.row[:, None] + self.column).flatten(0, 1)
        h = self.layers(self.dropout(x), mask=self.mask, is_causal=True)
        return F.cross_entropy(self.out(self.norm(h)).mT, codes.flatten(1))


class Timed(nn.Module):
    """An embedding of times: sinusoids, then two affine maps."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.width = config.width
        self.maps = nn.Sequential(
            nn.Linear(config.width, config.emb_width), nn.SiLU(), nn.Linear(config.emb_width, config.emb_width)
        )

    def forward(self, time: Tensor) -> Tensor:
        angles = time[:, None] * 1e-4 ** (torch.arange(self.width // 2) / (self.width // 2))
        return self.maps(torch.cat([angles.cos(), angles.sin()], dim=1))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """A U-Net of one block a resolution with plain resampling, told time, class and a latent."""

    def __init__(self, config: UNetConfig, classes: int, latent: int) -> None:
        super().__init__()
        widths, emb = config.widths, config.emb_width
        self.time, self.table, self.latent = Timed(config), nn.Embedding(classes, emb), latent
        self.told = nn.Sequential(nn.Linear(latent, emb), nn.SiLU(), nn.Linear(emb, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.stem = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        attended = [2**level in config.attention for level in range(len(widths))]
        handed, channels, self.down = [widths[0]], widths[0], nn.ModuleList()
        for level, width in enumerate(widths):
            more = [Attention(width, config)] if attended[level] else []
            self.down.append(Backbone(Block(channels, width, config, told=True), *more))
            channels = width
            handed += [channels] * (1 if level + 1 == len(widths) else 2)
        self.middle, self.up = Backbone(*middle(config, told=True)), nn.ModuleList()
        for level in reversed(range(len(widths))):
            for _ in range(2):
                more = [Attention(widths[level], config)] if attended[level] else []
                self.up.append(Backbone(Block(channels + handed.pop(), widths[level], config, told=True), *more))
                channels = widths[level]
        self.norm, self.head = nn.GroupNorm(config.norm_groups, widths[0]), nn.Conv2d(widths[0], config.in_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        emb = F.silu(self.time(time) + self.table(label) + self.told(torch.randn(len(x), self.latent)))
        h = self.stem(x)
        handed = [h]
        for level, stage in enumerate(self.down):
            if level:
                h = F.avg_pool2d(h, 2)
                handed.append(h)
            handed.append(h := stage(h, emb))
        h = self.middle(h, emb)
        for number, stage in enumerate(self.up):
            h = F.interpolate(h, scale_factor=2) if number and number % 2 == 0 else h
            h = stage(torch.cat([h, handed.pop()], dim=1), emb)
        return self.head(F.silu(self.norm(h)))  # type: ignore[no-any-return]


class Critic(nn.Module):
    """A discriminator of one block a resolution, told time and class."""

    def __init__(self, config: ResidualDiscriminatorConfig, classes: int) -> None:
        super().__init__()
        widths = config.widths
        self.time, self.stem = Timed(config), nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.body = Backbone(*down(config, told=True), *middle(config, told=True))
        self.norm, self.logit = nn.GroupNorm(config.norm_groups, widths[-1]), nn.Linear(widths[-1], 1)
        self.table = nn.Embedding(classes, widths[-1])

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        h = self.body(self.stem(x), F.silu(self.time(time)))
        features = F.silu(self.norm(h)).mean(dim=(2, 3))
        return self.logit(features)[:, 0] + (self.table(label) * features).sum(1)  # type: ignore[no-any-return]
