"""What labels say of networks as people write them: which channels hang together, and what goes with them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import SurgeryError
from edgeprune.core.inputs import InputSpec
from edgeprune.pruning import rankings
from edgeprune.pruning.attention import narrow_attention
from edgeprune.pruning.axes.calls import Corrected
from edgeprune.pruning.axes.follow import label
from edgeprune.pruning.calibration import fisher_matrices, gram_matrices
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import check_equal, cut, mask, prune, twin


def found(network: nn.Module, shape: tuple[int, ...]) -> Structure:
    return discover(network.eval(), shape, runtime="onnxruntime", prune_inputs=False, multiple_of=1)


def odd_plan(structure: Structure) -> PruningPlan:
    """Every group without its first channel and some others."""
    return PruningPlan({g.name: tuple(c for c in range(g.channels) if c % 3) or (0,) for g in structure.groups})


def proven(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """The groups of a network, once a pruned copy was seen to compute what the masked one does."""
    structure = found(network, shape)
    plan = odd_plan(structure)
    pruned = cut(network, shape, plan, structure.graph)
    check_equal(twin(mask(network, structure.couplings, plan), structure.graph, plan), pruned, shape)
    # A network that is made anew takes the weights of the pruned one.
    again = cut(deepcopy(network), shape, plan)
    again.load_state_dict(pruned.state_dict())
    check_equal(again, pruned, shape)
    return {group.name: group.channels for group in structure.groups}


class Attention(nn.Module):
    """Four heads, written as people write them; `how` is one of `fused`, `apart`, `sdpa`, `einsum`, `shape`."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.heads = how, 4
        self.embed, self.qkv, self.out = nn.Linear(12, 32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)
        if how in ("fused", "shape"):
            del self.q, self.k, self.v
        else:
            del self.qkv

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, c = x.shape
        y = self.norm(x)
        if self.how in ("fused", "shape"):
            width = c // self.heads if self.how == "shape" else 8
            q, k, v = self.qkv(y).reshape(n, t, 3, self.heads, width).permute(2, 0, 3, 1, 4)
            y = ((q @ k.transpose(-2, -1)) * width**-0.5).softmax(-1) @ v
        elif self.how == "einsum":
            q, k, v = (layer(y).view(n, t, 4, 8) for layer in (self.q, self.k, self.v))
            weights = torch.einsum("nthd,nshd->nhts", q, k).div(8**0.5).softmax(-1)
            y = torch.einsum("nhts,nshd->nthd", weights, v).transpose(1, 2)
        else:
            q, k, v = (layer(y).unflatten(-1, (4, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, c if self.how == "shape" else 32))
        return self.head(x.mean(1))


@pytest.mark.parametrize("how", ["fused", "shape", "apart", "sdpa", "einsum"])
def test_heads_go_as_wholes_and_the_stream_by_itself(how: str) -> None:
    assert proven(Attention(how), (6, 12)) == {"embed": 32, "qkv" if how in ("fused", "shape") else "q": 4}


def test_a_head_says_how_many_rows_go_with_it() -> None:
    for how, name, rows in (("fused", "qkv", 24), ("apart", "q", 8)):
        groups = discover(Attention(how), (6, 12), runtime="onnxruntime", prune_inputs=False).groups
        assert {group.name: group.rows_per_channel for group in groups} == {"embed": 1, name: rows}


class OneHead(nn.Module):
    """As a non-local block has it: queries and keys are read by nothing but each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 16, 1), nn.Linear(16, 5)
        self.q, self.k, self.v = (nn.Conv2d(16, 8, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (layer(x).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 8, 4, 4)
        return self.head((x + self.out(y)).mean((2, 3)))


def test_a_single_head_loses_its_width_and_keeps_its_scale() -> None:
    assert proven(OneHead(), (3, 6, 6)) == {"stem": 16, "q": 8, "v": 8}


class Windows(nn.Module):
    """Attention in windows that are shifted, with a table of relative positions."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Conv2d(3, 16, 2, 2), nn.Linear(16, 48), nn.Linear(16, 16)
        self.table, self.head = nn.Parameter(torch.randn(9, 2)), nn.Linear(16, 5)
        places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None]) + 1
        self.register_buffer("index", apart[0] * 3 + apart[1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        y = torch.roll(x, (-1, -1), (1, 2)).view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
        q, k, v = self.qkv(y.reshape(-1, 4, c)).reshape(-1, 4, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) + self.table[self.index].permute(2, 0, 1)
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, c))
        y = y.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return self.head((x + torch.roll(y, (1, 1), (1, 2))).mean((1, 2)))


