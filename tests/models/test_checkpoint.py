"""Checkpoints as trainers write them: what is taken of each, what is said, and what is refused."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeprune.core.errors import ModelError
from edgeprune.models.source import load_weights


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()


torch.manual_seed(0)
WANTED = Small()
with torch.no_grad():
    for each in WANTED.state_dict().values():
        each.copy_(torch.rand(each.shape) * 10)
STATE = WANTED.state_dict()
HALVED = {name: each / 2 if each.is_floating_point() else each for name, each in STATE.items()}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (STATE, []),
        (OrderedDict(STATE), []),
        ({name: each for name, each in STATE.items() if "num_batches" not in name}, []),
        ({"model": STATE, "optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}, "epoch": 3}, ["its entry 'model' is taken"]),
        ({"weights_of_it": STATE, "loss": 0.5}, ["its entry 'weights_of_it' is taken"]),
        (prefixed("_orig_mod."), ["names are taken without '_orig_mod.'"]),
        ({"net": prefixed("module.")}, ["its entry 'net' is taken", "names are taken without 'module.'"]),
        (prefixed("module._orig_mod."), ["names are taken without 'module.' and '_orig_mod.'"]),
        (prefixed("lit_backbone_of_mine."), ["names are taken without 'lit_backbone_of_mine.'"]),
        (
            {"state_dict": STATE, "state_dict_ema": HALVED},
            ["its entry 'state_dict' is taken, not 'state_dict_ema' (averaged weights: to use these, save them alone)"],
        ),
        (
            {"weights_of_it_ema": HALVED, "weights_of_it": STATE},
            ["its entry 'weights_of_it' is taken, not 'weights_of_it_ema' (averaged weights: to use these, save them "
             "alone)"],
        ),
        ({"ema": STATE, "step": 7}, ["its entry 'ema' is taken"]),
        ({"state_dict": STATE, "args": argparse.Namespace(lr=0.1, names=["a"])}, ["its entry 'state_dict' is taken"]),
        ({"state_dict": STATE, "best": np.float64(91.2), "seen": np.int64(3), "ok": np.bool_(True)},
         ["its entry 'state_dict' is taken"]),
        ({"state_dict": STATE, "curve": np.arange(3.0)}, ["its entry 'state_dict' is taken"]),
    ],
)  # fmt: skip
def test_what_is_taken_and_said(tmp_path: Path, saved: Any, said: list[str]) -> None:
    torch.save(saved, tmp_path / "w.pt")
    heard: list[str] = []
    network = Small()
    load_weights(network, tmp_path / "w.pt", heard.append)
    for name, tensor in network.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(tensor, STATE[name]), name
    assert heard == [f"weights w.pt: {line}" for line in said]


def test_a_prefix_in_a_safetensors_file(tmp_path: Path) -> None:
    save_file(prefixed("_orig_mod."), tmp_path / "w.safetensors")
    network = Small()
    load_weights(network, tmp_path / "w.safetensors", lambda _: None)
    assert torch.equal(network.head.weight, WANTED.head.weight)


def test_a_network_that_wraps_what_was_saved(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pt")
    network, heard = Wrapped(), []
    load_weights(network, tmp_path / "w.pt", heard.append)
    assert torch.equal(network.inner.head.weight, WANTED.head.weight)
    assert heard == ["weights w.pt: names are taken with 'inner.' before them"]


def test_names_that_fit_keep_their_prefix(tmp_path: Path) -> None:
    """`inner.` is part of the names: it is not taken for a trainer's."""
    torch.save(prefixed("inner."), tmp_path / "w.pt")
    heard: list[str] = []
    load_weights(Wrapped(), tmp_path / "w.pt", heard.append)
    assert heard == []


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        (WANTED, "hold an object of .*Small, which is not unpickled: only tensors are; save it with torch.save"),
        (nn.Sequential(nn.Linear(3, 2)), "hold a whole network, which is not unpickled"),
        ({"model": WANTED, "epoch": 2}, "hold an object of .*Small"),
        ({"first": STATE, "second": HALVED}, "hold several state dicts: first, second; take one of them out"),
        ({"epoch": 3, "args": argparse.Namespace()}, "hold no state dict"),
        ({}, "hold no state dict"),
        ({"state_dict": {**STATE, "teacher.weight": torch.zeros(2)}}, r"1 unknown \(first: teacher.weight\)"),
        ({name: each for name, each in STATE.items() if name != "stem.1.running_var"}, "1 missing .*running_var"),
    ],
)
def test_what_cannot_be_taken_is_one_line(tmp_path: Path, saved: Any, says: str) -> None:
    torch.save(saved, tmp_path / "w.pt")
    network = Small()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    with pytest.raises(ModelError, match=says) as caught:
        load_weights(network, tmp_path / "w.pt", lambda _: None)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("/tmp/edgeprune-was-here-too"),))


def test_nothing_runs_on_loading(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "args": argparse.Namespace(evil=Evil())}, tmp_path / "w.pt")
    with pytest.raises(ModelError):
        load_weights(Small(), tmp_path / "w.pt", lambda _: None)
    assert not Path("/tmp/edgeprune-was-here-too").exists()
