"""A few steps of distillation: what a pruned network is worth once it has begun to recover."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import nn

from edgeprune.core.errors import ModelError
from edgeprune.models.inputs import parts_of
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.frozen import train_mode, trainable
from edgeprune.training.place import PLAIN, Place

BATCH_SIZE = 128
#: Of the teacher's answers, which are all it learns from: few steps learn more from soft ones than from labels, and
#: scores are steadier (docs/decisions/0007).
TEMPERATURE = 3.0
#: Learning rate over that of fine-tuning, of a network without convolutions: few steps must go far, or networks of
#: fewer inputs seem the better ones (docs/decisions/0007).
FASTER = 5


class BriefTuning:
    """Tunes any network on the answers of `teacher` to the same `steps` batches of training images.

    The rate falls from `learning_rate` to 0 by a cosine; `place` is where it is done. Raises ModelError where the
    teacher's answers are NaN.

    Accuracy before fine-tuning ranks candidates by what they have lost, but some losses come back and others do not: a
    hidden neuron's do, an input feature's do not (docs/decisions/0007). So many steps tell them apart, in about 0.1 s
    for the papers' networks.
    """

    def __init__(
        self,
        train_set: Batches,
        teacher: nn.Module,
        *,
        steps: int,
        learning_rate: float,
        seed: int,
        place: Place = PLAIN,
        batch_size: int = BATCH_SIZE,
        task: Task = CLASSIFICATION,
    ) -> None:
        self._place = place
        self._distillation = Distillation(teacher, TEMPERATURE, share=1.0, task=task)
        self._rate = learning_rate
        count = min(len(train_set), steps * batch_size)
        index = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(seed))[:count]
        self._inputs, self._targets = place.inputs(train_set.inputs(index)), place.moved(train_set.y[index])
        parts = [self._distillation.asked(part, place) for part in parts_of(self._inputs, train_set.together)]
        answers = torch.cat(parts)
        if not torch.isfinite(answers).all():
            raise ModelError(
                "the unpruned network answers training images with NaN or infinite numbers",
                "check how inputs are scaled (--preprocessing), and the weights",
            )
        self._softened = self._distillation.soften(answers)
        #: Networks whose tuning diverged; they came back as they were.
        self.diverged = 0
        self._steps, self._seed, self._batch_size = steps, seed, batch_size

    def __call__(self, network: nn.Module) -> nn.Module:
        """A tuned copy of `network`, in evaluation mode; the same for the same network. What is frozen stays.

        Where the loss becomes NaN or infinite it is an untuned copy, which counts in `diverged`: weights that mean
        nothing are not scored.
        """
        untuned = network
        if not trainable(network):
            return deepcopy(network).eval()
        network = self._place.copy(network)
        train_mode(network)
        optimizer = torch.optim.AdamW(trainable(network), lr=self._rate, fused=True)
        size = self._batch_size
        batches = len(self._targets) // size or 1
        # Dropout draws from torch's own generator: it is seeded here and given back as it was.
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            for step in range(self._steps):
                for group in optimizer.param_groups:
                    group["lr"] = self._rate * (0.5 + 0.5 * math.cos(math.pi * step / self._steps))
                part = slice(step % batches * size, (step % batches + 1) * size)
                answers = self._place.forward(network, self._inputs[part])
                loss = self._distillation.loss(answers, self._targets[part], self._softened[part])
                if not math.isfinite(loss.item()):
                    self.diverged += 1
                    return deepcopy(untuned).eval()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return self._place.back(network).eval()
