"""Searches without an agent: what an agent must beat at an equal number of evaluations."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeprune.search.algorithm import OnEpisode, SearchResult
from edgeprune.search.environment import Environment, Episode, StopSearch, uniform_sparsity


def uniform(environment: Environment, *, episodes: int, seed: int, on_episode: OnEpisode) -> SearchResult:  # noqa: ARG001
    """One sparsity for all groups: `episodes` of them, evenly from the least that reaches the NCR asked for to 1."""
    first = uniform_sparsity(environment)
    plans = ([float(a)] * len(environment.groups) for a in np.linspace(first, 1.0, episodes, endpoint=False))
    return _each(environment, plans, on_episode)


def random(environment: Environment, *, episodes: int, seed: int, on_episode: OnEpisode) -> SearchResult:
    """Sparsities drawn evenly from [0, 1], narrowed together to the NCR asked for as every other method's are."""
    noise = np.random.default_rng(seed)
    plans = (noise.uniform(size=len(environment.groups)).tolist() for _ in range(episodes))
    return _each(environment, plans, on_episode)


def greedy(environment: Environment, *, episodes: int, seed: int, on_episode: OnEpisode) -> SearchResult:  # noqa: ARG001
    """NetAdapt's walk (Yang et al. 2018): in each round every group in turn gives up as many neurons as the round asks
    for, and the best of these plans by reward is where the next round begins.

    All rounds together use `episodes` evaluations and end at the NCR asked for: that settles how many neurons a round
    takes. Where no NCR is asked for it ends at half the neurons. A group at its floor is passed over.
    """
    groups = environment.groups
    channels = np.array([group.channels for group in groups])
    each = np.array([group.neurons_per_channel for group in groups])
    floors = np.array([group.floor for group in groups])
    width = channels.astype(float)
    ncr = environment.min_ncr or 2.0
    target = environment.neurons * (1 - 1 / ncr)
    count, ran, stopped = max(1, episodes // len(groups)), 0, ""
    try:
        for round_ in range(count):
            gone = float(((channels - width) * each).sum())
            take = max(target * (round_ + 1) / count - gone, 1.0)
            found: list[tuple[float, int, Episode]] = []
            for index in range(len(groups)):
                tried = width.copy()
                tried[index] = max(tried[index] - np.ceil(take / each[index]), floors[index])
                if tried[index] == width[index] or ran >= episodes:
                    continue
                episode = environment.carry_out((1 - tried / channels).tolist(), narrow=False)
                on_episode(ran, episode)
                ran += 1
                found.append((episode.reward, -index, episode))
            if not found:
                break
            width = channels * (1 - np.array(max(found)[2].executed))
    except StopSearch as stop:
        stopped = str(stop)
    return SearchResult(ran, stopped=stopped)


def _each(environment: Environment, plans: Iterable[list[float]], on_episode: OnEpisode) -> SearchResult:
    ran = 0
    try:
        for index, plan in enumerate(plans):
            on_episode(index, environment.carry_out(plan))
            ran = index + 1
    except StopSearch as stop:
        return SearchResult(ran, stopped=str(stop))
    return SearchResult(ran)
