"""`bench conv`: searches side by side on convolutional networks, held to bounds on measured latency.

All searches of a network have the same criterion, repair and tuning of candidates, and try as many of them. What a plan
scores and costs is found out once, for whoever asks; the seconds that took count for every search that asked. The best
plan that keeps the bound is fine-tuned, once however many searches chose it. Against them stands a narrower network of
the same family, trained from scratch. The test set is read when a plan is finished, and never before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from edgeprune.core.errors import BudgetError, DeviceError
from edgeprune.core.files import storing, write_json
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.devices import find_device, open_session
from edgeprune.papers.conv.bench import opened
from edgeprune.papers.conv.config import ConvConfig
from edgeprune.papers.conv.folder import ConvFolder
from edgeprune.papers.conv.pace import Pace, Part, format_hours, parts_of, step_of
from edgeprune.papers.conv.records import Cell, ConvHeader
from edgeprune.papers.records import read_file
from edgeprune.papers.workbench import check_settings, origin, owned


def run_conv(config: ConvConfig, progress: Progress) -> list[str]:
    """Run what is not finished yet in `config.out`; what is there is not run again. The folder is locked meanwhile.

    Returns why cells were left out, a line each. Raises UsageError for settings that are not those the folder was made
    with, and where another process is at it, DataError, DeviceError, StorageError.
    """
    with owned(config.out, progress):
        _write_header(config)
        parts = [part for name in config.networks for part in _missing(config, name)]
        if not parts:
            return []
        pace = Pace(config, parts, step_of)
        for name, step in pace.steps.items():
            progress.say(
                f"{name}: a training step takes {1000 * step:.0f} ms; what is to do takes about "
                f"{format_hours(pace.network(name))}"
            )
        progress.say(f"{len(parts)} searches and fine-tunings to do: about {format_hours(pace.left)}")
        try:
            return _run(config, parts, pace, progress)
        except DeviceError as error:
            hint = "when it is back, type the same command again: what is finished stays"
            raise DeviceError(error.message, hint, retryable=error.retryable) from error


def _run(config: ConvConfig, parts: Sequence[Part], pace: Pace, progress: Progress) -> list[str]:
    left_out: list[str] = []
    spec = find_device(config.device)
    settings = MeasureSettings(runtime=spec.runtime or "onnxruntime", threads=spec.threads or 1)
    # Seed by seed: a bench that is interrupted has some of every network.
    order = sorted({(part.seed, config.networks.index(part.network), part.network) for part in parts})
    with open_session(spec) as session:
        for seed, _, name in order:
            progress.stage(f"{name}, seed {seed}")
            started = time.monotonic()
            with opened(config, name, seed, session, settings, progress) as bench:
                pace.begun(name, seed, time.monotonic() - started)
                for part in parts:
                    if (part.network, part.seed) != (name, seed):
                        continue
                    started = time.monotonic()
                    try:
                        done = bench.search(part) if part.what == "search" else bench.finish(part)
                    except BudgetError as error:
                        done = f"left out: {part.label}: {error.message}"
                        left_out.append(done)
                    pace.done(part, time.monotonic() - started)
                    if done:
                        progress.say(done)
                    progress.say(f"{pace.parts} left, about {format_hours(pace.left)}" if pace.parts else "all is done")
    return left_out


def _missing(config: ConvConfig, name: str) -> Iterator[Part]:
    folder = ConvFolder(config.out)
    for seed in range(config.protocol(name).seeds):
        for part in parts_of(config, name, seed):
            cell = folder.cell(part)
            if not cell.exists():
                yield part
            elif part.what == "finish":
                key = read_file(cell, Cell).key
                if not folder.finished(name, key, seed).exists():
                    yield part


def _write_header(config: ConvConfig) -> None:
    """Write bench.json and the folders. Raises UsageError where a network was compared with other settings."""
    path = ConvFolder(config.out).header
    check_settings(config.out, {"kind": "conv", "device": config.device})
    networks = dict(read_file(path, ConvHeader).networks) if path.exists() else {}
    for name in config.networks:
        settings = config.protocol(name).settings()
        earlier = networks.get(name)
        check_settings(config.out, to_json(settings), to_json(earlier) if earlier else None, f" for {name}")
        networks[name] = settings
    with storing(config.out):
        for each in ("cells", "finished", "families", "networks"):
            (config.out / each).mkdir(exist_ok=True)
    header = ConvHeader(**origin(), kind="conv", device=config.device, networks=networks)
    write_json(path, to_json(header))
