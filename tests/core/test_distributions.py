"""Quantiles and tails, held against scipy's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from scipy.stats import t as student

from edgeprune.core.distributions import binomial_beyond, binomial_tail, student_quantile, wilson_interval

SHARES = st.floats(1e-6, 1 - 1e-6)


@settings(deadline=None)
@given(p=SHARES, freedom=st.floats(0.5, 1e5))
def test_students_quantile_is_scipys(p: float, freedom: float) -> None:
    assert student_quantile(p, freedom) == pytest.approx(student.ppf(p, freedom), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(("p", "freedom"), [(0.0, 3), (1.0, 3), (0.5, 0), (float("nan"), 3)])
def test_a_quantile_that_cannot_be_is_refused(p: float, freedom: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        student_quantile(p, freedom)


@settings(deadline=None)
@given(trials=st.integers(1, 20_000), p=st.floats(0, 1), data=st.data())
def test_the_binomials_tail_is_scipys(trials: int, p: float, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, trials))
    assert binomial_tail(count, trials, p) == pytest.approx(binom.sf(count - 1, trials, p), rel=1e-7, abs=1e-12)


@settings(deadline=None)
@given(trials=st.integers(1, 20_000), p=st.floats(1e-4, 1 - 1e-4), share=st.sampled_from([0.001, 0.01, 0.05, 0.3]))
def test_what_is_seldom_exceeded_is_scipys(trials: int, p: float, share: float) -> None:
    assert binomial_beyond(share, trials, p) == binom.isf(share, trials, p)


@settings(deadline=None)
@given(trials=st.integers(1, 100_000), data=st.data())
def test_wilsons_interval_is_scipys(trials: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, trials))
    wanted = binomtest(count, trials).proportion_ci(method="wilson")
    assert wilson_interval(count, trials) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
