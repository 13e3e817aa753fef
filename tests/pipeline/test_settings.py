"""What is decided where the options leave something open, with the reason, and how that repeats a run."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from some_facts import FACTS, settled

from edgeprune.core.errors import UsageError
from edgeprune.core.schema import RESULT_SCHEMA
from edgeprune.pipeline.config import RunConfig, Setting, as_options, make_config, to_plain
from edgeprune.pipeline.settings import Facts
from edgeprune.pipeline.stored import repeated
from edgeprune.training.augmentation import Augmentation

CONVOLVES = replace(FACTS, convolves=True, macs=16_000_000, inputs=None, groups=9)


@pytest.mark.parametrize(
    ("facts", "options", "name", "value", "why"),
    [
        (FACTS, {}, "episodes", 80, "no convolutions"),
        (CONVOLVES, {}, "episodes", 40, "convolutional network"),
        (CONVOLVES, {"episodes": 7}, "episodes", 7, "given"),
        (FACTS, {}, "search_steps", 150, "no convolutions"),
        (CONVOLVES, {}, "search_steps", 10, "convolutional network of 16 million MACs"),
        (CONVOLVES, {"search_steps": 0}, "search_steps", 0, "given"),
        (FACTS, {}, "search_images", 5000, "no convolutions"),
        (CONVOLVES, {}, "search_images", 2000, "convolutional network of 16 million MACs"),
        # There are no more.
        (replace(CONVOLVES, validation=500), {}, "search_images", 500, "convolutional network of 16 million MACs"),
        (FACTS, {}, "repair", True, "criterion reconstruction"),
        (FACTS, {"criterion": "l1"}, "repair", False, "criterion l1"),
        (FACTS, {"criterion": "l1", "repair": True}, "repair", True, "given"),
        (FACTS, {}, "prune_inputs", True, "a linear layer reads the whole input"),
        (
            replace(FACTS, inputs=False),
            {},
            "prune_inputs",
            False,
            "the layer that reads the whole input stays as it is",
        ),
        (CONVOLVES, {}, "prune_inputs", False, "no linear layer reads the whole input"),
        (FACTS, {"multiple_of": 2}, "multiple_of", 2, "given"),
        (FACTS, {}, "multiple_of", {"neurons": 1, "channels": 8}, "the block of onnxruntime"),
        (FACTS, {}, "beta", 1.0, "equation (3)"),
        (FACTS, {"max_latency": "0.5x"}, "gamma", 0.0, "a bound is given"),
        (FACTS, {"max_latency": "0.5x", "gamma": 2.0}, "gamma", 2.0, "given"),
        # The paper's own agent has the paper's reward, whatever is bounded.
        (FACTS, {"max_latency": "0.5x", "method": "acnn"}, "delta", 1.0, "equation (3)"),
        (FACTS, {"method": "acnn"}, "credit", "step", "3 groups"),
        (CONVOLVES, {"method": "acnn"}, "credit", "episode", "9 groups"),
        (CONVOLVES, {"method": "acnn", "credit": "step"}, "credit", "step", "given"),
        (FACTS, {"method": "acnn"}, "buffer_size", 48, "acnn"),
        (FACTS, {}, "penalty", 0.6, "edgeprune"),
        (FACTS, {"penalty": 0.0}, "penalty", 0.0, "given"),
        (FACTS, {}, "agent_lr", 0.003, "edgeprune"),
        (FACTS, {}, "train_epochs", 60, "6000 training images"),
        (FACTS, {"train_epochs": 0}, "train_epochs", 0, "given"),
        (FACTS, {}, "finetune_epochs", 60, "no convolutions, 6000 training images"),
        (replace(CONVOLVES, images=54_000), {}, "finetune_epochs", 8, "convolutional network, 54000 training images"),
        (FACTS, {}, "temperature", 1.0, "no convolutions"),
        (CONVOLVES, {}, "temperature", 3.0, "convolutional network"),
        (FACTS, {"augmentation": "none"}, "augmentation", "none", "given"),
        (replace(FACTS, shape=(64,)), {}, "augmentation", "none", "inputs 64"),
        (FACTS, {}, "seed", 0, "default"),
        (FACTS, {"seed": 3}, "seed", 3, "given"),
    ],
)
def test_every_setting_has_a_value_and_a_reason(
    facts: Facts, options: dict[str, Any], name: str, value: Any, why: str
) -> None:
    assert settled(facts, **options).options[name] == Setting(value, why)


def test_the_stages_get_what_is_told() -> None:
    found = settled(CONVOLVES, max_latency="0.5x", finalists=5, distillation=0.25, iterations=2, penalty=0.1)
    told = found.options
    assert (found.search.episodes, found.search.gamma, found.search.penalty) == (40, 0.0, 0.1)
    assert (found.scoring.steps, found.scoring.images) == (told["search_steps"].value, told["search_images"].value)
    schedule = found.schedule
    assert (schedule.finetune_epochs, schedule.temperature) == (
        told["finetune_epochs"].value,
        told["temperature"].value,
    )
    assert (schedule.finalists, schedule.distillation, schedule.iterations) == (5, 0.25, 2)
    assert told["augmentation"].value["rotation"] == (schedule.augmentation or Augmentation()).rotation == 5.0


@pytest.mark.parametrize("options", [{}, {"method": "acnn"}, {"method": "greedy"}, {"finetune_minutes": 1.0}])
@pytest.mark.parametrize("facts", [FACTS, CONVOLVES])
def test_nothing_is_left_open_but_what_means_nothing(facts: Facts, options: dict[str, Any]) -> None:
    """What is found out later is added by `prepare` (see the runs end to end)."""
    told = settled(facts, **options).options
    later = {"preprocessing", "train_device", "train_precision", "task", "metric", "max_drop"}
    asked = {
        "max_latency",
        "max_memory",
        "max_bytes",
        "expect_ncr",
        "weights",
        "data_dir",
        "name",
        "runtime",
        "threads",
        "runs_dir",
    }
    agent = {"credit", "buffer_size"} if "method" not in options else {"penalty", "agent_lr", "credit", "buffer_size"}
    idle = {"acnn": set(), "greedy": agent}.get(str(options.get("method")), {"credit", "buffer_size"})
    tuning = {"finetune_epochs"} if "finetune_minutes" in options else {"finetune_minutes"}
    assert set(told) == {field.name for field in fields(RunConfig)} - later - asked - idle - tuning
    assert None not in [each.value for each in told.values()]


@pytest.mark.parametrize("facts", [FACTS, CONVOLVES])
@pytest.mark.parametrize(
    "options", [{}, {"max_latency": "0.8x,0.6x"}, {"method": "acnn", "seed": 4}, {"finetune_minutes": 2.0}]
)
def test_settings_are_decided_alike_when_they_are_given(facts: Facts, options: dict[str, Any]) -> None:
    first = settled(facts, **options)
    again = settled(facts, **as_options(first.options))
    assert replace(again, options={}, search=replace(again.search, part=first.search.part)) == replace(
        first,
        options={},
        search=replace(
            first.search,
            penalty=again.search.penalty,
            learning_rate=again.search.learning_rate,
            buffer_size=again.search.buffer_size,
        ),
    )
    assert {name: each.value for name, each in again.options.items()} == {
        name: each.value for name, each in first.options.items()
    }


def written(folder: Path, **said: Any) -> Path:
    path = folder / "result.json"
    config = to_plain(RunConfig(name="first", seed=3, max_latency="0.5x"))
    path.write_text(json.dumps({"schema": RESULT_SCHEMA, "config": config, **said}))
    return path


def test_a_result_repeats_its_run(tmp_path: Path) -> None:
    said = {
        "episodes": {"value": 40, "why": "convolutional network"},
        "multiple_of": {"value": {"neurons": 1}, "why": ""},
    }
    found = make_config(repeated(written(tmp_path, settled=said)), "it")
    assert (found.name, found.seed, found.max_latency, found.episodes) == (None, 3, "0.5x", 40)
    assert found.multiple_of is None


def test_what_was_worked_out_is_worked_out_again_where_something_changes(tmp_path: Path) -> None:
    """Or a settled number of epochs would stand against minutes, and weights of the reward against a bound."""
    said = {"finetune_epochs": {"value": 60, "why": "6000 training images"}, "seed": {"value": 3, "why": "given"}}
    path = written(tmp_path, settled=said)
    assert repeated(path)["finetune_epochs"] == 60
    values = repeated(path, changed=True)
    assert "finetune_epochs" not in values
    assert values["seed"] == 3
    assert make_config(values | {"finetune_minutes": 5.0, "method": "random"}, "it").finetune_minutes == 5.0


def test_what_was_chosen_on_a_device_is_chosen_anew_where_something_changes(tmp_path: Path) -> None:
    said = {
        "runtime": {"value": "litert", "why": "of 6 that were timed there"},
        "threads": {"value": 2, "why": "given"},
    }
    path = written(tmp_path, settled=said)
    assert (repeated(path)["runtime"], repeated(path)["threads"]) == ("litert", 2)
    values = repeated(path, changed=True)
    assert (values["runtime"], values["threads"]) == ("auto", 2)


def test_so_does_one_of_a_run_that_did_not_get_far(tmp_path: Path) -> None:
    assert make_config(repeated(written(tmp_path, status="failed")), "it") == RunConfig(seed=3, max_latency="0.5x")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"schema": RESULT_SCHEMA + 1}, "repeat it with the version that wrote it"),
        ({"config": 3}, "check --config: a file of TOML, or a run's result.json"),
        ({"settled": {"episodes": 40}}, "check --config"),
        ({"settled": {"episodes": {"value": "many", "why": ""}}}, "episodes"),
        ({"settled": {"epsiodes": {"value": 4, "why": ""}}}, "did you mean 'episodes'"),
    ],
)
def test_a_result_that_cannot_be_repeated_is_one_line(tmp_path: Path, said: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        repeated(written(tmp_path, **said))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
