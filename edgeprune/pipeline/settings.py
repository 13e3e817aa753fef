"""Every setting of a run as it is decided: in one place, each with its reason, none left open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from edgeprune.core.inputs import Shape, written
from edgeprune.core.plain import to_json
from edgeprune.core.runtimes import RUNTIMES, RuntimeName
from edgeprune.pipeline.config import DEFAULT, GIVEN, CriterionName, RunConfig, Setting, to_plain
from edgeprune.search.environment import Credit
from edgeprune.search.methods import OURS, PAPER, make_method
from edgeprune.search.names import MethodName
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.brief import FASTER
from edgeprune.training.place import Place
from edgeprune.training.regime import FINETUNE_DECAY, Regime, Taken

T = TypeVar("T")

#: Groups up to which the reward is given after every one of them, as in the paper; beyond, evaluations get too many.
STEP_CREDIT_UP_TO = 4
#: Episodes, where nobody says how many; with convolutions, whose candidates cost more, one in so many of them.
EPISODES, CONVOLVED_PART = 80, 2
#: Steps that a candidate is tuned for; with convolutions others, and so many validation images that it is then scored
#: on: of unpruned networks up to so many multiply-accumulates; of larger ones fewer, down to this part.
STEPS = 150
CONVOLVED_STEPS, CONVOLVED_IMAGES, CONVOLVED_MACS, LEAST_PART = 20, 4000, 4_000_000, 1 / 3
#: Images that fine-tuning sees in all where the network convolves, and epochs at least and most: with half as many
#: ResNet-20 lost 0.57 points, not 0.12, a run each (docs/search.md). Of so many epochs the images differ: the unpruned
#: network's answers to others would take up to half of the time.
CONVOLVED_SEEN, LEAST_EPOCHS, MOST_EPOCHS, ROUNDS = 360_000, 8, 60, 4

LEARNING_RATE = 2e-3
#: Where a run is written, and under which name, changes nothing of it.
ELSEWHERE = ("name", "runs_dir")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What settings are decided by, of the data, the unpruned network and the device."""

    #: Training images, their shape, whether they may be moved at all, and mirrored.
    images: int
    shape: Shape
    moves: bool
    mirrors: bool
    #: Validation images.
    validation: int
    convolves: bool
    #: Multiply-accumulates for one input.
    macs: int
    groups: int
    #: Whether input features are among the groups; None: no single layer reads the whole input.
    inputs: bool | None
    runtime: RuntimeName


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How the baseline is trained and the pruned network tuned."""

    train_epochs: int
    finetune_epochs: int
    batch_size: int
    learning_rate: float
    #: Of distillation.
    temperature: float
    #: How training images are changed, of the baseline and of the pruned network alike.
    augmentation: Augmentation | None
    #: Minutes of fine-tuning instead of epochs.
    finetune_minutes: float | None = None
    #: The unpruned network's share in the loss.
    distillation: float = 0.5
    #: Steps in which the winner is pruned.
    iterations: int = 1
    #: Best trials that are measured again, then tuned and compared, at most.
    finalists: int = 3
    #: Of how many epochs of distillation the images differ (see `Distillation`); None: of all.
    rounds: int | None = None
    #: Of the winner's epochs or minutes each finalist gets.
    finalist_share: float = 0.2

    def baseline(self, seed: int, place: Place, taken: Taken) -> Regime:
        """How the unpruned network is trained."""
        return Regime(
            epochs=self.train_epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            seed=seed,
            augmentation=self.augmentation,
            place=place,
            taken=taken,
        )

    def finetuning(self, seed: int, place: Place, taken: Taken) -> Regime:
        """How a pruned network is tuned, for all epochs or minutes there are."""
        return Regime(
            epochs=self.finetune_epochs if self.finetune_minutes is None else None,
            minutes=self.finetune_minutes,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            seed=seed,
            weight_decay=FINETUNE_DECAY,
            augmentation=self.augmentation,
            place=place,
            taken=taken,
        )


@dataclass(frozen=True, slots=True)
class RankingSettings:
    """Which channels go first, whether readers are refitted, and how many images both look at."""

    criterion: CriterionName = "reconstruction"
    repair: bool = True
    images: int = 4000


@dataclass(frozen=True, slots=True)
class ScoringSettings:
    """How a candidate is scored: tuned for so many steps at a rate, on so many validation images."""

    steps: int
    learning_rate: float
    images: int
    #: The share of what is usual that such a network gets, since everything costs more with it.
    part: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Who searches, for how long, and what is rewarded."""

    method: MethodName
    #: Of the whole run; several bounds share them.
    episodes: int
    #: A bound's share of `EPISODES` is divided by this.
    part: int = 1
    credit: Credit = "episode"
    #: Weights in the reward of the rate, of measured latency and of memory.
    beta: float
    gamma: float
    delta: float
    #: The agent's; None: those of the method, or it has none.
    penalty: float | None = None
    learning_rate: float | None = None
    buffer_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A run's settings, by the stage that needs them; `options` has every option's value and reason.

    What the options mean nothing to (an agent's learning rate without an agent) is not among them, nor a bound that
    nobody asked for. What is found out by trying or measuring is decided by its own stage, and added by `prepare`: the
    task, the scaling of the inputs, where it is trained. The rate that is asked for where nothing is hangs on what is
    possible: `budget` of the result has it.
    """

    seed: int
    ranking: RankingSettings
    scoring: ScoringSettings
    search: SearchSettings
    schedule: Schedule
    options: Mapping[str, Setting] = field(default_factory=dict)

    def found(self, name: str, value: Any, why: str) -> Settled:
        """With what an option came to that was left open until now; one that was given stays as it is."""
        return self if name in self.options else replace(self, options={**self.options, name: Setting(value, why)})

    def told(self) -> dict[str, Setting]:
        """The options, in the order of their table."""
        return {each.name: self.options[each.name] for each in fields(RunConfig) if each.name in self.options}

    def without(self, name: str) -> Settled:
        """With an option left out that means nothing here."""
        return replace(self, options={key: each for key, each in self.options.items() if key != name})


def settle(config: RunConfig, facts: Facts) -> Settled:
    """Decide what `config` leaves open, by what is known of data, network and device."""
    options = _Options(config)
    settled = Settled(
        seed=config.seed,
        ranking=_ranking(config, options),
        scoring=_scoring(config, facts, options),
        search=_search(config, facts, options),
        schedule=_schedule(config, facts, options),
        options=options.found,
    )
    options.decide("prune_inputs", config.prune_inputs, bool(facts.inputs), _READERS[facts.inputs])
    if config.multiple_of is None:
        block = RUNTIMES[facts.runtime].block
        options.note("multiple_of", {"neurons": 1, "channels": block}, f"the block of {facts.runtime}")
    return settled


_READERS = {
    True: "a linear layer reads the whole input",
    False: "the layer that reads the whole input stays as it is",
    None: "no linear layer reads the whole input",
}


class _Options:
    """Decides one option after the other, and keeps why."""

    def __init__(self, config: RunConfig) -> None:
        plain = to_plain(config)
        #: By name; at first those that are not left open.
        self.found: dict[str, Setting] = {
            each.name: Setting(plain[each.name], DEFAULT if getattr(config, each.name) == each.default else GIVEN)
            for each in fields(RunConfig)
            if plain[each.name] not in (None, "auto") and each.name not in ELSEWHERE
        }

    def decide(self, name: str, given: T | None, otherwise: T, why: str) -> T:
        """What was given, else `otherwise`, for the reason `why`."""
        if given is not None:
            return given
        self.note(name, otherwise, why)
        return otherwise

    def note(self, name: str, value: Any, why: str) -> None:
        """Keep what an option that was left open came to."""
        self.found[name] = Setting(value, why)


def _kind(facts: Facts) -> str:
    return "convolutional network" if facts.convolves else "no convolutions"


def _ranking(config: RunConfig, options: _Options) -> RankingSettings:
    repair = options.decide("repair", config.repair, config.repairs, f"criterion {config.criterion}")
    return RankingSettings(config.criterion, repair, config.calibration_images)


def _scoring(config: RunConfig, facts: Facts, options: _Options) -> ScoringSettings:
    steps, images, part, why = STEPS, facts.validation, 1.0, _kind(facts)
    if facts.convolves:
        # Less is done where everything costs more: as the root of it, since the first steps and images tell most.
        part = min(max(math.sqrt(CONVOLVED_MACS / max(facts.macs, 1)), LEAST_PART), 1.0)
        steps, images = round(CONVOLVED_STEPS * part), min(images, round(CONVOLVED_IMAGES * part))
        why = f"{why} of {facts.macs / 1e6:.3g} million MACs"
    return ScoringSettings(
        steps=options.decide("search_steps", config.search_steps, steps, why),
        learning_rate=LEARNING_RATE * (1 if facts.convolves else FASTER),
        images=options.decide("search_images", config.search_images, images, why),
        part=part,
    )


def _search(config: RunConfig, facts: Facts, options: _Options) -> SearchSettings:
    method = make_method(config.method)
    part = CONVOLVED_PART if facts.convolves and config.episodes is None else 1
    credit: Credit = "episode"
    if method.credit == "step" and facts.groups <= STEP_CREDIT_UP_TO:
        credit = "step"
    if config.method == "acnn":
        credit = options.decide("credit", config.credit, credit, f"{facts.groups} groups")
    bounded = bool(config.bounded) and method.bound
    weight, why = (0.0, "a bound is given") if bounded else (1.0, "equation (3)")
    agent = {"edgeprune": OURS, "acnn": PAPER}.get(config.method)
    if agent is not None:
        options.decide("penalty", config.penalty, agent.penalty, config.method)
        options.decide("agent_lr", config.agent_lr, agent.learning_rate, config.method)
    if config.method == "acnn":
        options.decide("buffer_size", config.buffer_size, PAPER.buffer_size, config.method)
    return SearchSettings(
        method=config.method,
        episodes=options.decide("episodes", config.episodes, EPISODES // part, _kind(facts)),
        part=part,
        credit=credit,
        beta=options.decide("beta", config.beta, weight, why),
        gamma=options.decide("gamma", config.gamma, weight, why),
        delta=options.decide("delta", config.delta, weight, why),
        penalty=config.penalty,
        learning_rate=config.agent_lr,
        buffer_size=config.buffer_size,
    )


def _schedule(config: RunConfig, facts: Facts, options: _Options) -> Schedule:
    images, convolves, many = facts.images, facts.convolves, f"{facts.images} training images"
    # As many epochs as iterations is the least that is allowed.
    least = max(LEAST_EPOCHS, config.iterations)
    tuning = (
        min(MOST_EPOCHS, max(least, round(CONVOLVED_SEEN / images)))
        if convolves
        else min(60, max(30, round(1_500_000 / images)))
    )
    epochs = config.finetune_epochs
    if config.finetune_minutes is None:
        epochs = options.decide("finetune_epochs", epochs, tuning, f"{_kind(facts)}, {many}")
    augmentation = None
    if config.augmentation == "auto":
        why = f"inputs {written(facts.shape)}"
        if facts.moves:
            augmentation = Augmentation.fit(facts.shape, mirrors=facts.mirrors)
        else:
            why = "targets would have to move with the inputs"
        options.note("augmentation", to_json(augmentation) or "none", why)
    return Schedule(
        # About a million images in all, at least 20 and at most 60 times each.
        train_epochs=options.decide(
            "train_epochs", config.train_epochs, min(60, max(20, round(1_000_000 / images))), many
        ),
        finetune_epochs=tuning if epochs is None else epochs,
        finetune_minutes=config.finetune_minutes,
        batch_size=32 if images < 5000 else 128,
        learning_rate=LEARNING_RATE,
        temperature=options.decide("temperature", config.temperature, 3.0 if convolves else 1.0, _kind(facts)),
        distillation=config.distillation,
        iterations=config.iterations,
        finalists=config.finalists,
        rounds=ROUNDS if convolves else None,
        finalist_share=1 / 16 if convolves else 1 / 5,
        augmentation=augmentation,
    )
