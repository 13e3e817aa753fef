"""Algorithm 1 of [ACNN]: episodes fill the pool, the pool teaches the agent, until the losses have settled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import truncnorm

from edgeprune.search.ddpg import AgentSettings, ProximalDDPG, sparsity
from edgeprune.search.environment import Environment, Episode, State, StopSearch

#: Share of the episodes that act at random first: a pool of one policy's neighbours teaches the critic nothing.
WARM_UP = 0.25
#: Exploration: standard deviation of the truncated normal around the actor's proposal, first and last.
NOISE_FIRST, NOISE_LAST = 0.4, 0.05
#: The losses have settled when their means over this many pools differ by less than `SETTLED` of the larger one.
WINDOW, SETTLED = 3, 0.1


@dataclass(frozen=True, slots=True)
class SearchResult:
    """How the search ended. `losses` holds (critic, actor) per filled pool."""

    episodes: int
    converged: bool
    #: Episodes at the start that acted at random.
    warm_up: int
    agent_sparsity: float
    losses: tuple[tuple[float, float], ...]
    #: Why it ended before its time; "" where it did not.
    stopped: str = ""


def search(
    environment: Environment,
    settings: AgentSettings,
    *,
    episodes: int,
    seed: int,
    on_episode: Callable[[int, Episode], None],
) -> SearchResult:
    """Run at most `episodes` episodes; `on_episode(index, episode)` hears of each. Fully determined by `seed` and the
    environment's answers. A StopSearch of `evaluate` ends it with the episodes before.
    """
    agent = ProximalDDPG(settings, seed)
    noise = np.random.default_rng(seed)
    losses: list[tuple[float, float]] = []
    ran, converged, stopped = 0, False, ""
    for index in range(episodes):
        # Noise falls geometrically over the episodes that follow the warm-up.
        start = int(WARM_UP * episodes)
        sigma = NOISE_FIRST * (NOISE_LAST / NOISE_FIRST) ** (max(index - start, 0) / max(episodes - 1 - start, 1))

        def act(step: int, state: State, sigma: float = sigma, explore: bool = index < start) -> float:  # noqa: ARG001
            if explore:
                return float(noise.uniform())
            mean = agent.act(state)
            low, high = (0.0 - mean) / sigma, (1.0 - mean) / sigma
            return float(truncnorm.rvs(low, high, loc=mean, scale=sigma, random_state=noise))

        try:
            episode = environment.run(act)
        except StopSearch as stop:
            stopped = str(stop)
            break
        agent.remember(episode)
        ran = index + 1
        on_episode(index, episode)
        if agent.ready:
            losses.append(agent.learn())
            # Settling only counts once exploration is mostly over: early on the losses are flat because Q is.
            if _settled(losses) and index >= episodes // 2:
                converged = True
                break
    warm_up = min(int(WARM_UP * episodes), ran)
    return SearchResult(ran, converged, warm_up, sparsity(agent.actor, agent.critic), tuple(losses), stopped)


def _settled(losses: list[tuple[float, float]]) -> bool:
    if len(losses) < 2 * WINDOW:
        return False
    old = np.mean(losses[-2 * WINDOW : -WINDOW], axis=0)
    new = np.mean(losses[-WINDOW:], axis=0)
    return bool(np.all(np.abs(new - old) <= SETTLED * np.maximum(np.abs(old), np.abs(new))))
