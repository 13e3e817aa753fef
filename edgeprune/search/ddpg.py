"""Proximal DDPG: the agent of [ACNN], equations (4)-(13).

| name | shape | |
|---|---|---|
| `s` | (B, 4) | states |
| `a` | (B, 1) | executed sparsity in [0, 1] |
| `r` | (B, 1) | rewards, centred on their running mean |
| `s2`, `done` | (B, 4), (B, 1) | next states; 1 where the episode ended |
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.search.environment import Episode, State


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Hyperparameters. `learning_rate` is the paper's; what it leaves open is ours."""

    learning_rate: float = 1e-3
    #: Lambda of (5) and (6): weight of the L1 penalty, applied by the proximal step. 0: plain DDPG.
    penalty: float = 0.8
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
    """Actor mu and critic Q with target copies, trained from a pool by gradient steps and soft thresholds."""

    def __init__(self, settings: AgentSettings, seed: int) -> None:
        self.settings = settings
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.actor = _mlp(4, settings.hidden)
            self.critic = _mlp(5, settings.hidden)
        self.target_actor, self.target_critic = deepcopy(self.actor), deepcopy(self.critic)
        # (8) and (9) take the gradient step; Adam scales it, so that one penalty suits every reward scale.
        self._actor_step = torch.optim.Adam(self.actor.parameters(), lr=settings.learning_rate)
        self._critic_step = torch.optim.Adam(self.critic.parameters(), lr=settings.learning_rate)
        self._generator = torch.Generator().manual_seed(seed)
        self._pool: list[tuple[State, float, float, State, float]] = []
        self._mean, self._seen = 0.0, 0

    def act(self, state: State) -> float:
        """mu(s): the sparsity the actor proposes, in [0, 1]."""
        with torch.no_grad():
            return float(torch.sigmoid(self.actor(torch.from_numpy(state))))

    def remember(self, episode: Episode) -> None:
        """Put an episode's transitions, with the actions that were executed, into the pool."""
        steps = len(episode.executed)
        for t in range(steps):
            reward = episode.rewards[t]
            self._seen += 1
            self._mean += (reward - self._mean) / self._seen
            done = float(t == steps - 1)
            self._pool.append((episode.states[t], episode.executed[t], reward, episode.states[t + 1], done))

    @property
    def ready(self) -> bool:
        """Whether the pool is full."""
        return len(self._pool) >= self.settings.buffer_size

    def learn(self) -> tuple[float, float]:
        """Algorithm 1's inner loop over the pool, which is then cleared. Returns mean critic and actor loss."""
        columns = [np.array(column, dtype=np.float32) for column in zip(*self._pool, strict=True)]
        s, a, r, s2, done = (torch.from_numpy(column) for column in columns)
        # Centred rewards: the critic spends its few steps on differences, not on the common level.
        a, r, done = a[:, None], (r - self._mean)[:, None], done[:, None]
        losses = []
        for _ in range(self.settings.passes):
            for i in torch.split(torch.randperm(len(s), generator=self._generator), self.settings.minibatch):
                losses.append(self._update(s[i], a[i], r[i], s2[i], done[i]))
        self._pool.clear()
        critic, actor = np.mean(losses, axis=0)
        return float(critic), float(actor)

    def _update(self, s: Tensor, a: Tensor, r: Tensor, s2: Tensor, done: Tensor) -> tuple[float, float]:
        k = self.settings
        with torch.no_grad():
            a2 = torch.sigmoid(self.target_actor(s2))
            y = r + k.discount * (1 - done) * self.target_critic(torch.cat([s2, a2], 1))
        # (5)/(7): the critic's smooth loss, (9) its gradient step, (11) its soft threshold.
        critic_loss = F.mse_loss(self.critic(torch.cat([s, a], 1)), y)
        self._step(self._critic_step, self.critic, critic_loss)
        # (4)/(6): the actor ascends Q, (8) its gradient step, (10) its soft threshold.
        actor_loss = -self.critic(torch.cat([s, torch.sigmoid(self.actor(s))], 1)).mean()
        self._step(self._actor_step, self.actor, actor_loss)
        for target, source in ((self.target_actor, self.actor), (self.target_critic, self.critic)):
            with torch.no_grad():
                for old, new in zip(target.parameters(), source.parameters(), strict=True):
                    # (12)/(13)
                    old.lerp_(new, k.tau)
        return float(critic_loss.detach()), float(actor_loss.detach())

    def _step(self, optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        soft_threshold(network, self.settings.penalty * self.settings.learning_rate)