def test_tables_of_positions_go_with_their_heads() -> None:
    assert proven(Windows(), (3, 8, 8)) == {"embed": 16, "qkv": 2}


@pytest.mark.parametrize("first", [True, False])
def test_torchs_own_transformer_layers(first: bool) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(12, 16), nn.Linear(16, 5)
            self.encoder = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=first)
            self.decoder = nn.TransformerDecoderLayer(16, 2, 24, batch_first=True, norm_first=first)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            return self.head(self.decoder(x, self.encoder(x), tgt_mask=causal).mean(1))

    assert proven(Both(), (6, 12)) == {
        "embed": 16, "encoder.self_attn": 4, "encoder.linear1": 24,
        "decoder.self_attn": 2, "decoder.multihead_attn": 2, "decoder.linear1": 24,
    }  # fmt: skip


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("other", [None, 6])
def test_attention_that_lost_nothing_is_torchs(batch_first: bool, bias: bool, other: int | None) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, bias=bias, kdim=other, vdim=other, batch_first=batch_first).eval()
    narrow = deepcopy(layer)
    narrow_attention(narrow)
    q, k = torch.randn(3, 5, 8), torch.randn(3, 7, other or 8)
    if not batch_first:
        q, k = q.transpose(0, 1), k.transpose(0, 1)
    hidden = torch.zeros(3, 7, dtype=torch.bool)
    hidden[:, 5:] = True
    for more in (
        {}, {"key_padding_mask": hidden}, {"attn_mask": torch.randn(5, 7)}, {"average_attn_weights": False},
        {"attn_mask": torch.ones(5, 7, dtype=torch.bool).triu(3), "key_padding_mask": hidden, "need_weights": False},
        {"attn_mask": torch.randn(6, 5, 7)},
    ):  # fmt: skip
        for one, two in zip(layer(q, k, k, **more), narrow(q, k, k, **more), strict=True):
            torch.testing.assert_close(one, two)
    single = layer(q[:, 0], k[:, 0], k[:, 0]) if not batch_first else layer(q[0], k[0], k[0])
    again = narrow(q[:, 0], k[:, 0], k[:, 0]) if not batch_first else narrow(q[0], k[0], k[0])
    for one, two in zip(single, again, strict=True):
        torch.testing.assert_close(one, two)


def test_widths_are_in_steps_of_a_block_of_rows() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend, self.rnn = nn.MultiheadAttention(128, 16, batch_first=True), nn.GRU(128, 32, batch_first=True)
            self.head = nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.attend(x, x, x)[0])[0][:, -1])

    groups = discover(Mixed().eval(), (4, 128), runtime="onnxruntime").groups
    # Blocks of eight: a head is eight rows of queries, a unit of a GRU three rows of gates.
    assert {group.name: group.multiple_of for group in groups if group.name in ("attend", "rnn")} == {
        "attend": 1,
        "rnn": 2,
    }


def test_attention_with_keys_of_its_own_says_so() -> None:
    with pytest.raises(SurgeryError, match="add_bias_kv"):
        narrow_attention(nn.MultiheadAttention(8, 2, add_bias_kv=True))


class Body(nn.Module):
    """A convolution, something done to its sixteen channels, and what reads them."""

    def __init__(self, do: Callable[[Tensor], Tensor], reads: int = 16) -> None:
        super().__init__()
        self.conv, self.next, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(reads, 12, 1), nn.Linear(12, 5)
        self.do = do

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.next(self.do(self.conv(x).relu())).mean((2, 3)))


