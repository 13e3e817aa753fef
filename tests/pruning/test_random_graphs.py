"""Networks put together at random: what labels say goes together is right, before any trial."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.design import PruningPlan
from edgeprune.pruning.channels import follow
from edgeprune.pruning.cost import work
from edgeprune.pruning.graph import couplings
from edgeprune.pruning.surgery import check_equal, cut, mask, twin

SHAPE = (3, 4, 4)


class Residual(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner), nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.relu(self.norm(self.one(x))))


class Concatenated(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(width + inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.cat([self.one(x), x], 1))


class Split(nn.Module):
    """Part of the stream goes its own way."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.part = min(inner, width - 1)
        self.one = nn.Conv2d(self.part, self.part, 1)

    def forward(self, x: Tensor) -> Tensor:
        part, rest = x.split([self.part, x.shape[1] - self.part], 1)
        return torch.cat([rest, F.relu(self.one(part))], 1)


class Chunked(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, 2 * inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.one(x).chunk(2, 1)
        return x + self.two(value * torch.sigmoid(gate))


class Grouped(nn.Module):
    """Convolutions in groups with a shuffle between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, 4 * inner, 1)
        self.two = nn.Conv2d(4 * inner, 4 * inner, 3, padding=1, groups=2)
        self.three = nn.Conv2d(4 * inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(F.relu(self.one(x)))
        n, c, h, w = y.shape
        return x + self.three(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Depthwise(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, 2 * inner, 3, padding=1, groups=inner)
        self.three = nn.Conv2d(2 * inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.three(F.relu6(self.two(self.one(x))))


class Normed(nn.Module):
    """Norms over channels, last and second."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.first, self.one = nn.GroupNorm(1, width), nn.Linear(width, inner)
        self.norm, self.two = nn.LayerNorm(inner), nn.Linear(inner, width)
        self.scale = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.norm(F.gelu(self.one(self.first(x).permute(0, 2, 3, 1)))))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class Excited(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.two(F.relu(self.one(x.mean((2, 3))))))
        return x * gate.view(len(x), -1, 1, 1)


class Heads(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.inner, self.qkv, self.out = inner, nn.Linear(width, 9 * inner), nn.Linear(3 * inner, width)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(y).reshape(n, h * w, 3, 3, self.inner).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(n, h * w, -1)
        return x + self.out(y).transpose(1, 2).reshape(n, -1, h, w)


class Padded(nn.Module):
    """A stream that grows by channels of zeros."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.inner, self.one = inner, nn.Conv2d(width + 2 * inner, width + 2 * inner, 1)
        self.two = nn.Conv2d(width + 2 * inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, 0, self.inner, self.inner))
        return self.two(F.relu(x + self.one(x)))


class Reduced(nn.Module):
    """The largest, the spread and the sum over channels."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        gate = torch.sigmoid(y.amax(1, keepdim=True) - y.var(1, correction=0, keepdim=True))
        return x * gate + self.two(y / ((y * y).sum(1, keepdim=True) + 1))


class Around(nn.Module):
    """A filter in a buffer over what is padded by reflection, and neighbourhoods."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.register_buffer("blur", torch.rand(width, 1, 3, 3))
        self.inner, self.one = inner, nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), self.blur, groups=x.shape[1])
        side = 3 if self.inner > 1 else 1
        near = F.unfold(y, side, padding=side // 2).view(n, -1, side * side, h * w)
        return x + self.one((near * near.softmax(2)).mean(2).view(n, -1, h, w))


class Standardised(nn.Module):
    """Kernels whose mean is taken away, behind channels that are not zero where their weights are."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(inner, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.two.weight - self.two.weight.mean((1, 2, 3), keepdim=True)
        return x + F.conv2d(torch.sigmoid(self.one(x)), weight / weight.std((1, 2, 3), keepdim=True), padding=1)


BLOCKS = (
    *(Residual, Concatenated, Split, Chunked, Grouped, Depthwise, Normed, Excited, Heads, Padded),
    *(Reduced, Around, Standardised),
)


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    torch.manual_seed(draw(st.integers(0, 999)))
    width = draw(st.integers(2, 6))
    blocks = draw(st.lists(st.tuples(st.sampled_from(BLOCKS), st.integers(1, 4)), min_size=1, max_size=4))
    layers = [kind(width, inner) for kind, inner in blocks]
    network = nn.Sequential(nn.Conv2d(3, width, 1), *layers, nn.Flatten(), nn.Linear(width * 16, 3))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def holds(network: nn.Module, data: st.DataObject) -> None:
    graph = follow(network, SHAPE)
    order = {name: place for place, name in enumerate(work(network, SHAPE).macs)}
    groups = [each.coupling for each in couplings(network, graph, order) if each.held is None]
    groups = [each for each in groups if each.consumers or each.columns]
    # Single channels, as splits leave them, stay; nearly every network has others.
    assume(groups)
    kept = {}
    for each in groups:
        channels = range(each.group.channels)
        kept[each.group.name] = tuple(sorted(data.draw(st.sets(st.sampled_from(channels), min_size=1))))
    plan = PruningPlan(kept)
    pruned = cut(network, SHAPE, plan, graph)
    check_equal(twin(mask(network, tuple(groups), plan), graph, plan), pruned, SHAPE)


@given(networks(), st.data())
@settings(max_examples=60, deadline=None)
def test_any_plan_for_any_network_computes_what_the_masked_one_does(network: nn.Module, data: st.DataObject) -> None:
    holds(network, data)


@pytest.mark.soak
@given(networks(), st.data())
@settings(max_examples=1000, deadline=None)
def test_a_thousand_networks(network: nn.Module, data: st.DataObject) -> None:
    holds(network, data)


class SplitByNames(Split):
    """The same by keywords, the axis first."""

    def forward(self, x: Tensor) -> Tensor:
        part, rest = x.split(dim=1, split_size=[self.part, x.shape[1] - self.part])
        return torch.cat([rest, F.relu(self.one(part))], 1)


@pytest.mark.parametrize("kind", [Split, SplitByNames])
@pytest.mark.parametrize("inner", [(1, 3), (1, 2), (3, 1), (2, 1, 3)])
def test_any_plan_where_a_single_channel_is_split_off(kind: type[Split], inner: tuple[int, ...]) -> None:
    # A single channel may be what repeats along an axis, so it is not followed; what lies beside it is.
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), *(kind(4, part) for part in inner), nn.Flatten(), nn.Linear(64, 3)
    ).eval()
    graph = follow(network, SHAPE)
    order = {name: place for place, name in enumerate(work(network, SHAPE).macs)}
    groups = [each.coupling for each in couplings(network, graph, order) if each.held is None]
    subsets = [
        [set_ for size in range(1, each.group.channels + 1) for set_ in combinations(range(each.group.channels), size)]
        for each in groups
    ]
    assert max(map(len, subsets)) > 1
    for kept in product(*subsets):
        plan = PruningPlan({each.group.name: channels for each, channels in zip(groups, kept, strict=True)})
        check_equal(twin(mask(network, tuple(groups), plan), graph, plan), cut(network, SHAPE, plan, graph), SHAPE)
