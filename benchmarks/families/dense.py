"""Networks that answer with maps, or with what they were given."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.families.parts import IMAGE, conv, family


class Unet(nn.Module):
    def __init__(self, transposed: bool) -> None:
        super().__init__()

        def two(i: int, o: int) -> nn.Module:
            return nn.Sequential(conv(i, o), conv(o, o))

        def up(i: int, o: int) -> nn.Module:
            if transposed:
                return nn.ConvTranspose2d(i, o, 2, 2)
            return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Conv2d(i, o, 1))

        self.inc, self.down1, self.down2, self.pool = two(3, 16), two(16, 24), two(24, 40), nn.MaxPool2d(2)
        self.up2, self.up1, self.dec2, self.dec1 = up(40, 24), up(24, 16), two(48, 24), two(32, 16)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.inc(x)
        b = self.down1(self.pool(a))
        y = self.down2(self.pool(b))
        y = self.dec2(torch.cat([b, self.up2(y)], dim=1))
        return self.out(self.dec1(torch.cat([a, self.up1(y)], dim=1)))


@family((3, 24, 24), "transposed convolutions")
def unet_transposed() -> nn.Module:
    return Unet(True)


@family((3, 24, 24), "bilinear upsampling")
def unet_upsample() -> nn.Module:
    return Unet(False)


@family(IMAGE, "sum of two score maps, bilinear")
class Fcn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stage1, self.stage2 = nn.Sequential(conv(3, 20, s=2), conv(20, 40, s=2)), conv(40, 64, s=2)
        self.score1, self.score2 = nn.Conv2d(40, 5, 1), nn.Sequential(conv(64, 32, 1), nn.Conv2d(32, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stage1(x)
        z = F.interpolate(self.score2(self.stage2(y)), size=y.shape[-2:], mode="bilinear", align_corners=False)
        return F.interpolate(self.score1(y) + z, size=x.shape[-2:], mode="bilinear", align_corners=False)


@family(IMAGE, "ASPP with image pooling")
class DeepLab(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 24, s=2), conv(24, 48, s=2))
        self.one, self.out = conv(48, 20, 1), nn.Sequential(conv(80, 32, 1), nn.Conv2d(32, 4, 1))
        self.wide = nn.ModuleList(nn.Conv2d(48, 20, 3, padding=d, dilation=d) for d in (2, 4))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(48, 20, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        pooled = self.pool(y).expand(-1, -1, y.shape[2], y.shape[3])
        y = torch.cat([self.one(y), *(F.relu(w(y)) for w in self.wide), pooled], 1)
        return F.interpolate(self.out(y), scale_factor=4, mode="bilinear", align_corners=False)


@family(IMAGE, "transposed convolutions, sigmoid")
def autoencoder_conv() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 20, 4, 2, 1), nn.ReLU(), nn.Conv2d(20, 36, 4, 2, 1), nn.ReLU(), nn.Conv2d(36, 12, 1)),
        *(nn.ConvTranspose2d(12, 36, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(36, 20, 4, 2, 1), nn.BatchNorm2d(20)),
        *(nn.ReLU(), nn.Conv2d(20, 3, 3, padding=1), nn.Sigmoid()),
    )


@family((80,), "dense, batch norm")
def autoencoder_mlp() -> nn.Module:
    widths, layers = (80, 48, 24, 8, 24, 48), list[nn.Module]()
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(48, 80))


@family((1, 28, 28), "mean and log-variance, three outputs")
class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU())
        self.mean, self.log_var = nn.Linear(24 * 49, 12), nn.Linear(24 * 49, 12)
        self.dec = nn.Linear(12, 24 * 49)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.enc(x).flatten(1)
        mean, log_var = self.mean(y), self.log_var(y)
        z = mean if not self.training else mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        return self.up(F.relu(self.dec(z)).view(-1, 24, 7, 7)), mean, log_var


@family((3, 16, 16), "ESPCN, pixel shuffle, tanh")
def pixel_shuffle_sr() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 40, 5, padding=2), nn.Tanh(), nn.Conv2d(40, 24, 3, padding=1), nn.Tanh()),
        *(nn.Conv2d(24, 4 * 24, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(24, 3, 3, padding=1)),
    )