NUMBERS: dict[str, tuple[Callable[[Tensor], Tensor], int, dict[str, int]]] = {
    "view": (lambda x: x.view(-1, 16, 36).reshape(-1, 16, 6, 6), 16, {"conv": 16}),
    "reshape": (lambda x: torch.reshape(x, (-1, 2, 8, 6, 6)).mean(1), 8, {"conv": 8}),
    "unflatten": (lambda x: x.unflatten(1, (2, 8)).flatten(1, 2), 16, {"conv": 8}),
    "expand": (lambda x: x * torch.ones(1, 1, 1, 1).expand(1, 16, 1, 1), 16, {"conv": 16}),
    "split": (lambda x: torch.cat(x.split([5, 11], 1)[::-1], 1), 16, {"conv": 16}),
    "split by its width": (lambda x: torch.cat(x.split([5, x.shape[1] - 5], 1)[::-1], 1), 16, {"conv": 16}),
    "slice by its width": (lambda x: x[:, x.shape[1] // 4 :], 12, {"conv": 12}),
    "narrow by its width": (lambda x: x.narrow(1, x.shape[1] // 4, x.shape[1] // 2), 8, {"conv": 8}),
    "pad by its width": (lambda x: F.pad(x, (0, 0, 0, 0, 0, x.shape[1] // 2)), 24, {"conv": 16}),
    "split in parts": (lambda x: x.split(4, 1)[1], 4, {"conv": 4}),
    "narrow": (lambda x: x.narrow(1, 3, 9), 9, {"conv": 9}),
    "slice": (lambda x: torch.cat([x[:, :6] * 2, x[:, 6:]], 1), 16, {"conv": 16}),
    "slice from behind": (lambda x: x[:, -7:], 7, {"conv": 7}),
    "ellipsis": (lambda x: x.movedim(1, -1)[..., 2:12].movedim(-1, 1), 10, {"conv": 10}),
    "pad": (lambda x: F.pad(x, (0, 0, 0, 0, 2, 3)), 21, {"conv": 16}),
    "zeros": (lambda x: x + torch.zeros(1, 16, 1, 1), 16, {"conv": 16}),
    "new zeros": (lambda x: torch.cat([x, x.new_zeros(len(x), 16, 6, 6) + x], 1), 32, {"conv": 16}),
    "picked": (lambda x: x[:, 4:] * x[:, 3].unsqueeze(1), 12, {"conv": 12}),
    "picked behind": (lambda x: x[:, :4] * x[:, 9].unsqueeze(1), 4, {"conv": 4}),
    "scale": (lambda x: x * x.shape[1] ** -0.5, 16, {"conv": 16}),
    "divided": (lambda x: x / x.shape[1], 16, {"conv": 16}),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_in_the_users_forward_are_put_right(kind: str) -> None:
    do, reads, groups = NUMBERS[kind]
    assert proven(Body(do, reads), (3, 8, 8)) == groups | {"next": 12}


class Dropped(nn.Module):
    """Blocks that are left out, and noise, in training alone: calls with numbers that evaluation never makes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 5)
        self.blocks = nn.ModuleList(Attention16() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        if self.training:
            x = (x * 1.5 + 0 * x.new_empty(len(x), 1, 1).bernoulli_(0.5).div_(0.5)).view(len(x), -1, x.shape[2])
        for number, block in enumerate(self.blocks):
            if not (self.training and number == 0):
                x = block(x)
        return self.head(x.mean(1))


class Attention16(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-2, -1)) * (c // 2) ** -0.5).softmax(-1) @ v
        return x + self.out(y.transpose(1, 2).reshape(n, t, c))


def test_what_training_alone_does_disturbs_no_corrections() -> None:
    network = Dropped().eval()
    plan = PruningPlan({"embed": tuple(range(0, 16, 2))})
    pruned = cut(network, (4, 6), plan)
    assert isinstance(pruned, Corrected)
    masked = mask(network, found(network, (4, 6)).couplings, plan)
    x = torch.randn(5, 4, 6)
    for one in (False, True):
        torch.testing.assert_close(pruned.train(one)(x), masked.train(one)(x))


def test_a_forward_without_numbers_is_left_alone() -> None:
    network = Body(lambda x: x.reshape(len(x), -1, 36).unflatten(-1, (6, 6)))
    assert type(cut(network.eval(), (3, 8, 8), PruningPlan({"conv": (0, 1)}))) is Body
    numbered = cut(Body(NUMBERS["view"][0]).eval(), (3, 8, 8), PruningPlan({"conv": (0, 1)}))
    assert isinstance(numbered, Body)
    assert isinstance(numbered, Corrected)
    # Batches of any size, copies, and training.
    assert deepcopy(numbered).train()(torch.zeros(7, 3, 8, 8)).shape == (7, 5)


class Cells(nn.Module):
    """A cell in a loop, whose state begins with zeros of a size that is written down."""

    def __init__(self, cell: nn.RNNCellBase, new: bool = False) -> None:
        super().__init__()
        self.new = new
        self.cell, self.head = cell, nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        begin = x.new_zeros if self.new else torch.zeros
        state: Tensor | tuple[Tensor, Tensor] = begin(len(x), 16)
        if isinstance(self.cell, nn.LSTMCell):
            state = (begin(len(x), 16), begin(len(x), 16))
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.head(state if isinstance(state, Tensor) else state[0])


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_in_loops(kind: type[nn.RNNCellBase]) -> None:
    for new in (False, True):
        assert proven(Cells(kind(6, 16), new), (4, 6)) == {"cell": 16}


def wrapped(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))


@pytest.mark.parametrize(
    ("network", "groups"),
    [
        (wrapped(nn.Conv2d(3, 24, 3), nn.GroupNorm(4, 24), nn.ReLU()), {"0": 4}),
        (wrapped(nn.Conv2d(3, 24, 3), nn.GroupNorm(1, 24)), {"0": 24}),
        (wrapped(nn.Conv2d(3, 24, 3), nn.InstanceNorm2d(24, affine=True)), {"0": 24}),
        (wrapped(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3, groups=4)), {"0": 4, "1": 6}),
        (wrapped(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 24, 3, groups=8)), {"0": 8}),
        (wrapped(nn.Conv2d(3, 16, 3), nn.ConvTranspose2d(16, 24, 2, 2), nn.PReLU(24)), {"0": 16, "1": 24}),
        (wrapped(nn.Conv2d(3, 96, 3), nn.PixelShuffle(2)), {"0": 24}),
        (wrapped(nn.Conv2d(3, 48, 3), nn.GLU(1)), {"0": 24}),
        (wrapped(nn.Conv2d(3, 24, 3), nn.Unflatten(1, (3, 8)), nn.Flatten(1, 2)), {"0": 8}),
    ],
)  # fmt: skip
def test_what_goes_together(network: nn.Module, groups: dict[str, int]) -> None:
    torch.manual_seed(0)
    assert proven(network, (3, 8, 8)) == groups


@pytest.mark.parametrize(
    ("do", "why"),
    [
        (lambda x: x.softmax(1), "a softmax over channels needs all of them"),
        (lambda x: x.cumsum(1), "a running sum over channels needs all of them"),
        (lambda x: x + x.argmax(1, keepdim=True), "the place of a channel among all of them is asked for"),
        (lambda x: x + torch.fft.fft(x, dim=1).real, "the operation fft_r2c runs along channels and needs all of them"),
        (lambda x: x + x.sort(1).values, "the operation sort runs along channels and needs all of them"),
        (lambda x: x.gather(1, torch.zeros(len(x), 16, 6, 6, dtype=torch.int64)), "the operation gather runs along"),
        (lambda x: x.roll(1, 1), "it is rolled"),
        (lambda x: F.local_response_norm(x, 3), "a pool runs over it"),
        (lambda x: x * x.diagonal(dim1=1, dim2=2).mean((1, 2))[:, None, None, None], "it is picked by its number"),
        (lambda x: x + x.sort(stable=True, dim=1).values.sort(2).values, "the operation sort runs along"),
        (lambda x: x * torch.cdist(x.flatten(2), x.flatten(2)).mean((1, 2))[:, None, None, None], "is not followed"),
    ],
)
def test_what_needs_all_channels_is_named_and_the_rest_is_pruned(do: Callable[[Tensor], Tensor], why: str) -> None:
    structure = found(Body(do), (3, 8, 8))
    assert [group.name for group in structure.groups] == ["next"]
    assert why in structure.frozen["conv"]


@pytest.mark.parametrize(
    "do",
    [
        lambda x: x * x.mean(1, keepdim=True),
        lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6),
        lambda x: x.mean((2, 3), keepdim=True) + x,
        lambda x: x - x.amax(1, keepdim=True),
        lambda x: x + x.min(1, keepdim=True).values,
        lambda x: x * (x.sum(1, keepdim=True) - x.logsumexp(1, keepdim=True)),
        lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-6),
        lambda x: x / torch.sqrt(x.var(1, unbiased=False, keepdim=True) + 1e-6),
        lambda x: x * torch.var_mean(x, 1, keepdim=True)[0],
        lambda x: F.normalize(x + 1, dim=1),
        lambda x: x / (x.norm(p=1, dim=1, keepdim=True) + 1),
        lambda x: x * x.mean() + x.max() + x.std(),
        lambda x: x + x.sum(1, keepdim=True).expand(-1, 16, -1, -1),
    ],
)
def test_what_is_reduced_over_channels_is_what_is_left(do: Callable[[Tensor], Tensor]) -> None:
    assert proven(Body(do), (3, 8, 8)) == {"conv": 16, "next": 12}


def test_a_floor_is_raised_where_the_network_works_out_nothing() -> None:
    groups = {group.name: group for group in found(Attention("shape"), (6, 12)).groups}
    # Three channels over four heads are none: 0 ** -0.5.
    assert groups["embed"].floor == 6


def test_a_pool_of_images_that_lie_channels_last() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.contiguous(memory_format=torch.channels_last)

    assert proven(wrapped(nn.Conv2d(3, 24, 3), Last()), (3, 8, 8)) == {"0": 24}


def test_bags_of_words() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(20, 16), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.bag(x))

    shape = (InputSpec("words", (6,), "int64", 20),)
    structure = discover(Bag().eval(), shape, runtime="onnxruntime")
    assert [(group.name, group.channels) for group in structure.groups] == [("bag", 16)]


def test_labels_are_those_of_the_network_whatever_the_batch() -> None:
    network = Cells(nn.LSTMCell(6, 16)).eval()
    two, five = (label(network, torch.randn(count, 4, 6)) for count in (2, 5))
    assert all((two.axes[side] == five.axes[side]).all() for side in two.axes)
    assert two.held.keys() & set(two.axes[next(iter(two.axes))].tolist()) == set()


def test_readers_of_attention_are_not_listened_to_but_the_others_are_refitted() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    network, shape = nn.Sequential(nn.Linear(12, 16), layer, nn.Flatten(), nn.Linear(96, 5)).eval(), (6, 12)
    structure = found(network, shape)
    x = torch.randn(60, *shape)
    layers = sorted({reader.layer for coupling in structure.couplings for reader in coupling.consumers})
    # What attention reads and makes is multiplied inside of it: no layer runs that could be heard.
    assert layers == ["1.linear1", "1.linear2", "3"]
    grams = gram_matrices(network, layers, [x], len(x))
    criterion = Ranked(network, structure, rankings.reconstruction(network, structure, grams), grams)
    plan = criterion.plan({group.name: group.channels // 2 for group in structure.groups})
    prune(criterion, structure, plan, check=True)


@pytest.mark.parametrize("kind", ["l1", "l2", "taylor", "activation", "reconstruction"])
def test_every_criterion_ranks_what_no_layer_reads(kind: str) -> None:
    """Units that are read by bare weights alone: nothing is refitted, and all the same pruned right."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.GRU(3, 8, batch_first=True), nn.Parameter(torch.randn(8, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0][:, -1] @ self.out

    torch.manual_seed(0)
    network, shape = Bare().eval(), (5, 3)
    structure = found(network, shape)
    x, y = torch.randn(30, *shape), torch.randint(0, 4, (30,))
    layers: list[str] = []
    grams = gram_matrices(network, layers, [x], len(x))
    ranking = {
        "l1": lambda: rankings.l1(network, structure),
        "l2": lambda: rankings.l2(network, structure),
        "taylor": lambda: rankings.taylor(network, structure, [(x, y)]),
        "activation": lambda: rankings.activation(network, structure, [x]),
        "reconstruction": lambda: rankings.reconstruction(
            network, structure, grams, fisher_matrices(network, layers, [x], 0)
        ),
    }[kind]()
    criterion = Ranked(network, structure, ranking, grams if kind == "reconstruction" else None)
    prune(criterion, structure, criterion.plan({"rnn": 3}), check=True)


def test_buffers_are_narrowed_with_what_they_filter_and_are_no_channels_of_their_own() -> None:
    class Blurred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("waves", torch.randn(9, 3, 3, 3))
            self.register_buffer("blur", torch.full((16, 1, 3, 3), 1 / 9))
            self.register_buffer("mix", torch.randn(6, 16))
            self.conv, self.next, self.head = nn.Conv2d(9, 16, 3), nn.Conv2d(6, 12, 1), nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(F.conv2d(x, self.waves).abs()).relu()
            x = F.conv2d(x, self.blur, padding=1, groups=16)  # A number that is right for all channels alone.
            x = F.conv2d(x, self.blur[: x.shape[1]], None, 1, 1, 1, x.shape[1])
            return self.head(self.next((x.movedim(1, -1) @ self.mix.T).movedim(-1, 1)).mean((2, 3)))

    torch.manual_seed(0)
    assert proven(Blurred(), (3, 8, 8)) == {"conv": 16, "next": 12}
    structure = found(Blurred(), (3, 8, 8))
    assert structure.frozen["waves"] == "waves is a buffer, whose values are given and not trained"
    # Rows of layers alone are neurons: sixteen and twelve channels, and the inputs.
    assert structure.neurons(Blurred()) == 16 + 12 + structure.inputs
    assert set(rankings.l1(Blurred(), structure).order) == {"conv", "next"}


class Standardised(nn.Conv2d):
    """With weights of mean 0 and spread 1 for each filter (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def test_weights_that_are_standardised() -> None:
    layers = (Standardised(3, 16, 3), nn.GroupNorm(4, 16), nn.Sigmoid(), Standardised(16, 24, 3))
    assert proven(wrapped(*layers), (3, 8, 8)) == {"0": 4, "3": 24}


@pytest.mark.parametrize(
    "do",
    [
        lambda x: F.pad(x, (1, 1, 1, 1), "reflect"),
        lambda x: F.pad(x, (1, 1, 1, 1), "replicate"),
        lambda x: F.pad(x, (1, 1, 1, 1), "circular"),
        lambda x: torch.rot90(x, 1, (2, 3)) + x.sort(2).values + x.cumsum(3) + torch.fft.rfft2(x).abs().mean(),
        lambda x: F.grid_sample(x, torch.full((len(x), 4, 4, 2), 0.1), align_corners=False),
        lambda x: F.interpolate(x, size=3, mode="bilinear", antialias=True),
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
        lambda x: x * x.flatten(2).topk(3, dim=2).values.mean(2)[..., None, None],
        lambda x: x - x.flatten(2).median(2).values[..., None, None],
        lambda x: x.gather(2, x.argmax(2, keepdim=True)) + x.unfold(2, 3, 1).mean((2, 4))[:, :, None],
        lambda x: torch.zeros_like(x).scatter_add(2, torch.zeros(x.shape, dtype=torch.int64), x),
        lambda x: x.tril() + x.diagonal(dim1=2, dim2=3)[..., None] + x.prod(2, keepdim=True),
        lambda x: x * (x > 0.5).any(1, keepdim=True) + F.logsigmoid(x) + F.rrelu(x),
        lambda x: x * torch.einsum("nc,nc->n", x.mean((2, 3)), x.amax((2, 3)))[:, None, None, None],
        lambda x: F.conv2d(input=x, weight=torch.ones(16, 1, 3, 3), padding=1, groups=x.shape[1]),
        lambda x: x + x.new_full((len(x), 16, 6, 6), 0.5) + torch.full((16, 1, 1), 0.1),
    ],
)
def test_what_runs_beside_channels_leaves_them_alone(do: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    assert proven(Body(do), (3, 8, 8)) == {"conv": 16, "next": 12}


def test_a_place_that_is_written_to() -> None:
    def written(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, 0] = 0
        x[:, :, :, 1] = x[:, :, :, 2]
        return x

    assert proven(Body(written), (3, 8, 8)) == {"conv": 16, "next": 12}


def test_channels_that_are_shuffled() -> None:
    assert proven(Body(lambda x: F.channel_shuffle(x, 4)), (3, 8, 8)) == {"conv": 4, "next": 12}


def test_neighbourhoods_that_are_unfolded_and_folded() -> None:
    def unfolded(x: Tensor) -> Tensor:
        places = F.unfold(x, 3, padding=1).view(-1, 16, 9, 36)
        return (places * places.softmax(2)).sum(2).view(-1, 16, 6, 6)

    assert proven(Body(unfolded), (3, 8, 8)) == {"conv": 16, "next": 12}
    assert proven(Body(lambda x: F.fold(F.unfold(x, 2), 6, 2)), (3, 8, 8)) == {"conv": 16, "next": 12}
