"""Networks whose weights are worked out from others, of other precisions, lazy, random, or that look at the batch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from edgeprune.core.errors import ModelError
from edgeprune.core.progress import Silent
from edgeprune.models.plain import check_steady, is_waiting, make_plain
from edgeprune.models.source import answered
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.prepare import untrained
from edgeprune.pruning.groups import discover

SHAPE = (1, 8, 8)
INPUTS = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))


def net(wrap: Callable[[nn.Module], nn.Module] = lambda m: m) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        wrap(nn.Conv2d(1, 16, 3)), nn.ReLU(), wrap(nn.Conv2d(16, 16, 3)), nn.ReLU(), nn.Flatten(),
        wrap(nn.Linear(256, 24)), nn.ReLU(), nn.Linear(24, 10),
    ).eval()  # fmt: skip


def old(norm: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def wrap(module: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return norm(module)

    return wrap


@pytest.mark.parametrize(
    ("wrap", "says"),
    [
        (parametrizations.weight_norm, "3 weights were worked out from others (parametrisations)"),
        (parametrizations.spectral_norm, "3 weights were worked out from others (parametrisations)"),
        (old(nn.utils.weight_norm), "3 weights were worked out from others (weight norms)"),
        (old(nn.utils.spectral_norm), "3 weights were worked out from others (spectral norms)"),
        (lambda m: prune.ln_structured(m, "weight", 0.5, 2, 0), "3 weights .* (masks of torch.nn.utils.prune)"),
        (lambda m: prune.l1_unstructured(m, "bias", 0.5), "3 weights .* (masks of torch.nn.utils.prune)"),
    ],
)
def test_weights_become_plain_and_answers_stay(wrap: Callable[[nn.Module], nn.Module], says: str) -> None:
    network = net(wrap)
    # Some of it changes in training mode, as when it was trained.
    network.train()(INPUTS)
    network.eval()
    before = network(INPUTS)
    (line,) = make_plain(network)
    for part in says.split(" .* "):
        assert part in line
    torch.testing.assert_close(network(INPUTS), before, rtol=1e-4, atol=1e-5)
    assert set(network.state_dict()) == set(net().state_dict())
    assert all(parameter.is_leaf for parameter in network.parameters())
    copy.deepcopy(network)
    assert [group.name for group in discover(network, SHAPE, runtime="onnxruntime").groups] == ["0", "2", "5"]


def test_a_plain_network_is_left_alone() -> None:
    network = net()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert make_plain(network) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_that_is_said(dtype: torch.dtype) -> None:
    network = net().to(dtype)
    assert answered(network, "it", SHAPE).shape == (2, 10)
    assert make_plain(network) == [
        f"the model computed in {str(dtype).removeprefix('torch.')}: it is converted to float32"
    ]
    assert network(INPUTS).dtype == torch.float32


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x.flatten(1), 0.5)


class Relative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (Noisy(), "gives the same input another answer each time; switch off what is random"),
        (nn.Sequential(net(), nn.Unflatten(1, (10, 1)), nn.BatchNorm1d(10, track_running_stats=False)),
         "hangs on the others in its batch; take what looks at the batch out"),
        (Relative(), "hangs on the others in its batch"),
    ],
)  # fmt: skip
def test_what_is_not_steady_is_refused_with_the_true_reason(network: nn.Module, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        check_steady(network, "mine.py:net", SHAPE)


def test_what_is_steady_is_not() -> None:
    check_steady(nn.Sequential(net(), nn.Dropout(0.5), nn.BatchNorm1d(10)), "it", SHAPE)


LAZY = """
from torch import nn
def net():
    return nn.Sequential(
        nn.LazyConv2d(16, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(10))
"""


def test_lazy_modules_get_their_shapes_from_the_data(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(LAZY)
    found = untrained(RunConfig(model=f"{tmp_path}/m.py:net"), Silent(), "onnxruntime")
    assert not is_waiting(found.network)
    assert [group.name for group in found.structure.groups] == ["0", "3"]
