"""Proximal DDPG: the agent of [ACNN], equations (4)-(13).

| name | shape | |
|---|---|---|
| `s` | (B, D) | states |
| `a` | (B, 1) | executed sparsity in [0, 1] |
| `r` | (B, 1) | rewards, centred by whoever calls |
| `s2`, `done` | (B, D), (B, 1) | next states; 1 where the episode ended |
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.errors import UsageError
from edgeprune.search.environment import Episode


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Hyperparameters; what the papers leave open is ours."""

    learning_rate: float
    #: Lambda of (5) and (6): weight of the L1 penalty, applied by the proximal step. 0: plain DDPG.
    penalty: float
    #: The actor's; None: the critic's.
    actor_learning_rate: float | None = None
    #: Gamma of (5).
    discount: float = 0.9
    #: Tau of (12) and (13).
    tau: float = 0.05
    hidden: int = 128
    #: Transitions the pool holds before the agent learns from it.
    buffer_size: int = 48
    minibatch: int = 16
    #: How often each full pool is gone through.
    passes: int = 24
    #: Adam's. Where it is large, a gradient that is only noise is not blown up to a full step, and the soft threshold
    #: wins over it; rewards must be of about unit spread then, or it wins over everything.
    epsilon: float = 1e-8


class Transitions(NamedTuple):
    """Rows of experience: float32 tensors as the module's table says."""

    s: Tensor
    a: Tensor
    r: Tensor
    s2: Tensor
    done: Tensor

    def take(self, index: npt.NDArray[np.int64]) -> Transitions:
        """The rows of `index`."""
        rows = torch.from_numpy(index)
        return Transitions(*(column[rows] for column in self))


def transitions(episodes: list[Episode], rewards: npt.NDArray[np.float64]) -> Transitions:
    """The steps of whole episodes; `rewards` (episodes, T) instead of their own, which are not centred."""
    steps = len(episodes[0].executed)
    done = np.zeros((len(episodes), steps), dtype=np.float32)
    done[:, -1] = 1.0
    columns = (
        np.concatenate([episode.states[:-1] for episode in episodes]),
        np.concatenate([episode.executed for episode in episodes])[:, None],
        rewards.reshape(-1, 1),
        np.concatenate([episode.states[1:] for episode in episodes]),
        done.reshape(-1, 1),
    )
    return Transitions(*(torch.from_numpy(np.asarray(column, dtype=np.float32)) for column in columns))


def _mlp(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    )


def soft_threshold(network: nn.Module, threshold: float) -> None:
    """(10)/(11) in place: x <- sign(x) max(|x| - threshold, 0), on weights; small ones become exactly zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(F.softshrink(parameter, threshold))


def sparsity(*networks: nn.Module) -> float:
    """Share of exactly zero parameters ("DRL sparsity" of the paper)."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return sum(int((p == 0).sum()) for p in parameters) / sum(p.numel() for p in parameters)


class ProximalDDPG:
    """Actor mu and critic Q with target copies, trained by gradient steps and soft thresholds.

    `inputs` is the length D of a state. `prices` makes K more numbers for the critic to look at, of states (B, D) and
    actions (B, 1).
    """

    def __init__(
        self,
        settings: AgentSettings,
        seed: int,
        inputs: int = 4,
        prices: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.settings = settings
        self._updates = 0
        self._prices = prices
        more = 0 if prices is None else prices(torch.zeros(1, inputs), torch.zeros(1, 1)).shape[1]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.actor = _mlp(inputs, settings.hidden)
            self.critic = _mlp(inputs + 1 + more, settings.hidden)
        self.target_actor, self.target_critic = deepcopy(self.actor), deepcopy(self.critic)
        # (8) and (9) take the gradient step; Adam scales it, so that one penalty suits every reward scale.
        self._actor_rate = settings.actor_learning_rate or settings.learning_rate
        self._actor_step, self._critic_step = (
            torch.optim.Adam(network.parameters(), lr=rate, eps=settings.epsilon, fused=True)
            for network, rate in ((self.actor, self._actor_rate), (self.critic, settings.learning_rate))
        )

    def act(self, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """mu(s): the sparsities (...) that the actor proposes, in [0, 1], for states (..., D)."""
        with torch.no_grad():
            proposed = torch.sigmoid(self.actor(torch.from_numpy(states)))[..., 0]
        self._check(proposed, "actor's proposal")
        sparsities: npt.NDArray[np.float32] = proposed.numpy()
        return sparsities

    def value(self, states: npt.NDArray[np.float32], actions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Q(s, a) of states (B, D) and actions (B,): (B,)."""
        with torch.no_grad():
            q = self._q(self.critic, torch.from_numpy(states), torch.from_numpy(actions)[:, None])
        self._check(q, "critic's estimate")
        value: npt.NDArray[np.float32] = q[:, 0].numpy()
        return value

    def _q(self, critic: nn.Module, s: Tensor, a: Tensor) -> Tensor:
        columns = [s, a] if self._prices is None else [s, a, self._prices(s, a)]
        q: Tensor = critic(torch.cat(columns, 1))
        return q

    @property
    def sparsity(self) -> float:
        """Share of exactly zero parameters of actor and critic."""
        return sparsity(self.actor, self.critic)

    def update(self, batch: Transitions, share: float = 1.0) -> tuple[float, float]:
        """One step of critic, actor and targets, with a `share` of the penalty. Returns critic's and actor's loss.

        Raises UsageError where either is not finite.
        """
        self._updates += 1
        k, (s, a, r, s2, done) = self.settings, batch
        with torch.no_grad():
            a2 = torch.sigmoid(self.target_actor(s2))
            y = r + k.discount * (1 - done) * self._q(self.target_critic, s2, a2)
        # (5)/(7): the critic's smooth loss, (9) its gradient step, (11) its soft threshold.
        critic_loss = F.mse_loss(self._q(self.critic, s, a), y)
        self._check(critic_loss, "critic's loss")
        self._step(self._critic_step, self.critic, critic_loss, k.learning_rate, share)
        # (4)/(6): the actor ascends Q, (8) its gradient step, (10) its soft threshold.
        actor_loss = -self._q(self.critic, s, torch.sigmoid(self.actor(s))).mean()
        self._check(actor_loss, "actor's loss")
        self._step(self._actor_step, self.actor, actor_loss, self._actor_rate, share)
        for target, source in ((self.target_actor, self.actor), (self.target_critic, self.critic)):
            with torch.no_grad():
                # (12)/(13)
                for old, new in zip(target.parameters(), source.parameters(), strict=True):
                    old.lerp_(new, k.tau)
        return float(critic_loss.detach()), float(actor_loss.detach())

    def _check(self, figures: Tensor, what: str) -> None:
        """Raises UsageError at the first figure that is not finite: all that would follow from it means nothing."""
        if not torch.isfinite(figures).all():
            raise UsageError(
                f"the search's agent diverged: the {what} is not finite after {self._updates:,} updates, at a learning "
                f"rate of {self.settings.learning_rate:g}",
                "give a smaller --agent-lr, or leave it out",
            )

    def _step(
        self, optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor, rate: float, share: float
    ) -> None:
        parameters = list(network.parameters())
        # The actor's loss goes through the critic, whose own gradients nobody needs then.
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        if self.settings.penalty:
            soft_threshold(network, share * self.settings.penalty * rate)
