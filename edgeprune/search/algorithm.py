"""What every search gives back, and Algorithm 1 of [ACNN]: episodes fill the pool, the pool teaches the agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from edgeprune.search.ddpg import AgentSettings, ProximalDDPG, transitions
from edgeprune.search.environment import Environment, Episode, StopSearch
from edgeprune.search.states import State

#: Share of the episodes that act at random first: a pool of one policy's neighbours teaches the critic nothing.
WARM_UP = 0.25
#: Exploration: standard deviation of the truncated normal around the actor's proposal, first and last.
NOISE_FIRST, NOISE_LAST = 0.4, 0.05
#: The losses have settled when their means over this many pools differ by less than `SETTLED` of the larger one.
WINDOW, SETTLED = 3, 0.1

Floats = npt.NDArray[np.float64]
OnEpisode = Callable[[int, Episode], None]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """How the search ended. `losses` holds (critic, actor) per time of learning."""

    episodes: int
    converged: bool = False
    #: Episodes at the start in which the agent had no say.
    warm_up: int = 0
    #: Share of exactly zero weights of the agent; None where there is none.
    agent_sparsity: float | None = None
    losses: tuple[tuple[float, float], ...] = ()
    #: Why it ended before its time; "" where it did not.
    stopped: str = ""


def around(mean: npt.NDArray[np.floating[Any]], sigma: float, noise: np.random.Generator) -> Floats:
    """Draws from normals around each `mean`, truncated to [0, 1] (AMC's exploration), by inverting the distribution."""
    low, high = ndtr((0.0 - mean) / sigma), ndtr((1.0 - mean) / sigma)
    drawn: Floats = np.clip(mean + sigma * ndtri(low + (high - low) * noise.uniform(size=np.shape(mean))), 0.0, 1.0)
    return drawn


def acnn(
    environment: Environment, settings: AgentSettings, *, episodes: int, seed: int, on_episode: OnEpisode
) -> SearchResult:
    """Algorithm 1: at most `episodes` episodes; `on_episode(index, episode)` hears of each.

    Fully determined by `seed` and the environment's answers. A StopSearch of `evaluate` ends it with the episodes
    before.

    The paper gives lambda's effect (96 % zeros), the learning rate and Algorithm 1. Left open, and ours: exploration (a
    first quarter acts at random, then truncated normal noise that falls geometrically); discount, tau and the sizes of
    networks, pool and minibatch (`AgentSettings`); Adam scales the steps of (8) and (9); each pool is gone through
    24 times, not once; rewards are centred; (10) and (11) spare
    biases; losses count as converged after half of the episodes at the earliest, once exploration is mostly over.
    """
    agent = ProximalDDPG(settings, seed, environment.states.size)
    noise, shuffling = np.random.default_rng(seed).spawn(2)
    losses: list[tuple[float, float]] = []
    pool: list[Episode] = []
    mean, seen = 0.0, 0
    ran, converged, stopped = 0, False, ""
    start = int(WARM_UP * episodes)
    for index in range(episodes):
        sigma = NOISE_FIRST * (NOISE_LAST / NOISE_FIRST) ** (max(index - start, 0) / max(episodes - 1 - start, 1))

        def act(step: int, state: State, sigma: float = sigma, explore: bool = index < start) -> float:  # noqa: ARG001
            return float(noise.uniform()) if explore else float(around(agent.act(state), sigma, noise))

        try:
            episode = environment.run(act)
        except StopSearch as stop:
            stopped = str(stop)
            break
        pool.append(episode)
        for reward in episode.rewards:
            seen += 1
            mean += (reward - mean) / seen
        ran = index + 1
        on_episode(index, episode)
        if sum(len(one.executed) for one in pool) >= settings.buffer_size:
            losses.append(_learn(agent, pool, mean, shuffling))
            pool.clear()
            # Settling only counts once exploration is mostly over: early on the losses are flat because Q is.
            if _settled(losses) and index >= episodes // 2:
                converged = True
                break
    return SearchResult(ran, converged, min(start, ran), agent.sparsity, tuple(losses), stopped)


def _learn(
    agent: ProximalDDPG, pool: list[Episode], mean: float, shuffling: np.random.Generator
) -> tuple[float, float]:
    """Algorithm 1's inner loop over the pool. Returns mean critic and actor loss."""
    # Centred rewards: the critic spends its few steps on differences, not on the common level.
    rows = transitions(pool, np.array([episode.rewards for episode in pool]) - mean)
    losses = []
    for _ in range(agent.settings.passes):
        order = shuffling.permutation(len(rows.r))
        for start in range(0, len(order), agent.settings.minibatch):
            index = order[start : start + agent.settings.minibatch]
            losses.append(agent.update(rows.take(index)))
    critic, actor = np.mean(losses, axis=0)
    return float(critic), float(actor)


def _settled(losses: list[tuple[float, float]]) -> bool:
    if len(losses) < 2 * WINDOW:
        return False
    old = np.mean(losses[-2 * WINDOW : -WINDOW], axis=0)
    new = np.mean(losses[-WINDOW:], axis=0)
    return bool(np.all(np.abs(new - old) <= SETTLED * np.maximum(np.abs(old), np.abs(new))))
