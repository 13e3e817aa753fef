"""Our search: a proximal agent that starts from what the data says and learns from every plan it evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import rankdata

from edgeprune.search.algorithm import Floats, around
from edgeprune.search.ddpg import AgentSettings, ProximalDDPG, transitions
from edgeprune.search.drive import Searching, SearchResult
from edgeprune.search.environment import Environment, Episode, Proposal, uniform_sparsity
from edgeprune.search.least_loss import LeastLoss, learnt_times, of_least_loss_at
from edgeprune.search.states import SensitiveStates

#: Share of the episodes that are drawn around the first plans before the agent has a say.
WARM_UP = 0.15
#: Every so many episodes the plan of equal loss is asked for again: by then more is known of costs, most of all where
#: the last such plan turned out dearer, or cheaper, than was thought.
AGAIN = 3
#: Spread of proposals around the actor's and the best plans, drawn anew for every episode between these bounds, small
#: ones as often as large ones: it never collapses, and a good region far off is still found late.
SPREAD_LEAST, SPREAD_MOST = 0.008, 0.3
#: Proposals per episode, of which the critic picks the one that is carried out. More would only be more chances for
#: what it is wrong about.
PROPOSALS = 12
#: Share of the episodes that carry out any of the proposals, so that the critic's errors are found out.
CURIOUS = 0.1
#: The penalty grows with this power of the share of episodes done: few plans do not tell which weights matter, and what
#: the search still needs is not yet to go.
RAMP = 6
#: Mean rank of the plans that proposals are drawn around (geometrically distributed: the best most often).
MEAN_RANK = 4
#: Share of a bound up to which a plan of an earlier search lies near enough to learn from. One made for another bound
#: breaks this one, or wastes it, and its rank says little but that: with half of its plans such, a critic told nothing
#: about where the rest is good, and proposals went to the extremes.
NEAR = 0.15


def edgeprune(environment: Environment, settings: AgentSettings, *, episodes: int, seed: int) -> Searching:
    """At most `episodes` episodes, one evaluation each; it also learns from `earlier` ones that lie near its bounds.

    The agent is [ACNN]'s: DDPG by proximal steps, (4)-(13). What is ours: it sees cost and sensitivity of the groups
    and what was done before (`SensitiveStates`); only the finished plan is rewarded; the experience is never cleared,
    since a plan is worth its reward whoever proposed it; the first plans are those that the sensitivities suggest; and
    the critic picks among some proposals, around the actor's and around the best plans, the one to evaluate.

    Fully determined by `seed` and the environment's answers.
    """
    noise = np.random.default_rng(seed)
    # The reward comes at the end of a walk: a later step's worth is an earlier one's in full.
    settings = replace(settings, discount=1.0)
    agent = ProximalDDPG(settings, seed, environment.states.size, SensitiveStates.prices)
    warm_up = min(episodes, max(4, int(WARM_UP * episodes)))
    found: list[Episode] = [e for e in environment.earlier if abs(environment.missing(e.candidate.plan.widths)) <= NEAR]
    losses: list[tuple[float, float]] = []
    for index in range(episodes):
        spread = SPREAD_MOST * (SPREAD_LEAST / SPREAD_MOST) ** noise.uniform()
        if index == 1:
            proposed = [uniform_sparsity(environment)] * len(environment.groups)
        elif index < warm_up:
            proposed = _first(environment, noise)
        elif index % AGAIN == 0 and (again := _replanned(environment, found)) is not None:
            proposed = again
        else:
            losses.append(_learn(agent, found, (index / episodes) ** RAMP, noise))
            proposed = _propose(environment, agent, found, spread, noise)
        heard = yield Proposal(tuple(proposed))
        if heard is None:
            break
        found += heard
    return SearchResult(warm_up=warm_up, agent_sparsity=agent.sparsity, losses=tuple(losses))


def _first(environment: Environment, noise: np.random.Generator) -> list[float]:
    """A plan from what the data say: the one of equal loss by what costs are known to be by now, or one around it."""
    best = equal_loss(environment)
    if environment.is_new(environment.widths(best)):
        return best
    base = best if noise.uniform() < 0.7 else noise.uniform(size=len(environment.groups)).tolist()
    found: list[float] = around(np.array(base), SPREAD_MOST / 2, noise).tolist()
    return found


def _replanned(environment: Environment, found: Sequence[Episode]) -> list[float] | None:
    """The plan of equal loss, where losses add up and costs have been learnt that make it a new one."""
    if environment.frontier is None or not _seen(environment).additive:
        return None
    best = equal_loss(environment, found)
    return best if environment.is_new(environment.widths(best)) else None


def equal_loss(environment: Environment, found: Sequence[Episode] = ()) -> list[float]:
    """The sparsities of the plan that is predicted to lose least of those that are just enough (`LeastLoss`)."""
    states = _seen(environment)
    if environment.frontier is not None:
        times: tuple[float, ...] = ()
        if states.additive:
            plans = [episode.candidate.plan.widths for episode in found]
            times = learnt_times(environment.groups, states, plans, [each.candidate.accuracy for each in found])
        least = environment.frontier.least()
        widths = LeastLoss(environment.groups, states, environment.missing, times, least).plan()
    else:
        widths = of_least_loss_at(environment.groups, states, environment.ncr, environment.min_ncr or 2.0)
    return list(environment.executed(widths))


def _seen(environment: Environment) -> SensitiveStates:
    states = environment.states
    assert isinstance(states, SensitiveStates)
    return states


def _learn(agent: ProximalDDPG, found: list[Episode], share: float, noise: np.random.Generator) -> tuple[float, float]:
    """Learn from every plan so far (off-policy): each was worth its reward whoever proposed it."""
    # Rewards count by their rank (as normal scores): else the few terrible plans drown what tells good ones apart.
    ranks = rankdata([episode.reward for episode in found])
    rewards = np.zeros((len(found), len(found[0].executed)))
    rewards[:, -1] = ndtri((ranks - 0.5) / len(found))
    rows = transitions(found, rewards)
    losses = []
    for _ in range(agent.settings.passes):
        index = noise.integers(len(rows.r), size=min(len(rows.r), agent.settings.minibatch))
        losses.append(agent.update(rows.take(index), share))
    critic, actor = np.mean(losses, axis=0)
    return float(critic), float(actor)


def _propose(
    environment: Environment,
    agent: ProximalDDPG,
    found: list[Episode],
    spread: float,
    noise: np.random.Generator,
) -> list[float]:
    """Of some proposals the one the critic thinks best: around the actor's and around the best plans so far."""
    third = PROPOSALS // 3
    best = np.array([e.executed for e in sorted(found, key=lambda episode: -episode.reward)])
    near = best[np.minimum(noise.geometric(1 / MEAN_RANK, size=2 * third), len(best)) - 1]
    moved = np.concatenate([around(near[:third], spread, noise), _exchanged(environment, near[third:], spread, noise)])
    own = np.concatenate([_actors(environment, agent, third, spread, noise), moved])
    plans: dict[tuple[float, ...], list[float]] = {}
    for row in own:
        widths = environment.widths(row)
        if environment.is_new(widths):
            plans[environment.executed(widths)] = row.tolist()
    executed = list(plans)
    if not executed:
        # The environment takes the nearest new one.
        return best[0].tolist()  # type: ignore[no-any-return]
    if noise.uniform() < CURIOUS:
        return plans[executed[int(noise.integers(len(executed)))]]
    worth = _worth(environment, agent, executed)
    # A critic of few weights thinks many alike.
    return plans[executed[int(noise.choice(np.flatnonzero(worth == worth.max())))]]


