"""What the model beside this file answers: python predict.py [INPUT...], or answer({"input": array}) from Python.

INPUT, one for each of the inputs, has values as the data had them, not scaled: .npy, .csv, .wav, or a picture where
Pillow is installed; without any the sample's answer is checked. Needs numpy, and onnxruntime or ai-edge-litert."""

import json
import sys
import wave
from importlib import import_module, util
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
CARD = json.loads((HERE / "model.json").read_text(encoding="utf-8"))


def read(path, port):
    kind, shape, whole = Path(path).suffix.lower(), port["shape"], port["bytes"]
    if kind in (".npy", ".csv"):
        return (np.load(path) if kind == ".npy" else np.loadtxt(path, delimiter=",")).reshape(shape)
    if kind == ".wav":
        with wave.open(str(path)) as sound:
            return np.frombuffer(sound.readframes(-1), "<i2").reshape(shape) / (1 if whole else 32768)
    picture = import_module("PIL.Image").open(path).convert("L" if shape[0] == 1 else "RGB").resize(shape[:0:-1])
    return np.asarray(picture).reshape(*shape[1:], shape[0]).transpose(2, 0, 1) / (1 if whole else 255)


def answer(inputs):
    feeds = {}
    for port in CARD["inputs"]:
        x = np.asarray(inputs[port["name"]])
        if how := port["preprocessing"]:
            mean, std = (np.float32(how[key]).reshape([-1] + [1] * (x.ndim - 1)) for key in ("mean", "std"))
            x = (x.astype(np.float32) * np.float32(how["scale"]) - mean) / std
        feeds[port["name"]] = np.ascontiguousarray(x[None], port["dtype"])
    if CARD["format"] == "onnx":
        session = import_module("onnxruntime").InferenceSession(str(HERE / CARD["file"]))
        return dict(zip([port.name for port in session.get_outputs()], session.run(None, feeds), strict=True))
    package = "ai_edge_litert" if util.find_spec("ai_edge_litert") else "tflite_runtime"
    model = import_module(f"{package}.interpreter").Interpreter(str(HERE / CARD["file"]))
    model.allocate_tensors()
    for port in model.get_input_details():
        model.set_tensor(port["index"], feeds[port["name"]].astype(port["dtype"]))
    model.invoke()
    return {port["name"]: model.get_tensor(port["index"]) for port in model.get_output_details()}


if __name__ == "__main__" and not sys.argv[1:]:
    found = np.concatenate([each.ravel() for each in answer(np.load(HERE / "sample.npz")).values()])
    off = float(np.abs(found - np.load(HERE / "expected.npy")).max())
    good = off <= CARD["sample"]["tolerance"]
    print(f"the sample's answer is {'as expected' if good else 'WRONG'}: off by {off:.2g}")
    sys.exit(not good)
elif __name__ == "__main__":
    outputs = answer({port["name"]: read(path, port) for port, path in zip(CARD["inputs"], sys.argv[1:], strict=True)})
    names = dict(enumerate(CARD["labels"]))
    for name, values in outputs.items():
        print(name, {names.get(place, place): float(f"{value:.5g}") for place, value in enumerate(values.ravel())})
