"""Of `result.json`: how the search went, and what was possible at best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeprune.core.kinds import Unit
from edgeprune.core.runtimes import Precision
from edgeprune.pipeline.records.figures import Count, Ends
from edgeprune.search.costs import Fit
from edgeprune.search.reward import BoundedReward, Reward

AgentName = Literal["proximal-ddpg", "ddpg"]


@dataclass(frozen=True, slots=True)
class Reference:
    """The unpruned network on the device, to which relative bounds refer: seconds (or instructions), bytes, bytes."""

    latency: float
    memory: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Possible:
    """What the narrowest allowed networks cost, beside the unpruned one: nothing better can be asked for."""

    ncr: float
    #: Shares of the unpruned network's; latency of the fastest, which may have whole blocks of channels.
    latency_share: float
    memory_share: float
    reference: Reference
    smallest_bytes: int
    #: What `reference.latency` is given in.
    unit: Unit = "s"


@dataclass(frozen=True, slots=True)
class MeanReward:
    """Of the trials that were drawn, and of the last quarter of all."""

    warm_up: float
    last_quarter: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What a precision costs with the unpruned network, and whether it was searched for, of `--precision auto`.

    The shares, of the unpruned float32 file's, are None where there is no such file, or it was not measured.
    """

    precision: Precision
    latency_share: float | None = None
    #: The 95 % interval of that.
    interval: Ends | None = None
    memory_share: float | None = None
    bytes_share: float | None = None
    #: On validation, by the host's runtime: points, or percent of an error.
    lost: float | None = None
    #: Why it was not searched for; "" where it was.
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Searched:
    """How a search went."""

    method: str
    #: None: a search without one.
    agent: AgentName | None
    credit: Literal["episode", "step"]
    criterion: str
    episodes: Count
    converged: bool
    #: Why it ended early; "" where it did not.
    stopped: str
    #: Of the search, evaluations included, and of the device in it.
    seconds: float
    device_seconds: float
    #: Plans that were measured, that were known from before, and that failed.
    measured: Count
    cache_hits: Count
    failures: Count
    candidates: Literal["sliced", "exported"]
    #: Share of exactly zero weights of the agent; None where there is none.
    agent_sparsity: float | None
    #: Episodes at the start that were drawn.
    warm_up_episodes: Count
    mean_reward: MeanReward
    #: (critic, actor) per time of learning.
    losses: tuple[tuple[float, float], ...]
    reward: Reward | BoundedReward
    #: Of `--precision auto`; else empty.
    precisions: tuple[Weighed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(_Searched):
    """A search in which nothing was bounded."""

    #: The score up to which a trial is not told from guessing, and how many trials are not.
    chance_level: float
    at_chance: Count
    #: The one whose network ships.
    best_trial: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedSearch(_Searched):
    """A search within bounds."""

    #: For each of latency, memory and bytes that is bounded, how far predictions of plans left out were off.
    cost_model: Mapping[str, Fit]
    #: As in `Search`.
    chance_level: float
    at_chance: Count
    best_trial: Count
