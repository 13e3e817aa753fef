"""Attention and mixing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.families.parts import IMAGE, SIGNAL, STEPS, Call, Plus, conv, family, head, tokens


class Patches(nn.Module):
    """(N, 3, H, W) to tokens (N, T, D), with positions and `extra` learnt tokens in front."""

    def __init__(self, d: int, patch: int = 8, extra: int = 1) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, d, patch, patch)
        self.extra = nn.Parameter(torch.randn(1, extra, d)) if extra else None
        self.positions = nn.Parameter(0.1 * torch.randn(1, (32 // patch) ** 2 + extra, d))

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        if self.extra is not None:
            x = torch.cat((self.extra.expand(x.shape[0], -1, -1), x), dim=1)
        return x + self.positions


def mlp(d: int, m: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, m), nn.GELU(), nn.Dropout(0.1), nn.Linear(m, d))


class FusedAttention(nn.Module):
    """As timm has it: one layer for queries, keys and values, its scale from the shape."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        weight = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        return self.proj((weight.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c))


class SplitAttention(nn.Module):
    """Queries, keys and values of layers of their own, F.scaled_dot_product_attention; `kv` heads of keys."""

    def __init__(self, d: int, heads: int, kv: int | None = None, bias: bool = True) -> None:
        super().__init__()
        self.heads, self.kv, self.size = heads, kv or heads, d // heads
        self.q, self.o = nn.Linear(d, d, bias=bias), nn.Linear(d, d, bias=bias)
        self.k, self.v = (nn.Linear(d, self.kv * self.size, bias=bias) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.size).transpose(1, 2)
        k, v = (f(x).view(b, n, self.kv, self.size).transpose(1, 2) for f in (self.k, self.v))
        if self.kv != self.heads:
            k, v = (each.repeat_interleave(self.heads // self.kv, dim=1) for each in (k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(b, n, -1))


class ModuleAttention(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(d, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x, need_weights=False)[0]


class Encoder(nn.Module):
    def __init__(self, attention: Callable[[int, int], nn.Module], d: int = 40, heads: int = 4, extra: int = 1) -> None:
        super().__init__()
        self.embed, self.first = Patches(d, extra=extra), extra > 0
        blocks = (
            nn.Sequential(Plus(nn.LayerNorm(d), attention(d, heads)), Plus(nn.LayerNorm(d), mlp(d, 3 * d)))
            for _ in range(2)
        )
        self.blocks, self.norm, self.head = nn.Sequential(*blocks), nn.LayerNorm(d), nn.Linear(d, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.embed(x)))
        return self.head(x[:, 0] if self.first else x.mean(dim=1))


@family(IMAGE, "nn.MultiheadAttention, class token")
def vit_mha() -> nn.Module:
    return Encoder(ModuleAttention)


@family(IMAGE, "fused qkv, mean of tokens")
def vit_fused() -> nn.Module:
    return Encoder(FusedAttention, extra=0)


@family(IMAGE, "separate q, k, v, sdpa, class and three register tokens")
def vit_sdpa() -> nn.Module:
    return Encoder(SplitAttention, extra=4)


@family(IMAGE, "shifted windows, table of relative positions, patch merging")
def swin() -> nn.Module:
    class Window(nn.Module):
        def __init__(self, c: int, heads: int, side: int, shift: int) -> None:
            super().__init__()
            self.heads, self.side, self.shift = heads, side, shift
            self.norm1, self.norm2, self.mlp = nn.LayerNorm(c), nn.LayerNorm(c), mlp(c, 2 * c)
            self.qkv, self.proj = nn.Linear(c, 3 * c), nn.Linear(c, c)
            self.table = nn.Parameter(torch.randn((2 * side - 1) ** 2, heads))
            grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
            apart = grid[:, :, None] - grid[:, None, :] + side - 1
            self.register_buffer("index", apart[0] * (2 * side - 1) + apart[1])

        def forward(self, x: Tensor) -> Tensor:
            b, h, w, c = x.shape
            s, y = self.side, torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
            y = y.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
            q, k, v = self.qkv(y).reshape(-1, s * s, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
            bias = self.table[self.index.view(-1)].view(s * s, s * s, -1).permute(2, 0, 1)
            weight = ((q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1) + bias.unsqueeze(0)).softmax(-1)
            y = self.proj((weight @ v).transpose(1, 2).reshape(-1, s * s, c))
            y = y.view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
            x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
            return x + self.mlp(self.norm2(x))

    class Merge(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.norm, self.reduce = nn.LayerNorm(4 * c), nn.Linear(4 * c, 2 * c, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            parts = [x[:, i::2, j::2, :] for j in (0, 1) for i in (0, 1)]
            return self.reduce(self.norm(torch.cat(parts, -1)))

    return nn.Sequential(
        *(nn.Conv2d(3, 24, 4, 4), Call(lambda x: x.permute(0, 2, 3, 1)), Window(24, 3, 4, 0), Window(24, 3, 4, 2)),
        *(Merge(24), Window(48, 6, 4, 0), nn.LayerNorm(48), Call(lambda x: x.mean((1, 2))), nn.Linear(48, 10)),
    )


class Sequence(nn.Module):
    """Values of each step into `d`, an encoder, and the mean over steps."""

    def __init__(self, d: int, encoder: nn.Module) -> None:
        super().__init__()
        self.embed, self.encoder, self.head = nn.Linear(10, d), encoder, nn.Linear(d, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


@family(STEPS, "norm last, ReLU, nn.TransformerEncoder")
def transformer_post_norm() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 72, batch_first=True)
    return Sequence(32, nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


@family(STEPS, "norm first, GELU")
def transformer_pre_norm() -> nn.Module:
    return Sequence(32, nn.TransformerEncoderLayer(32, 4, 96, batch_first=True, norm_first=True, activation="gelu"))


@family(STEPS, "nn.TransformerDecoderLayer on an encoder's memory")
class TransformerDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.encoder = nn.Linear(10, 32), nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.decoder, self.head = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.decoder(x[:, -4:], self.encoder(x)))


@family(IMAGE, "token and channel mixing")
def mlp_mixer() -> nn.Module:
    def turn(x: Tensor) -> Tensor:
        return x.transpose(1, 2)

    def block(t: int, d: int) -> nn.Module:
        across = Plus(nn.LayerNorm(d), Call(turn), mlp(t, 24), Call(turn))
        return nn.Sequential(across, Plus(nn.LayerNorm(d), mlp(d, 112)))

    embed = nn.Sequential(nn.Conv2d(3, 56, 8, 8), nn.Flatten(2), Call(turn))
    pool = Call(lambda x: x.mean(dim=1))
    return nn.Sequential(embed, block(16, 56), block(16, 56), nn.LayerNorm(56), pool, nn.Linear(56, 10))


@family(IMAGE, "spatial gating unit")
def gmlp() -> nn.Module:
    class Gating(nn.Module):
        def __init__(self, d: int, t: int) -> None:
            super().__init__()
            self.up, self.down, self.norm = nn.Linear(d, 2 * d), nn.Linear(d, d), nn.LayerNorm(d)
            self.mix = nn.Conv1d(t, t, 1)

        def forward(self, x: Tensor) -> Tensor:
            u, v = F.gelu(self.up(x)).chunk(2, dim=-1)
            return self.down(u * self.mix(self.norm(v)))

    blocks = (Plus(nn.LayerNorm(40), Gating(40, 16)), Plus(nn.LayerNorm(40), Gating(40, 16)))
    return nn.Sequential(Patches(40, extra=0), *blocks, Call(lambda x: x.mean(1)), nn.Linear(40, 10))


@family(tokens(16, 60), "RMSNorm, SwiGLU, grouped queries, rotary positions; scores of the last token")
def llama_block() -> nn.Module:
    class Attention(SplitAttention):
        def __init__(self, d: int, heads: int) -> None:
            super().__init__(d, heads, 2, bias=False)
            angle = torch.outer(torch.arange(16.0), 10000 ** (-torch.arange(0, self.size, 2) / self.size))
            self.register_buffer("cos", torch.cat((angle, angle), -1).cos(), persistent=False)
            self.register_buffer("sin", torch.cat((angle, angle), -1).sin(), persistent=False)

        def turned(self, x: Tensor) -> Tensor:
            half = x.shape[-1] // 2
            return x * self.cos + torch.cat((-x[..., half:], x[..., :half]), -1) * self.sin

        def forward(self, x: Tensor) -> Tensor:
            b, n, _ = x.shape
            q = self.turned(self.q(x).view(b, n, self.heads, self.size).transpose(1, 2))
            k, v = (f(x).view(b, n, self.kv, self.size).transpose(1, 2) for f in (self.k, self.v))
            k, v = (each.repeat_interleave(self.heads // self.kv, dim=1) for each in (self.turned(k), v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.o(y.transpose(1, 2).reshape(b, n, self.heads * self.size))

    class Gated(nn.Module):
        def __init__(self, d: int, m: int) -> None:
            super().__init__()
            self.gate, self.up, self.down = (nn.Linear(*size, bias=False) for size in ((d, m), (d, m), (m, d)))

        def forward(self, x: Tensor) -> Tensor:
            return self.down(F.silu(self.gate(x)) * self.up(x))

    class Norm(nn.Module):
        def __init__(self, d: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(d) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    blocks = (Plus(Norm(32), Attention(32, 4)), Plus(Norm(32), Gated(32, 88)))
    return nn.Sequential(
        nn.Embedding(60, 32), *blocks, nn.RMSNorm(32), Call(lambda x: x[:, -1]), nn.Linear(32, 60, bias=False)
    )


@family(tokens(12, 50), "embedding and output share their weights")
class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(50, 32), nn.GRU(32, 32, batch_first=True)
        self.mlp, self.out = mlp(32, 64), nn.Linear(32, 50, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.embed(x))[0]
        return self.out(y + self.mlp(y))


@family(SIGNAL, "learnt queries read the input by cross attention")
class Perceiver(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(6, 32))
        self.embed, self.cross = nn.Linear(12, 24), nn.MultiheadAttention(32, 4, kdim=24, vdim=24, batch_first=True)
        self.body = nn.Sequential(Plus(nn.LayerNorm(32), ModuleAttention(32, 4)), Plus(nn.LayerNorm(32), mlp(32, 80)))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.transpose(1, 2))
        latents = self.latents.unsqueeze(0).expand(x.shape[0], -1, -1)
        y = latents + self.cross(latents, x, x, need_weights=False)[0]
        return self.head(self.body(y).mean(1))


@family(IMAGE, "embedded Gaussian, softmax over places")
class NonLocal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tail = nn.Sequential(conv(3, 24, s=2), conv(24, 40, s=2)), nn.Sequential(conv(40, 56), head(56))
        self.theta, self.phi, self.g = (nn.Conv2d(40, 20, 1) for _ in range(3))
        self.out = nn.Conv2d(20, 40, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        theta, phi, g = (f(x).flatten(2) for f in (self.theta, self.phi, self.g))
        weight = torch.softmax(torch.bmm(theta.transpose(1, 2), phi), dim=-1)
        y = torch.bmm(g, weight.transpose(1, 2)).view(x.size(0), -1, x.size(2), x.size(3))
        return self.tail(x + self.out(y))
