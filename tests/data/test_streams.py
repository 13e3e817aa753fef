"""Data functions that return a Dataset or batches instead of arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune.core.errors import DataError, StorageError, UsageError
from edgeprune.core.mapped import built, mapped, new_file, on_disk, write
from edgeprune.core.progress import Silent
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset
from edgeprune.data.split import choose_preprocessing, moments

HEAD = """
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

rng = np.random.default_rng(0)
X = rng.integers(0, 256, (90, 3, 4, 4), dtype=np.uint8)
Y = np.arange(90) % 3


class Items(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], int(self.y[index])


class Counted(IterableDataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __iter__(self):
        yield from zip(self.x, self.y)


class OneByOne(IterableDataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        yield from zip(self.x, self.y)


def batches(x, y, size=8):
    for start in range(0, len(y), size):
        yield x[start : start + size], y[start : start + size]


def parts(make):
    return make(X[:60], Y[:60]), make(X[60:], Y[60:])


def arrays():
    return X[:60], Y[:60], X[60:], Y[60:]
"""


@pytest.fixture
def load(tmp_path: Path):
    def loaded(body: str, function: str = "data", **options) -> Dataset:
        (tmp_path / "d.py").write_text(HEAD + body)
        return load_data(f"{tmp_path}/d.py:{function}", None, seed=0, progress=Silent(), **options)

    return loaded


@pytest.mark.parametrize(
    "made",
    [
        "parts(Items)",
        "parts(OneByOne)",
        "parts(Counted)",
        "parts(lambda x, y: DataLoader(OneByOne(torch.from_numpy(x), torch.from_numpy(y)), batch_size=7))",
        "parts(batches)",
        "parts(lambda x, y: list(zip(x, y)))",
        "parts(lambda x, y: DataLoader(Items(torch.from_numpy(x), y), batch_size=7))",
        "parts(lambda x, y: DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=60))",
        "dict(zip(('train', 'test'), parts(Items)), classes=['a', 'b', 'c'])",
    ],
)
def test_streams_are_the_arrays_they_give(load, made: str):
    found, known = load(f"\n\ndef data():\n    return {made}\n"), load("", "arrays")
    for part in ("train", "validation", "test"):
        here, there = getattr(found, part), getattr(known, part)
        assert np.array_equal(here.x, there.x)
        assert here.x.dtype == there.x.dtype
        assert np.array_equal(here.y, there.y)
        assert here.y.dtype == there.y.dtype
        assert on_disk(here.x)
        assert not on_disk(there.x)
    assert found.preprocessing == known.preprocessing
    if "classes" in made:
        assert found.classes == ("a", "b", "c")
    else:
        assert found.fingerprint == known.fingerprint


@pytest.mark.parametrize(
    "body",
    [
        # Several inputs, integers among them, one batch and one example at a time.
        "def x(n): return {'ids': np.arange(n * 5).reshape(n, 5) % 7, 'level': np.arange(n * 2.0).reshape(n, 2)}",
        "def x(n): return np.random.default_rng(n).normal(size=(n, 6, 5, 3))",
        "def x(n): return np.random.default_rng(n).normal(size=(n, 9, 8))",
    ],
)
@pytest.mark.parametrize(
    "target", ["np.arange(n) % 4", "np.linspace(0, 1, n)", "np.eye(3)[np.arange(n) % 3] + [0, 0, 1]"]
)
def test_whatever_inputs_and_targets_are(load, monkeypatch: pytest.MonkeyPatch, body: str, target: str):
    monkeypatch.setattr("edgeprune.core.mapped._PART", 400)
    body = f"""
{body}


def y(n):
    return {target}


def arrays():
    return x(50), y(50), x(30), y(30)


def rows(n):
    inputs, targets = x(n), y(n)
    for i in range(n):
        yield (({{k: v[i] for k, v in inputs.items()}}) if isinstance(inputs, dict) else inputs[i]), targets[i]


def data():
    return list(rows(50)), list(rows(30))
"""
    task = "multi-label" if "eye" in target else None
    body = body.replace("+ [0, 0, 1]", "")
    found, known = load(body, task=task), load(body, "arrays", task=task)
    assert found.fingerprint == known.fingerprint or found.preprocessing != known.preprocessing
    for part in ("train", "validation", "test"):
        assert np.array_equal(getattr(found, part).x, getattr(known, part).x)
        assert np.array_equal(getattr(found, part).y, getattr(known, part).y)
    assert found.whole == known.whole
    assert found.targets == known.targets


def test_a_loader_of_several_inputs(load):
    """torch's own makes lists of the tuples that a data set gives."""
    body = """

def two(x, y):
    tensors = TensorDataset(torch.from_numpy(x[:, 0]), torch.from_numpy(x[:, 1]), torch.from_numpy(y))
    class Two(Items):
        def __getitem__(self, index):
            *inputs, target = tensors[index]
            return tuple(inputs), target
    return DataLoader(Two(x, y), batch_size=7)


def data():
    return parts(two)


def arrays():
    return {"x_train": (X[:60, 0], X[:60, 1]), "y_train": Y[:60], "x_test": (X[60:, 0], X[60:, 1]), "y_test": Y[60:]}
"""
    found, known = load(body), load(body, "arrays")
    assert found.fingerprint == known.fingerprint
    assert found.train.x.dtype.names == ("input0", "input1")


def test_moments_of_parts_are_those_of_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgeprune.core.mapped._PART", 1000)
    whole = np.random.default_rng(0).normal(3, 2, (500, 4, 3)).astype(np.float32)
    kept = built(500, whole.__getitem__, _mapped(whole))
    assert on_disk(kept)
    for found, known in zip(moments(kept), moments(whole), strict=True):
        assert found == pytest.approx(known, rel=1e-12)
    pixels = (whole * 20).clip(0, 255).astype(np.uint8)
    assert choose_preprocessing(_mapped(pixels)) == choose_preprocessing(pixels)


def _mapped(x: np.ndarray) -> np.ndarray:

    with new_file() as stream:
        write(stream, x)
        return mapped(stream, x.dtype, x.shape)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("parts(lambda x, y: [a for a in x])", r"expected \(input, target\) at place 0 of train, got a ndarray"),
        ("parts(lambda x, y: iter([(1, 2, 3)]))", r"expected \(inputs, targets\) at place 0 of train, got 3 values"),
        ("parts(lambda x, y: [(a[:, : 1 + i], b) for i, (a, b) in enumerate(zip(x, y))])", "example 1 is"),
        ("parts(lambda x, y: [(a, b if i else float(b)) for i, (a, b) in enumerate(zip(x, y))])", "int64.*float64"),
        ("parts(lambda x, y: [])", "train is empty"),
        ("parts(lambda x, y: iter([(x, y[:5])]))", "60 inputs and 5 targets"),
        ("parts(lambda x, y: iter([({'a': x, 'b': x[:3]}, y)]))", "give as many of each"),
        (
            "parts(lambda x, y: [({'a': i} if n else {'b': i}, j) for n, (i, j) in enumerate(zip(x, y))])",
            "were b before",
        ),
        ("parts(lambda x, y: [('text', b) for b in y])", "expected numbers"),
        (
            "parts(lambda x, y: [(torch.ones(3, requires_grad=True), b) for b in y])",
            "inputs of train cannot become an array",
        ),
        ("(X, Y)", "returned 2 values"),
        ("{'train': X, 'test': X}", "has no x_train"),
    ],
)
def test_streams_that_cannot_be_are_one_line(load, body: str, match: str):
    with pytest.raises(DataError, match=match):
        load(f"\n\ndef data():\n    return {body}\n")


