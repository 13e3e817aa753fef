"""Every reader of files that the product has, with small whole files for it to begin from."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from ai_edge_litert import schema_py_generated as schema
from fakes.made_bundles import made_bundle
from fakes.made_results import made_front, made_result
from fakes.tiny_models import write_mlp
from fakes.tiny_tflite import write_tflite
from PIL import Image
from safetensors.torch import save, save_file

from edgeprune.artifacts import describe, read_metadata
from edgeprune.artifacts.tflite_file import pack
from edgeprune.core.design import PruningPlan
from edgeprune.core.files import sha256_file
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.progress import Silent
from edgeprune.core.schema import PLAN_SCHEMA, TUNED_SCHEMA
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.trial import Candidate, Trial
from edgeprune.data.arrays import read_npz
from edgeprune.data.cifar import load_cifar10
from edgeprune.data.idx import read_idx
from edgeprune.data.images import load_images
from edgeprune.deploy.bundle import opened, read_bundle
from edgeprune.devices.names import book
from edgeprune.devices.simulated.simulation import Simulation
from edgeprune.models.source import load_weights
from edgeprune.models.zoo import build
from edgeprune.papers.conv.records import load_conv
from edgeprune.papers.conv.table import conv_markdown
from edgeprune.papers.records import load_bench
from edgeprune.pipeline import export
from edgeprune.pipeline.baseline import earlier_baseline
from edgeprune.pipeline.config import RunConfig, read_toml, to_plain
from edgeprune.pipeline.export import load_network
from edgeprune.pipeline.placing import read_paces
from edgeprune.pipeline.prepare import Content
from edgeprune.pipeline.stored import finished, finished_front, stored_config
from edgeprune.pipeline.tuned import TunedNetworks, check_tuned
from edgeprune.profilers.cache import MeasurementCache
from edgeprune.profilers.inputs import given_for
from edgeprune.pruning.surgery import cut
from edgeprune.training.place import PLAIN, Place

SHAPE, CLASSES, MODEL = (1, 4, 4), 3, "mlp-32-16"
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Reader:
    """`name` is read by `read(path)`, where `path` is the file `file` below a folder that holds `beside` as well."""

    name: str
    file: str
    whole: bytes
    read: Read
    beside: tuple[tuple[str, bytes], ...] = ()


def _nobody(_: str) -> None:
    pass


def readers(work: Path) -> list[Reader]:
    """All of them; `work` is an empty folder to make the whole files in."""
    torch.manual_seed(0)
    return [*_run_folder(work), *_conv(), *_weights(work), *_models(work), *_data(work), *_devices(), *_bundles(work)]


def _measured() -> Measurement:
    return Measurement(
        "s", (1.0, 1.1), (1.2,), (2.0, 2.2), 10, 40, "mallinfo2", "a" * 64, "b" * 64, "d", {"cpu": "x"},
        MeasureSettings("litert"), states=({"load1": 0.5},),
    )  # fmt: skip


def _run_folder(work: Path) -> Iterator[Reader]:
    store = TrialStore(work / "trials.sqlite")
    plan = PruningPlan({"fc1": (0, 2)})
    store.add(Trial(0, Candidate(plan, 0.9, 2.5, _measured(), 123), 1.5, 0.2, (0.1,), (0.2,)))
    store.add(Trial(1, Candidate(plan, 0.8, 2.5, Failure("crashed", "died", True), 0), 1.5, 0.2, (0.1,), (0.2,)))
    store.remember("k", 0.5, 3.0)
    store.close()
    yield Reader("trials.sqlite", "trials.sqlite", (work / "trials.sqlite").read_bytes(), TrialStore.check)

    with MeasurementCache(work / "cache.sqlite", _nobody) as cache:
        cache.put("k", _measured())

    def use(path: Path) -> None:
        with MeasurementCache(path, _nobody) as cache:
            cache.get("k")
            cache.put("k", _measured())

    yield Reader("measurement cache", "cache.sqlite", (work / "cache.sqlite").read_bytes(), use)
    config = json.dumps(to_plain(RunConfig(model=MODEL, max_latency="0.6x", name="x"))).encode()

    def resumed(path: Path) -> None:
        folder = RunFolder.existing(path.parent.parent, path.parent.name)
        stored_config(folder)
        finished(folder)

    result = json.dumps(made_result()).encode()
    yield Reader("result.json", "result.json", result, resumed, (("config.json", config),))
    yield Reader("config.json", "config.json", config, resumed, (("result.json", result),))

    front = json.dumps(made_front()).encode()
    told = json.dumps({**made_result(), "front": "front.json"}).encode()

    def both(path: Path) -> None:
        finished_front(RunFolder(path.parent))

    beside = (("result.json", told), ("0.6x/result.json", result))
    yield Reader("front.json", "front.json", front, both, beside)

    network = build(MODEL, SHAPE, CLASSES)
    pruned = cut(network, SHAPE, plan)
    weights, answers = save(pruned.state_dict()), export._answers(pruned, SHAPE)
    (work / "p.safetensors").write_bytes(weights)
    told = {"file": "pruned.safetensors", "sha256": sha256_file(work / "p.safetensors")}
    stored = {
        "schema": PLAN_SCHEMA, "model": MODEL, "answers": answers, "input_shape": list(SHAPE),
        "task": "classification", "outputs": 3, "classes": ["a", "b", "c"],
        "preprocessing": {"scale": 0.1, "mean": [0.5], "std": [0.2]},
        "plan": {"kept": {"fc1": [0, 2]}}, "weights": told,
    }  # fmt: skip
    beside = (("pruned.safetensors", weights),)
    yield Reader("plan.json", "plan.json", json.dumps(stored).encode(), lambda p: load_network(p.parent), beside)
    kept = {
        "schema": TUNED_SCHEMA, "plan": {"kept": {"fc1": [0, 2]}}, "asked": 2.0, "accuracy": 0.9,
        "history": [0.8, 0.9], "epochs": 2.0, "weights": {"file": "w.safetensors", "sha256": told["sha256"]},
    }  # fmt: skip

    def tuned(path: Path) -> None:
        folder = RunFolder(path.parents[1])
        check_tuned(folder)
        TunedNetworks(folder, network, SHAPE).get(plan, "winner")

    name = f"tuned/{plan.key}-winner.json"
    yield Reader("tuned network", name, json.dumps(kept).encode(), tuned, (("tuned/w.safetensors", weights),))
    note = json.dumps({"key": "k", "sha256": told["sha256"]}).encode()

    def earlier(path: Path) -> None:
        earlier_baseline(path.parent.parent, "k", build(MODEL, SHAPE, CLASSES), _nobody)

    yield Reader("baseline.json", "baseline.json", note, earlier, (("baseline.safetensors", weights),))
    header = {
        "schema": 1, "data": "mnist", "net": [4, 3, 2], "seeds": [0], "finetune_epochs": 1, "machine": "m",
        "published": False, "methods": ["unpruned"],
    }  # fmt: skip
    one = {"schema": 1, "seed": 0, "accuracy": 0.9, "validation": 0.9, "epochs": 1, "seconds": 1.0}
    beside = (("baseline-0.json", json.dumps(one).encode()),)
    read: Read = lambda p: load_bench(p.parent)  # noqa: E731
    yield Reader("bench.json", "bench.json", json.dumps(header).encode(), read, beside)
    yield Reader(
        "bench baseline",
        "baseline-0.json",
        json.dumps(one).encode(),
        read,
        (("bench.json", json.dumps(header).encode()),),
    )
    timed = [
        {"memory_format": "contiguous", "precision": "float32", "seconds": 0.2, "speedup": 1.0},
        {"memory_format": "channels_last", "precision": "float32", "seconds": 0.1, "speedup": 2.0},
    ]
    yield Reader(
        "timed training steps",
        "training.json",
        json.dumps({"timed": timed}).encode(),
        lambda p: read_paces(p, [PLAIN, Place(memory_format="channels_last")], _nobody),
    )
    place = {"device": "cpu", "memory_format": "channels_last", "precision": "float32"}
    content = {"content": "a" * 64, "scaling": None, "training": {"place": place, "timed": timed}}
    read = lambda p: RunFolder.existing(p.parent.parent, p.parent.name).read_json("content.json", Content)  # noqa: E731
    yield Reader("content.json", "content.json", json.dumps(content).encode(), read, (("config.json", config),))
    toml = b'data = "mnist"\nepisodes = 3\nmax-drop = 0.5\nmax-latency = "0.6x"\nprune_inputs = true\nbeta = 1e-1\n'
    yield Reader("--config TOML", "c.toml", toml, read_toml)


def _conv() -> Iterator[Reader]:
    settings = {
        "data": "digits",
        "images": 600,
        "weights": None,
        "train_epochs": 4,
        "finetune_epochs": 2,
        "episodes": 3,
    }
    header = {"schema": 1, "kind": "conv", "device": "local", "networks": {"net": {**settings, "search_steps": 2}}}
    made = {"schema": 1, "edgeprune": "1", "machine": "m", "network": "net", "seed": 0, "key": "k"}
    cell = {
        **made, "bound": 0.5, "method": "edgeprune", "widths": {"a": 8}, "score": 0.8, "evaluations": 3,
        "family_width": None, "latency": None, "keeps": True, "tried": [[0.8, None]],
        "seconds": {"host": 10.0, "device": 5.0, "agent": 1.0},
    }  # fmt: skip
    end = {
        **made, "widths": {"a": 8}, "epochs": 2.0, "validation": 0.6, "verdict": "stable",
        "accuracy": 0.5, "baseline_accuracy": 0.75, "right": "oA==", "images": 4, "unit": "s",
        "latency": {"value": 0.48, "low": 0.47, "high": 0.49}, "macs_share": 0.4, "seconds": 7.0,
    }  # fmt: skip
    files = {
        "bench.json": json.dumps(header).encode(),
        "cells/net@0.5-edgeprune-0.json": json.dumps(cell).encode(),
        "cells/net@0.5-uniform-0.json": json.dumps({**cell, "method": "uniform"}).encode(),
        "finished/net-k-0.json": json.dumps(end).encode(),
    }

    def read(path: Path) -> None:
        conv_markdown(load_conv(path.parent if path.name == "bench.json" else path.parents[1]))

    for name, whole in files.items():
        if "uniform" not in name:
            beside = tuple((other, data) for other, data in files.items() if other != name)
            yield Reader(f"conv {name.partition('/')[0]}", name, whole, read, beside)


def _weights(work: Path) -> Iterator[Reader]:
    def load(path: Path) -> None:
        load_weights(build(MODEL, SHAPE, CLASSES), path, _nobody)

    state = build(MODEL, SHAPE, CLASSES).state_dict()
    torch.save(state, work / "w.pt")
    yield Reader("weights .pt", "w.pt", (work / "w.pt").read_bytes(), load)
    torch.save({"state_dict": state}, work / "w.pth", _use_new_zipfile_serialization=False)
    yield Reader("weights .pth (legacy)", "w.pth", (work / "w.pth").read_bytes(), load)
    save_file(state, work / "w.safetensors")
    yield Reader("weights .safetensors", "w.safetensors", (work / "w.safetensors").read_bytes(), load)


_METADATA = {
    "edgeprune": "0", "model": "m", "data": "d", "task": "classification",
    "classes": ["a", "b"], "input_shape": [1, 4, 4],
    "preprocessing": {"scale": 0.1, "mean": [0.5], "std": [0.2]}, "kept_inputs": [0, 3], "widths": {"fc1": 3},
}  # fmt: skip


def _models(work: Path) -> Iterator[Reader]:
    def read(path: Path) -> None:
        read_metadata(path)
        describe(path)

    text = json.dumps(_METADATA)
    model = onnx.load(write_mlp(work / "m.onnx"))
    entry = model.metadata_props.add()
    entry.key, entry.value = "edgeprune", text
    yield Reader("ONNX file", "m.onnx", model.SerializeToString(), read)
    tflite = schema.ModelT.InitFromPackedBuf(write_tflite(work / "m.tflite").read_bytes(), 0)
    tflite.buffers.append(schema.BufferT(data=np.frombuffer(text.encode(), np.uint8)))
    tflite.metadata = [schema.MetadataT(name=b"edgeprune", buffer=len(tflite.buffers) - 1)]
    yield Reader("TFLite file", "m.tflite", bytes(pack(tflite)), read)

    def as_onnx(path: Path) -> None:
        entry.value = path.read_bytes().decode(errors="replace")
        made = path.with_suffix(".onnx")
        made.write_bytes(model.SerializeToString())
        read_metadata(made)

    yield Reader("metadata in ONNX", "meta.json", text.encode(), as_onnx)

    def as_tflite(path: Path) -> None:
        tflite.buffers[-1].data = np.frombuffer(path.read_bytes(), np.uint8)
        made = path.with_suffix(".tflite")
        made.write_bytes(pack(tflite))
        read_metadata(made)

    yield Reader("metadata in TFLite", "meta.json", text.encode(), as_tflite)
    array = io.BytesIO()
    np.save(array, np.zeros((1, 16), np.float32))
    yield Reader("--input .npy", "x.npy", array.getvalue(), lambda p: given_for([Path("m.onnx")], inputs=[f"x={p}"]))


def _picture(kind: str, index: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def _data(work: Path) -> Iterator[Reader]:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (6, 1, 4, 4), np.uint8), np.arange(6) % 2
    entry = json.dumps({"scale": 0.1, "mean": 0.5, "std": 0.2})
    for name, save_ in (("plain", np.savez), ("compressed", np.savez_compressed)):
        save_(work / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y, preprocessing=entry)
        yield Reader(f".npz, {name}", "d.npz", (work / "d.npz").read_bytes(), read_npz)
    idx = bytes((0, 0, 8, 3)) + struct.pack(">3I", 6, 4, 4) + x.tobytes()
    yield Reader("IDX", "i.gz", gzip.compress(idx), lambda p: read_idx(p, 3))

    def batch(index: int) -> bytes:
        pixels = np.random.default_rng(index).integers(0, 256, (2, 3072), np.uint8)
        return pickle.dumps({b"data": pixels, b"labels": [index % 10, 9 - index % 10]}, protocol=3)

    names = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
    beside = tuple((name, batch(index)) for index, name in enumerate(names[1:], start=1))
    folder = "cifar-10-batches-py"
    yield Reader(
        "CIFAR pickle", f"{folder}/data_batch_1", batch(0), lambda p: load_cifar10(p.parent.parent, Silent()),
        tuple((f"{folder}/{name}", data) for name, data in beside),
    )  # fmt: skip
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name, data in (("data_batch_1", batch(0)), *beside):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    tarball = "cifar-10-python.tar.gz"
    yield Reader("CIFAR tarball", tarball, out.getvalue(), lambda p: load_cifar10(p.parent, Silent()))

    places = ("train/a/0", "train/b/0", "test/a/0", "test/b/0")
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("GIF", "gif"), ("BMP", "bmp"), ("WEBP", "webp"),
                         ("TIFF", "tif"), ("PPM", "ppm")):  # fmt: skip
        others = tuple((f"d/{place}.{suffix}", _picture(kind, 1)) for place in places[1:])
        yield Reader(
            f"{kind} picture", f"d/{places[0]}.{suffix}", _picture(kind, 0),
            lambda p: load_images(p.parent.parent.parent, Silent()), others,
        )  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        for place in places:
            zipped.writestr(f"{place}.png", _picture("PNG", 2))
    yield Reader("zip of pictures", "d.zip", out.getvalue(), lambda p: load_images(p, Silent()))


def _devices() -> Iterator[Reader]:
    text = b'[devices.pi]\naddress = "ssh://pi@host"\nthreads = 4\ncache_size = "64MB"\nruntime = "litert"\n'

    def entries(path: Path) -> None:
        os.environ["EDGEPRUNE_CONFIG_DIR"] = str(path.parent)
        book.entries()

    yield Reader("device book", "devices.toml", text, entries)
    simulated = (
        b"seed = 1\n[latency]\nbase_s = 1e-4\ns_per_byte = 2e-10\nnoise = 0.02\n"
        b'[throttle]\nafter_s = 60.0\nfactor = 1.8\n[faults]\nlost = 0.02\nat = ["12: garbled", "40-60: lost"]\n'
    )
    yield Reader("simulated device", "sim.toml", simulated, Simulation)
    recorded = b'[latency]\nrecording = "r.json"\n'
    samples = {"sha256": "a", "against_sha256": "b", "samples": [1.0], "against": [2.0], "unit": "s"}
    yield Reader(
        "recording", "r.json", json.dumps(samples).encode(), lambda p: Simulation(p.with_name("sim.toml")),
        (("sim.toml", recorded),),
    )  # fmt: skip


def _bundles(work: Path) -> Iterator[Reader]:
    whole = made_bundle(work / "app.zip").read_bytes()

    def read(path: Path) -> None:
        with opened(path) as folder:
            read_bundle(folder)

    yield Reader("bundle", "app.zip", whole, read)
