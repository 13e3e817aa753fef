"""What a network is trained on: the loss of each task, what is learnt from another network's answers, how these differ.

The only place of this room that needs torch: whoever judges answers that are there does without.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.errors import UsageError
from edgeprune.core.userfile import call_user
from edgeprune.tasks.own import OwnTask
from edgeprune.tasks.task import Classification, MultiLabel, Regression, Task

T = TypeVar("T", bound=Task)


@dataclass(frozen=True, slots=True)
class Objective(ABC, Generic[T]):
    """What training makes small for a task. Answers are tensors (N, ...), laid out as its metrics take them."""

    task: T

    def step(self, network: nn.Module, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor | None:
        """The loss of a training step that is not `loss` of what the network answers; None where it is."""
        del network, inputs, target
        return None

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """What training makes small: a mean over the batch, or the sum of it."""

    @abstractmethod
    def soften(self, answers: Tensor, temperature: float) -> Tensor:
        """A teacher's answers as they are learnt from."""

    @abstractmethod
    def imitation(self, output: Tensor, softened: Tensor, temperature: float) -> Tensor:
        """How far an output is from a teacher's softened answers; gradients in proportion to those of `loss`."""

    @abstractmethod
    def divergence(self, output: Tensor, reference: Tensor) -> float:
        """By how much answers differ from others: KL divergence where they are distributions, a mean over examples."""

    @abstractmethod
    def drawn(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """A scalar whose gradient is that of the log-likelihood of targets drawn from the answers' own distribution.

        What Fisher weights are made of (Martens & Grosse 2015, section 3), summed over the batch.
        """


@dataclass(frozen=True, slots=True)
class CrossEntropy(Objective[Classification]):
    """Of logits (N, classes), or (N, classes, ...) where every place has a class."""

    def loss(self, output: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(output, target, reduction=reduction)

    def soften(self, answers: Tensor, temperature: float) -> Tensor:
        """Probabilities at a temperature (Hinton et al. 2015)."""
        return F.softmax(answers / temperature, 1)

    def imitation(self, output: Tensor, softened: Tensor, temperature: float) -> Tensor:
        """T² CE(logits / T, softened). Against the KL divergence the teacher's entropy is left in, a constant."""
        return F.cross_entropy(output / temperature, softened) * temperature**2

    def divergence(self, output: Tensor, reference: Tensor) -> float:
        """KL divergence of the softmax."""
        ours, theirs = F.log_softmax(output, 1), F.log_softmax(reference, 1)
        return float(F.kl_div(ours, theirs, reduction="batchmean", log_target=True))

    def drawn(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Classes drawn from the softmax."""
        likelihood = F.log_softmax(output, 1)
        rows = likelihood.movedim(1, -1).flatten(0, -2) if likelihood.ndim > 2 else likelihood
        drawn = torch.multinomial(rows.detach().exp(), 1, generator=generator)
        return rows.gather(1, drawn).sum()


@dataclass(frozen=True, slots=True)
class BinaryCrossEntropy(Objective[MultiLabel]):
    """Of logits (N, labels), each a yes or no."""

    def loss(self, output: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Binary cross entropy; summed over the labels of an example where it is a sum."""
        return F.binary_cross_entropy_with_logits(
            output, target.reshape(output.shape).to(output.dtype), reduction=reduction
        )

    def soften(self, answers: Tensor, temperature: float) -> Tensor:
        """Probabilities at a temperature."""
        return torch.sigmoid(answers / temperature)

    def imitation(self, output: Tensor, softened: Tensor, temperature: float) -> Tensor:
        """T² BCE(logits / T, softened)."""
        return F.binary_cross_entropy_with_logits(output / temperature, softened) * temperature**2

    def divergence(self, output: Tensor, reference: Tensor) -> float:
        """KL divergence of the labels' Bernoulli distributions, summed over the labels."""
        p = torch.sigmoid(reference)
        lost = F.binary_cross_entropy_with_logits(output, p, reduction="none")
        own = F.binary_cross_entropy_with_logits(reference, p, reduction="none")
        return float((lost - own).reshape(len(output), -1).sum(1).mean())

    def drawn(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Labels drawn from the sigmoid."""
        labels = torch.bernoulli(torch.sigmoid(output.detach()).cpu(), generator=generator).to(output.device)
        return -F.binary_cross_entropy_with_logits(output, labels, reduction="sum")


@dataclass(frozen=True, slots=True)
class SquaredError(Objective[Regression]):
    """Of numbers, in units of the targets' own spread (`scale`)."""

    def loss(self, output: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Squared error over the square of the scale: the learning rate need not know the targets' unit."""
        off = (output - target.reshape(output.shape)) / self.task.scale
        return F.mse_loss(off, torch.zeros_like(off), reduction=reduction)

    def soften(self, answers: Tensor, temperature: float) -> Tensor:
        """Numbers are learnt as they are."""
        del temperature
        return answers

    def imitation(self, output: Tensor, softened: Tensor, temperature: float) -> Tensor:
        """Squared error from the teacher's numbers."""
        del temperature
        return self.loss(output, softened)

    def divergence(self, output: Tensor, reference: Tensor) -> float:
        """Squared error."""
        return float(self.loss(output, reference))

    def drawn(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Numbers drawn around the answers, with the scale as standard deviation."""
        noise = torch.randn(output.shape, generator=generator).to(output.device)
        return (output / self.task.scale * noise).sum()


@dataclass(frozen=True, slots=True)
class OwnObjective(Objective[OwnTask]):
    """What the user's own loss says. Outputs and targets are handed to it as the network and he made them."""

    def _split(self, output: Tensor) -> Any:
        return output if self.task.outputs is None else self.task.outputs.split(output)

    def _wanted(self, target: Tensor) -> Any:
        return target if self.task.targets is None else self.task.targets.split(target)

    def loss(self, output: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """The user's, a mean over the batch; as a sum it is that times the batch's size."""
        ours, wanted = self._split(output), self._wanted(target)
        found = call_user(self.task.owner.loss, f"--task {self.task.spec}: loss", ours, wanted)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise UsageError(
                f"--task {self.task.spec}: loss gives {type(found).__name__}, expected a tensor of one number"
            )
        return found.reshape(()) * (len(output) if reduction == "sum" else 1)

    def soften(self, answers: Tensor, temperature: float) -> Tensor:
        """As they are."""
        del temperature
        return answers

    def imitation(self, output: Tensor, softened: Tensor, temperature: float) -> Tensor:
        """The user's `distil(output, teacher)`; else the squared error over the variance of the teacher's answers."""
        del temperature
        if hasattr(self.task.owner, "distil"):
            ours, theirs = self._split(output), self._split(softened)
            found: Tensor = call_user(self.task.owner.distil, f"--task {self.task.spec}: distil", ours, theirs)
            return found.reshape(())
        return F.mse_loss(output, softened) / softened.var(0, correction=0).mean().clamp(min=1e-12)

    def divergence(self, output: Tensor, reference: Tensor) -> float:
        """Squared error over the variance of the reference."""
        return float(F.mse_loss(output, reference) / reference.var(0, correction=0).mean().clamp(min=1e-12))

    def drawn(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Numbers drawn around the answers, of one standard deviation for all: what they mean is not known."""
        return (output * torch.randn(output.shape, generator=generator).to(output.device)).sum()

    def step(self, network: Any, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor | None:
        """The loss of a training step of the user's own, where he has one."""
        if not hasattr(self.task.owner, "step"):
            return None
        wanted = self._wanted(target)
        found: Tensor = call_user(self.task.owner.step, f"--task {self.task.spec}: step", network, inputs, wanted)
        return found


def objective_of(task: Task) -> Objective[Any]:
    """What a network of this task is trained on. Raises TypeError for a task that has no row here."""
    for kind, objective in _OBJECTIVES.items():
        if isinstance(task, kind):
            return objective(task)
    raise TypeError(f"no objective for {type(task).__name__}")


_OBJECTIVES: dict[type[Task], type[Objective[Any]]] = {
    Classification: CrossEntropy,
    MultiLabel: BinaryCrossEntropy,
    Regression: SquaredError,
    OwnTask: OwnObjective,
}
