"""What the settings of a run must be, each by itself and beside the others."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.core.errors import UsageError
from edgeprune.core.runtimes import AUTO, FORMATS, PRECISIONS, RUNTIMES, runtime_for
from edgeprune.data.preprocessing import WORDS, parse_numbers
from edgeprune.pipeline.bounds import PARSERS, read_bounds, read_drop
from edgeprune.search.names import AGENTS
from edgeprune.tasks.names import check_task

if TYPE_CHECKING:
    from edgeprune.pipeline.config import RunConfig

#: A bound on weights and durations: beyond it sums lose what small terms say.
LARGEST = 1_000_000


def check(config: RunConfig) -> None:
    """Raises UsageError for the first setting that cannot be."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        _check(not isinstance(value, float) or math.isfinite(value), field.name, "a finite number")
        # No file system takes such a name, and Python's functions say so in words of their own.
        _check(not isinstance(value, str | Path) or "\0" not in str(value), field.name, "without a null character")
    _check_sizes(config)
    _check_tuning(config)
    _check_agent(config)
    if config.preprocessing not in WORDS:
        parse_numbers(config.preprocessing)
    _check_formats(config)
    for one in config.precision.split(","):
        if one not in PRECISIONS and config.precision != AUTO:
            if one == AUTO:
                raise UsageError(
                    f"--precision: {AUTO} stands for all, and others are given with it", f"write {AUTO} alone"
                )
            raise UsageError(
                f"--precision: there is no precision {one!r:.60}", f"write {', '.join(PRECISIONS)}, or {AUTO}"
            )
    check_task(config.task, config.metric)
    _check(0 <= config.seed < 2**32, "seed", "between 0 and 4294967295")
    lists = [name for name in PARSERS if len(read_bounds(name, getattr(config, name))) > 1]
    if len(lists) > 1:
        first, second = map(_option, lists[:2])
        raise UsageError(f"{first} and {second} hold several bounds each", "give several for one of them only")


def _check_sizes(config: RunConfig) -> None:
    for name in ("finalists", "calibration_images"):
        _check(getattr(config, name) >= 1, name, "at least 1")
    for name in ("episodes", "multiple_of", "search_images", "threads", "buffer_size"):
        value = None if getattr(config, name) == AUTO else getattr(config, name)
        _check(value is None or value >= 1, name, "at least 1")
    for name in ("train_epochs", "finetune_epochs", "search_steps"):
        value = getattr(config, name)
        _check(value is None or value >= 0, name, "0 or more")
    _check(config.processes >= 3, "processes", "at least 3, or there is no interval")
    _check(0 < config.max_sparsity < 1, "max_sparsity", "between 0 and 1")
    _check(0 < config.validation_share < 1, "validation_share", "between 0 and 1")
    if config.max_drop is not None:
        read_drop(config.max_drop)
    _check(not isinstance(config.threads, int) or config.threads <= 256, "threads", "at most 256")


def _check_tuning(config: RunConfig) -> None:
    # Ten is also the fewest epochs that are worked out where none are given.
    most = 10 if config.finetune_epochs is None else min(10, max(1, config.finetune_epochs))
    _check(1 <= config.iterations <= most, "iterations", "between 1 and 10, and at most --finetune-epochs")
    _check(0 <= config.distillation <= 1, "distillation", "between 0 and 1")
    temperature, minutes = config.temperature, config.finetune_minutes
    _check(temperature is None or 1e-3 <= temperature <= 1e3, "temperature", "between 0.001 and 1000")
    _check(minutes is None or 0 < minutes <= LARGEST, "finetune_minutes", f"above 0 and at most {LARGEST:,}")
    if minutes is not None and config.finetune_epochs is not None:
        raise UsageError("--finetune-epochs and --finetune-minutes exclude each other", "give one of them")


def _check_agent(config: RunConfig) -> None:
    for name in ("beta", "gamma", "delta"):
        # Only their proportions to each other and to accuracy, which weighs 1, count.
        weight = getattr(config, name)
        _check(weight is None or 0 <= weight <= LARGEST, name, f"between 0 and {LARGEST:,}")
    _check(config.penalty is None or 0 <= config.penalty <= LARGEST, "penalty", f"between 0 and {LARGEST:,}")
    # Adam moves every weight by about this much a step, and weights are below 1.
    _check(config.agent_lr is None or 0 < config.agent_lr <= 1, "agent_lr", "above 0 and at most 1")
    for name, methods in (
        ("penalty", AGENTS),
        ("agent_lr", AGENTS),
        ("buffer_size", ("acnn",)),
        ("credit", ("acnn",)),
    ):
        if getattr(config, name) is not None and config.method not in methods:
            raise UsageError(
                f"{_option(name)} means nothing to --method {config.method}",
                f"leave it out, or give --method {' or '.join(methods)}",
            )


def _check_formats(config: RunConfig) -> None:
    for kind in config.formats.split(","):
        if kind not in FORMATS:
            raise UsageError(f"--formats: there is no format {kind!r:.60}", "write onnx, tflite or onnx,tflite")
    if config.runtime is None or config.runtime == "auto":
        return
    if (kind := RUNTIMES[config.runtime].format.name) not in config.exported:
        raise UsageError(
            f"--formats {config.formats} leaves out {kind}, which is what {config.runtime} measures",
            f"add it, or give --runtime {runtime_for(config.exported[0]).name}",
        )


def _check(holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise UsageError(f"{_option(name)} must be {rule}", "see edgeprune run --help")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