def test_what_fails_while_it_is_read_is_told_with_its_line(load):
    body = """

class Broken(Items):
    def __getitem__(self, index):
        return super().__getitem__(index) if index < 7 else open("/nowhere/at/all")


def data():
    return parts(Broken)
"""
    line = (
        (HEAD + body)
        .splitlines()
        .index('        return super().__getitem__(index) if index < 7 else open("/nowhere/at/all")')
    )
    with pytest.raises(UsageError, match=rf"d\.py:data fails at d\.py line {line + 1}: FileNotFoundError"):
        load(body)


def test_what_cannot_be_gone_through_is_told_with_its_line(load):
    body = """

class Shut:
    def __iter__(self):
        raise RuntimeError("closed on Sundays")


def data():
    return Shut(), Shut()
"""
    with pytest.raises(UsageError, match=r"d\.py:data fails at d\.py line \d+: RuntimeError: closed on Sundays"):
        load(body)


def test_a_full_disk_is_one_line(load, monkeypatch: pytest.MonkeyPatch):

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="XDG_CACHE_HOME"):
        load("\n\ndef data():\n    return parts(Items)\n")


@pytest.mark.soak
def test_memory_does_not_hold_the_data(tmp_path: Path):
    """200 MB of pixels, 800 as floats, are read, split, scaled and answered by a process that may have 120 MB more."""
    (tmp_path / "big.py").write_text("""
import numpy as np

def stream(batches):
    rng = np.random.default_rng(0)
    for _ in range(batches):
        x = np.repeat(rng.integers(0, 256, (100, 1), dtype=np.uint8), 40_000, 1).reshape(100, 1, 200, 200)
        yield x, x[:, 0, 0, 0] > 127

def data():
    return stream(45), stream(5)
""")
    (tmp_path / "job.py").write_text(f"""
import resource
from pathlib import Path

import torch
from edgeprune.core.progress import Silent
from edgeprune.data.catalog import load_data
from edgeprune.training.batches import Batches
from edgeprune.training.fit import predict

status = Path("/proc/self/status").read_text()
data = 1024 * int(next(line for line in status.splitlines() if line.startswith("VmData")).split()[1])
resource.setrlimit(resource.RLIMIT_DATA, (data + (120 << 20), resource.RLIM_INFINITY))
found = load_data({str(tmp_path / "big.py:data")!r}, None, seed=0, progress=Silent())
net = torch.nn.Sequential(torch.nn.AvgPool2d(200), torch.nn.Flatten(), torch.nn.Linear(1, 2))
assert predict(net, Batches(found.train, found.preprocessing)).shape == (4_050, 2)
print(found.preprocessing.mean)
""")
    done = subprocess.run([sys.executable, tmp_path / "job.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
