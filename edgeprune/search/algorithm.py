"""Algorithm 1 of [ACNN]: episodes fill the pool, the pool teaches the agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from edgeprune.search.ddpg import AgentSettings, ProximalDDPG, transitions
from edgeprune.search.drive import Searching, SearchResult
from edgeprune.search.environment import Environment, Episode, Proposal
from edgeprune.search.states import State

#: Share of the episodes that act at random first: a pool of one policy's neighbours teaches the critic nothing.
WARM_UP = 0.25
#: Exploration: standard deviation of the truncated normal around the actor's proposal, first and last.
NOISE_FIRST, NOISE_LAST = 0.4, 0.05
#: The losses have settled when their means over this many pools differ by less than `SETTLED` of the larger one.
WINDOW, SETTLED = 3, 0.1

Floats = npt.NDArray[np.float64]
#: What an agent does at a step, seeing the state.
Act = Callable[[int, State], float]


def around(mean: npt.NDArray[np.floating[Any]], sigma: float, noise: np.random.Generator) -> Floats:
    """Draws from normals around each `mean`, truncated to [0, 1] (AMC's exploration), by inverting the distribution."""
    low, high = ndtr((0.0 - mean) / sigma), ndtr((1.0 - mean) / sigma)
    drawn: Floats = np.clip(mean + sigma * ndtri(low + (high - low) * noise.uniform(size=np.shape(mean))), 0.0, 1.0)
    return drawn


def walk(environment: Environment, act: Act) -> Proposal:
    """Walk all groups; `act(step, state)` proposes the sparsity of each, seeing the proposals before it."""
    proposed: list[float] = []
    for step in range(len(environment.groups)):
        proposed.append(float(act(step, environment.states.row(step, proposed))))
    return Proposal(tuple(proposed))


def acnn(environment: Environment, settings: AgentSettings, *, episodes: int, seed: int) -> Searching:
    """Algorithm 1: at most `episodes` episodes. It hears of each before it proposes the next.

    Fully determined by `seed` and the environment's answers.

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
    converged = False
    start = int(WARM_UP * episodes)
    for index in range(episodes):
        sigma = NOISE_FIRST * (NOISE_LAST / NOISE_FIRST) ** (max(index - start, 0) / max(episodes - 1 - start, 1))

        def act(step: int, state: State, sigma: float = sigma, explore: bool = index < start) -> float:  # noqa: ARG001
            return float(noise.uniform()) if explore else float(around(agent.act(state), sigma, noise))

        heard = yield walk(environment, act)
        if heard is None:
            break
        pool += heard
        for reward in (reward for episode in heard for reward in episode.rewards):
            seen += 1
            mean += (reward - mean) / seen
        if sum(len(one.executed) for one in pool) >= settings.buffer_size:
            losses.append(_learn(agent, pool, mean, shuffling))
            pool.clear()
            # Settling only counts once exploration is mostly over: early on the losses are flat because Q is.
            if _settled(losses) and index >= episodes // 2:
                converged = True
                break
    return SearchResult(converged=converged, warm_up=start, agent_sparsity=agent.sparsity, losses=tuple(losses))


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
