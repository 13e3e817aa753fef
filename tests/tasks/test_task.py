"""What networks learn: losses, imitation, what is drawn for the Fisher weights, and how tasks are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgeprune.core.errors import ModelError, UsageError
from edgeprune.tasks.metrics import metric_named
from edgeprune.tasks.objectives import objective_of
from edgeprune.tasks.resolve import check_fits, settle_task
from edgeprune.tasks.task import CLASSIFICATION, TASKS, Regression, Task, metric_of
from edgeprune.training.distillation import Distillation

TORCH = torch.Generator().manual_seed(0)
OUTPUTS = {
    "classification": (6, 4), "binary": (6, 1), "multi-label": (6, 3), "regression": (6, 2),
    "segmentation": (6, 4, 3, 3), "reconstruction": (6, 8),
}  # fmt: skip


def made(name: str) -> tuple[Task, Tensor, Tensor]:
    """The task, outputs of a network for it, and targets."""
    kind = TASKS[name]
    task = kind(kind.metrics[0]())
    output = torch.randn(OUTPUTS[name], generator=TORCH)
    match name:
        case "classification":
            return task, output, torch.randint(0, 4, (6,), generator=TORCH)
        case "binary":
            return task, output, torch.randint(0, 2, (6,), generator=TORCH)
        case "multi-label":
            return task, output, torch.randint(0, 2, (6, 3), generator=TORCH).float()
        case "segmentation":
            return task, output, torch.randint(0, 4, (6, 3, 3), generator=TORCH)
        case _:
            return task, output, torch.randn(OUTPUTS[name], generator=TORCH)


@pytest.mark.parametrize("name", TASKS)
def test_a_step_down_the_loss_makes_answers_better(name: str) -> None:
    task, output, targets = made(name)
    metric = task.metric

    def quality(answers: Tensor) -> float:
        found, wanted = answers.detach().numpy(), targets.numpy()
        return metric.quality(metric.value(found, wanted), wanted)

    moved = output.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        objective_of(task).loss(moved, targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert objective_of(task).loss(moved, targets) < objective_of(task).loss(output, targets)
    assert quality(moved) == pytest.approx(1.0, abs=0.02)
    assert quality(output) < 0.9
    assert objective_of(task).loss(output, targets, "sum") > objective_of(task).loss(output, targets)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("name", TASKS)
def test_nobody_imitates_a_teacher_better_than_he_does_himself(name: str, temperature: float) -> None:
    task, teacher, targets = made(name)
    distillation = Distillation(torch.nn.Identity(), temperature, 1.0, task=task)
    softened = distillation.soften(teacher)
    own = teacher.clone().requires_grad_()
    distillation.loss(own, targets, softened).backward()  # type: ignore[no-untyped-call]
    assert own.grad is not None
    assert float(own.grad.abs().max()) < 1e-6
    other = torch.randn(teacher.shape, generator=TORCH)
    assert distillation.loss(other, targets, softened) > distillation.loss(own, targets, softened)
    assert objective_of(task).divergence(teacher, teacher) == pytest.approx(0.0, abs=1e-6)
    assert objective_of(task).divergence(other, teacher) > 0


@pytest.mark.parametrize("name", TASKS)
def test_what_is_drawn_has_the_fisher_matrix_of_the_answers(name: str) -> None:
    """Over many draws the mean of g g' is the Hessian of the loss's own likelihood; its diagonal is compared."""
    task, output, _ = made(name)
    generator = torch.Generator().manual_seed(1)
    squares = torch.zeros_like(output)
    for _ in range(4000):
        leaf = output.clone().requires_grad_()
        (slope,) = torch.autograd.grad(objective_of(task).drawn(leaf, generator), leaf)
        squares += slope**2 / 4000
    match name:
        case "classification" | "segmentation":
            p = F.softmax(output, 1)
            wanted = p * (1 - p)
        case "binary" | "multi-label":
            p = torch.sigmoid(output)
            wanted = p * (1 - p)
        case _:
            wanted = torch.ones_like(output)
    torch.testing.assert_close(squares, wanted, atol=0.03, rtol=0.15)


def test_numbers_are_learnt_in_units_of_their_spread() -> None:
    task = Regression(metric_named("mae"), scale=100.0)
    output, targets = torch.tensor([[150.0], [50.0]]), torch.tensor([50.0, 50.0])
    assert float(objective_of(task).loss(output, targets)) == pytest.approx(0.5)
    assert float(objective_of(task).loss(output, targets, "sum")) == pytest.approx(1.0)


@pytest.mark.parametrize("name", TASKS)
def test_answers_agree_with_themselves_and_not_with_others(name: str) -> None:
    task, output, _ = made(name)
    answers = output.numpy()
    assert task.agreement(answers, answers) == task.agreement(answers + 1e-6, answers) == 1.0
    assert task.agreement(-answers, answers) < 1.0


def settled(
    kind: Any, targets: Any, output: tuple[int, ...], classes: int = 0, same: bool = False, **asked: Any
) -> Task:
    names = [str(index) for index in range(classes)]
    task = settle_task(asked.get("task"), asked.get("metric"), kind, targets, names, output, same=same)
    check_fits(task, "net", output, targets, names, "such targets")
    return task


def test_the_task_is_told_by_targets_and_answers() -> None:
    one, two = np.array([0, 1, 1]), np.float32([[0, 1], [2, 5], [3, 3]])
    assert settled("classes", one, (2, 2), 2) == CLASSIFICATION
    assert settled("classes", one, (2, 1), 2).name == settled("classes", one, (2,), 2).name == "binary"
    assert settled("numbers", two, (2, 2)).name == "regression"
    assert settled("numbers", two, (2, 2), same=True).name == "reconstruction"
    assert settled("labels", two > 1, (2, 2), 2).name == "multi-label"
    assert settled("map", np.zeros((3, 5, 6), int), (2, 4, 5, 6), 4).name == "segmentation"
    assert settled("numbers", two, (2, 2), metric="r2").metric.name == "r2"
    spread = settled("numbers", two, (2, 2))
    assert isinstance(spread, Regression)
    assert spread.scale == pytest.approx(two.var(0).mean() ** 0.5)


@pytest.mark.parametrize(
    ("kind", "targets", "output", "classes", "asked", "says"),
    [
        ("classes", np.array([0, 1, 2]), (2, 1), 3, {}, r"\(2, 1\) for two inputs, not logits \(2, 3\)"),
        ("classes", np.array([0, 1, 2]), (2, 4), 3, {}, r"not logits \(2, 3\); the data has such targets"),
        ("numbers", np.ones((3, 2), np.float32), (2, 5), 0, {}, "not 2 numbers each"),
        # As many numbers, at other places.
        ("numbers", np.ones((3, 6, 7, 2), np.float32), (2, 2, 6, 7), 0, {}, "not 6x7x2 numbers each"),
        ("classes", np.array([0, 1, 1]), (2, 1, 1, 1), 2, {"task": "binary"}, r"not one logit \(2, 1\)"),
        ("classes", np.array([0, 1, 2]), (2, 3), 3, {"metric": "top-5"}, "top-5 says nothing of 3 classes"),
        ("map", np.zeros((3, 5, 6), int), (2, 4, 6, 5), 4, {}, r"not logits \(2, 4, 5, 6\)"),
        ("classes", np.array([0, 1, 2]), (2, 3), 3, {"task": "regression"}, "--task classification or binary"),
        (
            "numbers",
            np.ones(3, np.float32),
            (2, 1),
            0,
            {"metric": "accuracy"},
            "give --metric mae or rmse or r2 or mse",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    kind: Any, targets: Any, output: Any, classes: int, asked: Any, says: str
) -> None:
    with pytest.raises((ModelError, UsageError), match=says):
        settled(kind, targets, output, classes, **asked)


def test_metrics_by_name() -> None:
    for task in TASKS.values():
        assert metric_of(task, None) == task.metrics[0]()
        for metric in task.metrics:
            assert isinstance(metric_named(metric.name), metric)
            assert isinstance(metric_of(task, metric.name), metric)  # type: ignore[arg-type]
