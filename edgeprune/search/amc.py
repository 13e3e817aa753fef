"""AMC (He et al. 2018): DDPG without proximal step, within a budget, the final reward copied to every step."""

from __future__ import annotations

from collections import deque

import numpy as np

from edgeprune.search.algorithm import around, walk
from edgeprune.search.ddpg import AgentSettings, ProximalDDPG, transitions
from edgeprune.search.drive import Searching, SearchResult
from edgeprune.search.environment import Environment, Episode
from edgeprune.search.states import State

#: The paper's: no discount, targets follow by 1 %, the critic learns faster than the actor, batches of 64 from a memory
#: of 2000 steps, noise 0.5 that falls exponentially after a quarter of the episodes, layers of 300 neurons.
SETTINGS = AgentSettings(
    learning_rate=1e-3, actor_learning_rate=1e-4, penalty=0.0, discount=1.0, tau=0.01, hidden=300, minibatch=64
)
MEMORY = 2000
WARM_UP = 0.25
NOISE, NOISE_LAST = 0.5, 0.01
#: Weight of the newest reward in the moving average that is taken off (its baseline b).
BASELINE = 0.05


def amc(environment: Environment, *, episodes: int, seed: int) -> Searching:
    """AMC's search. It hears of each episode before it proposes the next.

    Left open or changed: the budget is the NCR asked for, not FLOPs; of its 400 episodes' schedule the proportions are
    kept; it learns once for every step of an episode.
    """
    agent = ProximalDDPG(SETTINGS, seed, environment.states.size)
    noise = np.random.default_rng(seed)
    # MEMORY counts steps, of which an episode has one per group.
    memory: deque[Episode] = deque(maxlen=max(1, MEMORY // len(environment.groups)))
    losses: list[tuple[float, float]] = []
    baseline: float | None = None
    warm_up = int(WARM_UP * episodes)
    decay = (NOISE_LAST / NOISE) ** (1 / max(episodes - warm_up, 1))
    for index in range(episodes):
        sigma = NOISE * decay ** max(index - warm_up, 0)
        done: list[float] = []

        def act(
            step: int,
            state: State,
            sigma: float = sigma,
            explore: bool = index < warm_up,
            done: list[float] = done,
        ) -> float:
            proposed = float(noise.uniform()) if explore else float(around(agent.act(state), sigma, noise))
            done.append(bounded(environment, step, proposed, done))
            return done[-1]

        heard = yield walk(environment, act)
        if heard is None:
            break
        memory.extend(heard)
        for episode in heard:
            baseline = episode.reward if baseline is None else baseline + BASELINE * (episode.reward - baseline)
        if baseline is not None and index >= warm_up:
            losses.append(_learn(agent, memory, baseline, noise))
    return SearchResult(warm_up=warm_up, agent_sparsity=agent.sparsity, losses=tuple(losses))


def bounded(environment: Environment, step: int, sparsity: float, done: list[float]) -> float:
    """AMC's Algorithm 1: at least so sparse that the groups behind, at their floors, can still reach the budget."""
    if environment.min_ncr is None:
        return sparsity
    groups = environment.groups
    must_go = environment.neurons * (1 - 1 / environment.min_ncr)
    must_go -= sum(a * g.channels * g.neurons_per_channel for a, g in zip(done, groups, strict=False))
    must_go -= sum((g.channels - g.least) * g.neurons_per_channel for g in groups[step + 1 :])
    group = groups[step]
    least = must_go / (group.channels * group.neurons_per_channel)
    return float(min(max(sparsity, least, 0.0), 1 - group.least / group.channels))


def _learn(
    agent: ProximalDDPG, memory: deque[Episode], baseline: float, noise: np.random.Generator
) -> tuple[float, float]:
    episodes = list(memory)
    rows = transitions(episodes, np.array([episode.rewards for episode in episodes]) - baseline)
    losses = []
    for _ in range(len(episodes[0].executed)):
        losses.append(agent.update(rows.take(noise.integers(len(rows.r), size=agent.settings.minibatch))))
    critic, actor = np.mean(losses, axis=0)
    return float(critic), float(actor)