def _exchanged(environment: Environment, plans: Floats, spread: float, noise: np.random.Generator) -> Floats:
    """Plans (N, T) in which one group gives up as many neurons as another gets back: the rate stays as it is."""
    if plans.shape[1] < 2:
        return around(plans, spread, noise)
    neurons = np.array([group.channels * group.neurons_per_channel for group in environment.groups])
    moved = plans.copy()
    for row in moved:
        giver, taker = noise.permutation(len(neurons))[:2]
        count = abs(noise.normal()) * spread * min(neurons[giver], neurons[taker])
        # No more than the one has and the other can take.
        count = min(count, row[taker] * neurons[taker], (1 - row[giver]) * neurons[giver])
        row[giver] += count / neurons[giver]
        row[taker] -= count / neurons[taker]
    return moved


def _actors(
    environment: Environment, agent: ProximalDDPG, count: int, spread: float, noise: np.random.Generator
) -> Floats:
    """Walks of the actor, (count, T): the first as it would, the others with noise in every step."""
    walks = np.zeros((count, 0))
    for step in range(len(environment.groups)):
        states = np.stack([environment.states.row(step, walk) for walk in walks.tolist()])
        means = agent.act(states).astype(np.float64)
        walks = np.column_stack([walks, np.concatenate([means[:1], around(means[1:], spread, noise)])])
    return walks


def _worth(environment: Environment, agent: ProximalDDPG, executed: list[tuple[float, ...]]) -> npt.NDArray[np.float32]:
    """Q of the last step, whose state tells of those before: the critic's word on whole plans. (plans,)"""
    states = np.stack([environment.states.row(len(done) - 1, done) for done in executed])
    return agent.value(states, np.array([done[-1] for done in executed], dtype=np.float32))
