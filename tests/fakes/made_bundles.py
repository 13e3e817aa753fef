"""Bundles made by hand: small, quick, and no run behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.tiny_models import write_mlp
from fakes.tiny_tflite import write_tflite

from edgeprune.core.files import sha256_file
from edgeprune.core.runtimes import Format
from edgeprune.deploy.bundle import write_bundle
from edgeprune.deploy.card import Figures, ModelCard, Port, Sample
from edgeprune.exporters import run_model

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
