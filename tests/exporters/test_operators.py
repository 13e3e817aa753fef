"""What torch's exporters work out once, and again where operators were registered since."""

from __future__ import annotations

import onnxscript._framework_apis.torch_2_5 as apis
import pytest
import torch
from torch import nn
from torch._export import utils as listing
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgeprune.exporters.onnx import convert_onnx
from edgeprune.exporters.tflite import convert_tflite

_NET, _X = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).eval(), torch.randn(2, 2, 3)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the translations were parsed and the operators listed."""
    counts = {"translations": 0, "operators": 0}
    parse, listed = apis.get_torchlib_ops, listing._materialize_cpp_cia_ops

    def parsing() -> object:
        counts["translations"] += 1
        return parse()

    def listing_all() -> None:
        counts["operators"] += 1
        listed()

    monkeypatch.setattr("torch.onnx._internal.exporter._registration.onnxscript_apis.get_torchlib_ops", parsing)
    monkeypatch.setattr(listing, "_materialize_cpp_cia_ops", listing_all)
    return counts


def test_a_second_export_asks_for_no_translation_and_lists_operators_once(asked: dict[str, int]) -> None:
    for _ in range(2):  # the first export of a process registers operators of its own
        first = convert_onnx(_NET, _X)
    before = dict(asked)
    assert convert_onnx(_NET, _X) == first
    assert asked["translations"] == before["translations"]
    assert asked["operators"] == before["operators"] + 1
    convert_tflite(_NET, _X)
    assert asked["operators"] <= before["operators"] + 2


def test_operators_registered_since_are_seen(asked: dict[str, int]) -> None:
    for _ in range(2):
        convert_onnx(_NET, _X)
    before = asked["translations"]
    library = torch.library.Library("edgeprune_test_operators", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    convert_onnx(_NET, _X)
    assert asked["translations"] == before + 1


def test_torch_is_left_as_it_was() -> None:
    own, materialize = ONNXRegistry.__dict__["from_torchlib"], listing._materialize_cpp_cia_ops
    convert_onnx(_NET, _X)
    assert ONNXRegistry.__dict__["from_torchlib"] is own
    assert listing._materialize_cpp_cia_ops is materialize
    # A registry of the user's own is his: nothing that he adds to it is found in ours.
    assert ONNXRegistry.from_torchlib() is not ONNXRegistry.from_torchlib()
