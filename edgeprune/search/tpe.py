"""A tree-structured Parzen estimator (Bergstra et al. 2011) as Optuna has it, for comparison: a search without an agent
that learns from its trials.
"""

from __future__ import annotations

from collections import deque

from edgeprune.search.drive import Searching, SearchResult
from edgeprune.search.environment import Environment, Proposal


def tpe(environment: Environment, *, episodes: int, seed: int) -> Searching:
    """Optuna's sampler, as it comes, proposes sparsities, one per group, and is told the rewards.

    Its proposals are brought to the bounds as every other method's are. Optuna is no dependency: ImportError where it
    is not installed.
    """
    import optuna  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges = {
        group.name: optuna.distributions.FloatDistribution(0.0, 1.0 - group.least / group.channels)
        for group in environment.groups
    }
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    underway: deque[optuna.trial.Trial] = deque()
    for _ in range(episodes):
        trial = study.ask(ranges)
        underway.append(trial)
        heard = yield Proposal(tuple(trial.params[name] for name in ranges))
        if heard is None:
            break
        for episode in heard:
            study.tell(underway.popleft(), episode.reward)
    return SearchResult()
