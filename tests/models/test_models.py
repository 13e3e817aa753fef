import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgeprune.core.errors import ModelError, UsageError
from edgeprune.models.source import answered, load_weights, make_model
from edgeprune.models.zoo import CONVOLUTIONAL, FAMILIES, ZOO, build

PARAMETERS = {  # counted by hand from the papers' tables
    "lenet-300-100": ((1, 28, 28), 266_610),
    "lenet5": ((1, 28, 28), 61_706),
    "lenet-5-caffe": ((1, 28, 28), 431_080),
    "resnet20": ((3, 32, 32), 269_722),
    "resnet56": ((3, 32, 32), 853_018),
    "ds-cnn": ((1, 28, 28), 21_514),
}


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_zoo_net_is_sized_by_the_data(name: str) -> None:
    for side, channels in ((max(8, CONVOLUTIONAL.get(name, 0)), 1), (32, 3)):
        shape = (channels, side, side)
        network = build(name, shape, 7).eval()
        assert network(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_sizes_are_the_published_ones(name: str) -> None:
    shape, count = PARAMETERS[name]
    assert sum(p.numel() for p in build(name, shape, 10).parameters()) == count


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_shrinks_with_its_width_in_blocks_of_eight(name: str) -> None:
    counts = []
    for width in (1.0, 0.75, 0.5, 0.01):
        network = FAMILIES[name]((3, 16, 16), 7, width).eval()
        assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 7)
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        assert all(each.out_channels % 8 == 0 for each in convolutions)
        counts.append(sum(p.numel() for p in network.parameters()))
    assert counts == sorted(set(counts), reverse=True)
    assert counts[0] == sum(p.numel() for p in build(name, (3, 16, 16), 7).parameters())


def test_convolutions_want_images() -> None:
    with pytest.raises(ModelError, match="images of at least 8x8"):
        build("resnet20", (64,), 10)
    with pytest.raises(ModelError, match="images of at least 16x16"):
        build("lenet-5-caffe", (1, 15, 28), 10)


def test_unknown_model_is_helped() -> None:
    with pytest.raises(ModelError, match="did you mean 'resnet20'"):
        make_model("resnet2", (3, 32, 32), 10)


USERS = """
import torch
from torch import nn
def good(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))
def raises(): raise RuntimeError("no weights\\nanywhere")
def wrong(): return "a model"
def misfit(): return nn.Sequential(nn.Flatten(), nn.Linear(63, 3))
def pair(): return nn.LSTM(8, 3)
def one(): return nn.Flatten(0)
number = 3
"""


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(USERS)
    return path


def test_a_users_model(users: Path) -> None:
    assert answered(make_model(f"{users}:good", (1, 8, 8), 3), "good", (1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("raises", "RuntimeError"),
        ("wrong", "returned str, not a torch.nn.Module"),
        ("misfit", "fails on an input of shape"),
        ("pair", "fails on an input of shape"),
        ("one", r"gives \(128,\) for two inputs, not a tensor \(2, ...\)"),
        ("god", "did you mean 'good'"),
        ("number", "number"),
    ],
)
def test_a_users_model_that_fails_is_one_line(users: Path, function: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        answered(make_model(f"{users}:{function}", (1, 8, 8), 3), function, (1, 8, 8))
    assert "\n" not in str(caught.value)


def test_a_users_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        make_model(f"{tmp_path}/none.py:f", (1, 8, 8), 3)


def net() -> nn.Module:
    return build("lenet-300-100", (1, 8, 8), 10)


def test_weights_from_both_kinds_of_file(tmp_path: Path) -> None:
    source = net()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    # As training under DataParallel, inside a checkpoint, leaves it.
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "p.pt")
    for name in ("w.pt", "w.safetensors", "p.pt"):
        target = net()
        load_weights(target, tmp_path / name, unexpected if name[0] == "w" else lambda _: None)
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def unexpected(text: str) -> None:
    raise AssertionError(text)


def test_weights_of_other_numbers_are_converted_and_said_or_refused(tmp_path: Path) -> None:
    state = net().state_dict()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "w.pt")
        said: list[str] = []
        load_weights(net(), tmp_path / "w.pt", said.append)
        assert said == [f"weights w.pt: {str(dtype).removeprefix('torch.')} converted to the model's own types"]
    weight = state["fc1.weight"]
    for odd, says in (
        (weight.to(torch.complex64), "fc1.weight holds complex64: expected float32, and imaginary parts would be lost"),
        (weight.to(torch.int8), "fc1.weight holds int8: expected float32"),
        (weight > 0, "fc1.weight holds bool: expected float32"),
        (weight.to_sparse(), "fc1.weight is sparse: expected a dense tensor"),
        (weight.double() * 1e300, "NaN or infinite"),
    ):
        torch.save(state | {"fc1.weight": odd}, tmp_path / "w.pt")
        before = net()
        with pytest.raises(ModelError, match=says):
            load_weights(before, tmp_path / "w.pt", lambda _: None)
    save_file(state | {"fc1.weight": weight.to(torch.complex64)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="imaginary parts would be lost"):
        load_weights(net(), tmp_path / "w.safetensors", unexpected)


def test_no_damaged_byte_of_a_weights_file_raises_anything_but_our_error(tmp_path: Path) -> None:
    import random

    small = torch.nn.Linear(3, 2)
    torch.save(small.state_dict(), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    draw = random.Random(0)
    refused = []
    for _ in range(400):
        cut = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            cut[draw.randrange(len(cut))] = draw.randrange(256)
        (tmp_path / "w.pt").write_bytes(cut)
        try:
            load_weights(torch.nn.Linear(3, 2), tmp_path / "w.pt", unexpected)
        except ModelError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert not any("\n" in said for said in refused)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("/tmp/edgeprune-was-here"),))


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    other = build("lenet-300-100", (1, 9, 9), 10)
    torch.save(other.state_dict(), tmp_path / "shape.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "names.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "bad.pt").write_bytes(b"garbage")
    (tmp_path / "bad.safetensors").write_bytes(b"garbage")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Evil()}))
    broken = net().state_dict()
    broken["fc1.bias"][0] = float("nan")
    torch.save(broken, tmp_path / "nan.pt")
    whole = tmp_path / "cut.pt"
    torch.save(net().state_dict(), whole)
    whole.write_bytes(whole.read_bytes()[:5000])
    for name, says in {
        "shape.pt": r"fc1.weight is \(300, 81\), the model wants \(300, 64\)",
        "names.pt": "6 missing .*1 unknown",
        "list.pt": "no state dict",
        "bad.pt": "cannot read weights",
        "bad.safetensors": "cannot read weights",
        "evil.pt": "cannot read weights",
        "cut.pt": "cannot read weights",
        "nan.pt": "NaN or infinite",
        "none.pt": "does not exist",
    }.items():
        with pytest.raises(ModelError, match=says) as caught:
            load_weights(net(), tmp_path / name, unexpected)
        assert "\n" not in str(caught.value)
    assert not Path("/tmp/edgeprune-was-here").exists()


@pytest.mark.shared
def test_the_shared_resnet_loads(shared_data: Path) -> None:
    load_weights(build("resnet20", (3, 32, 32), 10), shared_data / "resnet20-cifar10jpeg.pt", unexpected)
