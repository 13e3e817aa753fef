from __future__ import annotations

import torch

from edgeprune.papers.methods.l0 import HIGH, LOW, final_gate, open_probability, sample

LOG_ALPHA = torch.tensor([-4.0, -2.0, -0.5, 0.0, 1.0, 3.0], dtype=torch.float64)


def test_gates_open_as_often_as_the_formula_says() -> None:
    u = torch.rand(200_000, len(LOG_ALPHA), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = sample(LOG_ALPHA.expand_as(u), u)
    assert float(z.min()) == 0.0
    assert float(z.max()) == 1.0
    probability = open_probability(LOG_ALPHA)
    error = (probability * (1 - probability) / len(u)).sqrt()
    assert bool((((z > 0).double().mean(0) - probability).abs() < 4 * error).all())
    # The expected count is the mean of the counts.
    counts = (z > 0).double().sum(1)
    assert abs(float(counts.mean() - probability.sum())) < 4 * float(counts.std()) / len(u) ** 0.5


def test_the_gradient_of_the_expected_count_is_its_slope() -> None:
    log_alpha = LOG_ALPHA.clone().requires_grad_(True)
    open_probability(log_alpha).sum().backward()
    h = 1e-6
    for index, slope in enumerate(log_alpha.grad):
        step = torch.zeros_like(LOG_ALPHA)
        step[index] = h
        numeric = (open_probability(LOG_ALPHA + step) - open_probability(LOG_ALPHA - step)).sum() / (2 * h)
        torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-8)


def test_gradients_of_sampled_gates_are_their_slopes() -> None:
    u = torch.tensor([0.2, 0.5, 0.5, 0.4, 0.3, 0.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda log_alpha: sample(log_alpha, u), (LOG_ALPHA.clone().requires_grad_(True),))


def test_the_gate_at_test_time_is_shut_below_its_threshold_and_whole_above() -> None:
    shut = torch.logit(torch.tensor([-LOW / (HIGH - LOW)], dtype=torch.float64))
    assert float(final_gate(shut - 1e-9)) == 0.0
    assert 0 < float(final_gate(shut + 1e-3)) < 1e-3
    assert float(final_gate(-shut)) == 1.0
    assert float(final_gate(torch.zeros(1))) == 0.5
