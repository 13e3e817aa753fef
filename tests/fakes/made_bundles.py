"""Bundles made by hand, small and with no run behind them; and who looks on while they are deployed."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
from fakes.tiny_models import write_mlp
from fakes.tiny_tflite import write_tflite

from edgeprune.artifacts import run_model
from edgeprune.core.files import sha256_file
from edgeprune.core.runtimes import Format
from edgeprune.deploy.bundle import SUMS, write_bundle
from edgeprune.deploy.card import Figures, ModelCard, Port, Sample

WIDTHS = (16, 12, 4)


def made_bundle(
    out: Path, seed: int = 0, *, widths: tuple[int, ...] = WIDTHS, format: Format = "onnx", wrong: bool = False
) -> Path:
    """A bundle of an MLP; `wrong`: its expected answer is not the model's."""
    file = f"model.{format}"
    model = out.with_name(f"{out.name}-{file}")
    (write_mlp if format == "onnx" else write_tflite)(model, widths, seed=seed)
    sample = np.random.default_rng(seed).standard_normal(widths[:1]).astype(np.float32)
    expected = run_model(format, model, sample[None]).ravel() + wrong
    figures = Figures(
        device="made up", emulated=False, facts={}, scores={}, latency=1e-5, unit="s", speedup=(2.0, 1.9, 2.1),
        heap_bytes=0, verdict="stable",
    )  # fmt: skip
    card = ModelCard(
        file=file,
        format=format,
        precision="fp32",
        runtime="onnxruntime" if format == "onnx" else "litert",
        sha256=sha256_file(model),
        bytes=model.stat().st_size,
        task="classification",
        labels=(),
        inputs=(Port(name="input", shape=widths[:1], dtype="float32"),),
        outputs=(Port(name="output", shape=widths[-1:], dtype="float32"),),
        kept_inputs=None,
        widths={},
        run="made by hand",
        model="mlp",
        data="numbers",
        figures=figures,
        sample=Sample(tolerance=1e-3),
    )
    write_bundle(out, card, model, {"input": sample}, expected)
    return out


def runs(to: Path) -> str:
    """The bundle that runs, by the hash of its SHA256SUMS; every file of it is whole."""
    while True:
        link = os.readlink(to / "current")
        try:
            for line in (to / link / SUMS).read_text().splitlines():
                digest, _, name = line.partition("  ")
                assert hashlib.sha256((to / link / name).read_bytes()).hexdigest() == digest, (link, name)
            return sha256_file(to / link / SUMS)
        except FileNotFoundError:
            # It may go after two more deployments, while this looks at it; else it is a release without a file.
            assert os.readlink(to / "current") != link


class Watcher:
    """Looks at DIR/current again and again, as an application would."""

    def __init__(self, to: Path) -> None:
        self.to, self.allowed, self.looks = to, set[str](), 0
        self.wrong: list[object] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._end.set()
        self._thread.join()
        assert not self.wrong, self.wrong[:3]
        assert self.looks > 10

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self.looks += 1
            try:
                if (found := runs(self.to)) not in self.allowed:
                    self.wrong.append(found)
            except (OSError, AssertionError) as error:
                self.wrong.append(error)
