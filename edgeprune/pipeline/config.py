"""The settings of a run: one table that drives the API, the command line, the TOML file and the documentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from edgeprune.core.budget import Bound, Budget
from edgeprune.core.errors import UsageError, did_you_mean
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.reading import Source, first_fault, short
from edgeprune.core.runtimes import AUTO, FORMATS, PRECISIONS, Format, Precision, RuntimeName
from edgeprune.core.units import refuse_unit
from edgeprune.pipeline.bounds import BOUNDED, PARSERS, Bounded, read_bounds, read_drop
from edgeprune.pipeline.checks import check
from edgeprune.search.names import MethodName
from edgeprune.tasks.names import TASK_NAMES, MetricName, TaskName, named_task, own_task

#: Rankings of channels, see `edgeprune.pruning.rankings`.
CriterionName = Literal["reconstruction", "l1", "l2", "taylor", "activation", "shapley"]
#: What to do where the device is lost while searching.
LossPolicy = Literal["stop", "wait", "continue"]

#: The sections of the options, in order, with their headings in help and documentation.
SECTIONS: Mapping[str, str] = {
    "job": "What is compressed, and where",
    "budget": "What is asked for",
    "search": "How it is searched",
    "training": "Training on the host",
    "measuring": "Measuring at the end",
}


def _option(default: Any, help: str, section: str, metavar: str = "") -> Any:
    return field(default=default, metadata={"help": help, "section": section, "metavar": metavar})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Settings of `edgeprune.run`. None means: worked out from the data and the model, as the help of each says."""

    # --- what is compressed
    data: str = _option(
        "digits", "mnist, fashion-mnist, cifar10, digits, a folder, .zip or .npz, or FILE.py:FUNCTION", "job", "DATA"
    )
    data_dir: Path | None = _option(
        None, "where the standard data sets' files are [EDGEPRUNE_DATA, else the user's cache]", "job", "DIR"
    )
    model: str = _option(
        "lenet-300-100", "a zoo network, or FILE.py:FUNCTION that returns an nn.Module", "job", "MODEL"
    )
    weights: Path | None = _option(
        None, "trained weights (.safetensors, or a state dict); none: a baseline is trained", "job", "FILE"
    )
    preprocessing: str = _option(
        "auto",
        "how inputs are scaled: data (its own), none, unit ([0, 1]), or MEAN,STD of pictures in [0, 1]; auto: what "
        "trained weights fit best on validation, else data",
        "job",
        "SCALING",
    )
    task: str | None = _option(
        None,
        f"what the network is for: {', '.join(TASK_NAMES)}, or FILE.py:FUNCTION that returns a loss and a score of "
        "your own [worked out from the targets and from what it answers, and said]",
        "job",
        "TASK",
    )
    metric: MetricName | None = _option(
        None,
        "what search, fine-tuning, --max-drop and the verdict judge by; balanced-accuracy where a class is rare "
        "[the first of the task: accuracy, map, mae, miou, mse]",
        "job",
    )
    device: str = _option("local", "where it is measured and validated", "job", "NAME")
    runtime: Literal[RuntimeName, "auto"] | None = _option(
        None,
        "the runtime that is measured while searching; auto: the one that runs the unpruned network fastest there "
        "[the device's own setting, else onnxruntime]",
        "job",
    )
    formats: str = _option(
        "onnx,tflite",
        "files that ship: onnx, tflite, or both; the one that --runtime runs must be among them",
        "job",
        "FORMATS",
    )
    precision: str = _option(
        "fp32",
        "what files compute with: fp32, fp16, int8 (ranges from training data), int8-dynamic (ranges found at each "
        "inference), or several by comma, of which the best that keeps the bounds is judged; auto: the search chooses "
        "one, by what each costs there and loses; fp32 files always ship",
        "job",
        "PRECISION",
    )
    threads: int | Literal["auto"] | None = _option(
        None,
        "threads of the runtime on the device; auto: with as many as the unpruned network is fastest, up to its cores "
        "[the device's own setting, else 1]",
        "job",
        "N",
    )
    name: str | None = _option(None, "name of the run's folder [from model and data]", "job", "NAME")
    runs_dir: Path = _option(Path("runs"), "where run folders are made", "job", "DIR")
    seed: int = _option(0, "seed of everything random", "job", "N")
    # --- what is asked for
    max_latency: str | None = _option(
        None,
        "bound on latency per inference: 5ms, or 0.6x of the unpruned network's; emulated boards: 12Minsn; several "
        "(0.8x,0.6x,0.4x): a network for each, from one search",
        "budget",
        "BOUND",
    )
    max_memory: str | None = _option(
        None, "bound on the heap the model holds on the device: 20MB or 0.6x, or several", "budget", "BOUND"
    )
    max_bytes: str | None = _option(None, "bound on the file: 300kB or 0.6x, or several", "budget", "BOUND")
    max_drop: str | float | None = _option(
        None,
        "bound on what is lost on the test set, which always holds: points of accuracy or another share [1], or by how "
        "much an error may grow [5%]",
        "budget",
        "DROP",
    )
    expect_ncr: float | str | None = _option(
        None,
        "neuron compression rate to reach, or several [3, or half-way to the most that is possible, when no bound is "
        "given]",
        "budget",
        "N",
    )
    # --- how it is searched
    method: MethodName = _option(
        "edgeprune", "the search: ours, the papers' agents (acnn, amc), or one without an agent", "search"
    )
    episodes: int | None = _option(
        None,
        "episodes: walks through the network, each of which tries a plan [80; with convolutions 40]",
        "search",
        "N",
    )
    search_steps: int | None = _option(
        None, "steps that a candidate is tuned for before it is scored [150; with convolutions 7 to 20]", "search", "N"
    )
    criterion: CriterionName = _option("reconstruction", "which channels go first", "search")
    repair: bool | None = _option(
        None,
        "refit the layers that read what was pruned by least squares [yes; with l1 no, as in the paper]",
        "search",
    )
    prune_inputs: bool | None = _option(None, "prune input features too [yes for fully connected networks]", "search")
    prune_frozen: bool = _option(
        False,
        "also prune layers with frozen parameters (requires_grad=False); what is left of these keeps its values",
        "search",
    )
    max_sparsity: float = _option(
        0.9,
        "share of a group's channels that may go at most; from 0.9 on a residual branch may go as a whole",
        "search",
        "SHARE",
    )
    multiple_of: int | None = _option(
        None,
        "widths are multiples of this, halved for narrow groups [neurons 1; channels: the runtime's block]",
        "search",
        "N",
    )
    credit: Literal["step", "episode"] | None = _option(
        None, "reward acnn after every group as in its paper, or for the finished plan [step up to 4 groups]", "search"
    )
    beta: float | None = _option(
        None, "weight of the neuron compression rate in the reward [1; 0 where there are bounds]", "search", "WEIGHT"
    )
    gamma: float | None = _option(
        None, "weight of measured latency in the reward [1; 0 where there are bounds]", "search", "WEIGHT"
    )
    delta: float | None = _option(
        None, "weight of measured memory in the reward [1; 0 where there are bounds]", "search", "WEIGHT"
    )
    penalty: float | None = _option(
        None, "lambda, the agent's L1 penalty [edgeprune 0.6, acnn 0.15; 0: plain DDPG]", "search", "LAMBDA"
    )
    agent_lr: float | None = _option(
        None, "learning rate of actor and critic [edgeprune 0.003, acnn 0.001]", "search", "RATE"
    )
    buffer_size: int | None = _option(None, "transitions the experience pool of acnn holds [48]", "search", "N")
    search_images: int | None = _option(
        None, "validation images per candidate [all; 1333 to 4000 for convolutions]", "search", "N"
    )
    calibration_images: int = _option(4000, "images that the criterion and the repair look at", "search", "N")
    on_device_loss: LossPolicy = _option(
        "stop",
        "when the device is lost in the search: stop (--resume goes on), wait, or continue with the trials there are",
        "search",
    )
    # --- training on the host
    validation_share: float = _option(0.1, "share of the training set kept for validation", "training", "SHARE")
    train_epochs: int | None = _option(
        None, "epochs of a baseline without weights [20 to 60, by the data's size]", "training", "N"
    )
    finetune_epochs: int | None = _option(
        None, "epochs of distillation at the end [30 to 60; with convolutions 8 to 60]", "training", "N"
    )
    finetune_minutes: float | None = _option(
        None,
        "minutes of distillation instead of epochs, finalists included; the result then depends on the host's speed",
        "training",
        "MINUTES",
    )
    iterations: int = _option(
        1, "steps in which the winner is pruned, tuned in between and ranked anew", "training", "N"
    )
    distillation: float = _option(
        0.5, "share of the unpruned network's answers in the fine-tuning loss (0: labels only)", "training", "SHARE"
    )
    temperature: float | None = _option(
        None, "softening of the answers in distillation [1: none; with convolutions 3]", "training", "T"
    )
    augmentation: Literal["auto", "none"] = _option(
        "auto",
        "auto: training images of 16 pixels or more are moved, grey writing is also turned and scaled, all but writing "
        "mirrored",
        "training",
    )
    finalists: int = _option(
        3, "best trials of different widths that are fine-tuned and compared, at most", "training", "N"
    )
    train_device: Literal["auto", "cpu", "cuda", "mps"] = _option(
        "auto", "where the host trains; auto: cuda where torch finds one, else mps, else cpu", "training"
    )
    train_precision: Literal["auto", "float32", "bfloat16"] = _option(
        "auto",
        "bfloat16: by autocast, weights stay float32; auto: where the processor has it, it is measured to be faster, "
        "and validation does not suffer",
        "training",
    )
    # --- measuring at the end
    processes: int = _option(
        7,
        "fresh processes of the final measurement; more, for up to 90 s, while its interval holds --max-latency "
        "(emulated boards: always 2)",
        "measuring",
        "N",
    )

    def __post_init__(self) -> None:
        for name in ("max_drop", "expect_ncr"):
            # Of fields that take text as well, whole numbers would be neither.
            if isinstance(value := getattr(self, name), int):
                object.__setattr__(self, name, float(value))
        check(self)

    @property
    def exported(self) -> tuple[Format, ...]:
        """The formats that ship, each once, in the order of `FORMATS`."""
        asked = self.formats.split(",")
        return tuple(kind for kind in FORMATS if kind in asked)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What files are wanted at, each once, in the order of `PRECISIONS`."""
        asked = self.precision.split(",")
        return tuple(one for one in PRECISIONS if one in asked or self.precision == AUTO)

    @property
    def own_task(self) -> str:
        """FILE.py:FUNCTION of a task of the user's own; "" where it is none."""
        return own_task(self.task)

    @property
    def named_task(self) -> TaskName | None:
        """The task that was asked for by name."""
        return named_task(self.task)

    @property
    def repairs(self) -> bool:
        """Whether readers are refitted: as asked, else by every criterion but the paper's own."""
        return self.criterion != "l1" if self.repair is None else self.repair

    @property
    def bounded(self) -> bool:
        """Whether anything but quality is bounded."""
        return any(getattr(self, name) is not None for name in PARSERS)

    @property
    def measured(self) -> MeasureSettings:
        """How candidates are measured, once what is open of runtime and threads is chosen."""
        if self.runtime == "auto" or self.threads == "auto":
            raise ValueError("runtime and threads are chosen by what the device tells")
        return MeasureSettings(self.runtime or "onnxruntime", self.threads or 1)

    @property
    def front(self) -> Bounded | None:
        """The field that holds several bounds; None where there is none, and the run gives one network."""
        return next((name for name in BOUNDED if len(read_bounds(name, getattr(self, name))) > 1), None)

    def singles(self) -> dict[str, RunConfig]:
        """The settings with one bound of the `front` each, by its name, the loosest first."""
        if self.front is None:
            return {}
        singles = {}
        for each in read_bounds(self.front, getattr(self, self.front)):
            one: dict[str, Any] = {self.front: each.text if isinstance(each.value, Bound) else each.value}
            singles[each.name] = dataclasses.replace(self, **one)
        return singles

    def budget(self) -> Budget:
        """What the user asked for, parsed; of a front each of the `singles` has one. Raises UsageError."""

        def one(name: str) -> Any:
            found = read_bounds(name, getattr(self, name))
            if len(found) > 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} holds several bounds", "give one, or call edgeprune.front"
                )
            return found[0].value if found else None

        return Budget(
            max_latency=one("max_latency"),
            max_memory=one("max_memory"),
            max_bytes=one("max_bytes"),
            max_drop=None if self.max_drop is None else read_drop(self.max_drop)[0],
            relative_drop=self.max_drop is not None and read_drop(self.max_drop)[1],
            min_ncr=one("expect_ncr"),
        )


#: Why an option has the value it has, where nothing was worked out.
GIVEN, DEFAULT = "given", "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """One option as it was decided, as JSON data, and why so."""

    value: Any
    why: str


def as_options(settled: Mapping[str, Setting]) -> dict[str, Any]:
    """What repeats a run: the values of its settled options that can be typed."""
    return {name: each.value for name, each in settled.items() if not isinstance(each.value, dict)}


def refuse_units(name: str, value: Any) -> None:
    """Raises UsageError, with the right spelling, for a number of setting `name` that is written like "1%" or "3x"."""
    field_ = next(field for field in dataclasses.fields(RunConfig) if field.name == name)
    if isinstance(value, str) and not str(field_.type).startswith("str"):
        refuse_unit(value, f"--{name.replace('_', '-')}", share=field_.metadata["metavar"] == "SHARE")


def make_config(values: dict[str, Any], where: str) -> RunConfig:
    """A RunConfig from plain values, types checked. Raises UsageError naming `where` and the key."""
    known = [f.name for f in dataclasses.fields(RunConfig)]
    for key, value in values.items():
        if key.replace("-", "_") not in known:
            near = did_you_mean(key.replace("-", "_")[:60], known)
            raise UsageError(f"unknown key {short(key)} in {where}", near)
        refuse_units(key.replace("-", "_"), value)
    plain = {key.replace("-", "_"): value for key, value in values.items()}
    if isinstance(rate := plain.get("expect_ncr"), str) and "," not in rate:
        # Of the command line, where it may hold several as well.
        plain["expect_ncr"] = read_bounds("expect_ncr", rate)[0].value
    if isinstance(drop := plain.get("max_drop"), str) and not read_drop(drop)[1]:
        plain["max_drop"] = read_drop(drop)[0]
    try:
        return TypeAdapter(RunConfig).validate_python(plain)
    except ValidationError as error:
        raise UsageError(f"{where}: {first_fault(error)}", "see edgeprune run --help") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises UsageError where it is missing, damaged, or holds unknown keys."""
    values = Source(path, UsageError, "check --config: a file of TOML with lines like episodes = 50").read_toml()
    make_config(values, str(path))
    return {key.replace("-", "_"): value for key, value in values.items()}


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The settings as JSON data, as `config.json` and `result.json` hold them."""
    plain: dict[str, Any] = TypeAdapter(RunConfig).dump_python(config, mode="json")
    return plain
