"""Thresholds from measured impostors: against formulas, known distributions, and properties."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sphereid.gallery.errors import InvalidRequestError
from sphereid.gallery.thresholds.calibration import (
    DEFAULT_COSINE,
    UNREACHABLE,
    ImpostorCalibration,
    _excess,
    comparison_rate,
    gallery_threshold,
    verification_threshold,
)
from sphereid.gallery.types import CosinePolicy, FpirPolicy

LEVELS = np.array([0.1, 0.01, 0.001, 0.0001])
MEASURED = ImpostorCalibration(LEVELS, np.array([0.15, 0.25, 0.33, 0.40]), pairs=1_000_000)


@given(st.floats(1e-6, 0.9), st.integers(1, 10**7))
def test_comparison_rate_keeps_the_promise(target: float, faces: int) -> None:
    rate = comparison_rate(target, faces)
    assert 0 < rate <= target * (1 + 1e-12)
    assert -math.expm1(faces * math.log1p(-rate)) == pytest.approx(target, rel=1e-9)


def test_comparison_rate_by_hand() -> None:
    assert comparison_rate(0.01, 1) == pytest.approx(0.01)
    assert comparison_rate(0.19, 2) == pytest.approx(0.1)  # 1 - 0.9 ** 2
    assert comparison_rate(0.01, 0) == comparison_rate(0.01, 1)


def test_measured_levels_come_back_and_between_them_the_logarithm_is_linear() -> None:
    for level, similarity in zip(LEVELS, [0.15, 0.25, 0.33, 0.40], strict=True):
        value, extrapolated = MEASURED.threshold(float(level))
        assert value == pytest.approx(similarity, abs=1e-12)
        assert not extrapolated
    value, _ = MEASURED.threshold(10**-1.5)
    assert value == pytest.approx(0.20)


def test_rates_above_the_measured_ones_get_the_strictest_safe_answer() -> None:
    assert MEASURED.threshold(0.9) == (pytest.approx(0.15), False)


def test_past_the_last_level_the_tail_is_marked_and_goes_on_without_a_step() -> None:
    value, extrapolated = MEASURED.threshold(0.99e-4)
    assert extrapolated
    assert value == pytest.approx(0.40, abs=1e-3)
    assert value > 0.40


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_smaller_rate_never_gets_a_lower_threshold(data: st.DataObject) -> None:
    rates = sorted(data.draw(st.sets(st.floats(1e-7, 1), min_size=3, max_size=12)), reverse=True)
    marks = sorted(data.draw(st.lists(st.floats(-0.5, 0.9), min_size=len(rates), max_size=len(rates))))
    calibration = ImpostorCalibration(np.array(rates), np.array(marks), pairs=10**9)
    asked = sorted(data.draw(st.lists(st.floats(1e-12, 1), min_size=2, max_size=8)), reverse=True)
    answers = [calibration.threshold(rate)[0] for rate in asked]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(answers))
    assert all(-1 <= a <= UNREACHABLE for a in answers)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0001, 0.5), st.floats(0.0001, 0.5), st.integers(1, 10**6), st.integers(1, 10**6))
def test_bigger_galleries_and_stricter_promises_raise_the_threshold(
    a: float, b: float, n: int, m: int
) -> None:
    def at(target: float, faces: int) -> float:
        return gallery_threshold(FpirPolicy(target), MEASURED, faces).value

    assert at(max(a, b), min(n, m)) <= at(min(a, b), max(n, m)) + 1e-12


@pytest.mark.parametrize(
    "impostors",
    [stats.norm(0.05, 0.08), stats.logistic(0.05, 0.03), stats.beta(20, 30, loc=-0.35)],
    ids=["normal", "logistic", "beta"],
)
def test_the_tail_fit_reaches_two_decades_past_the_data(impostors: object) -> None:
    """Quantiles of a known law down to 1e-5; its own quantiles at 1e-6 and 1e-7 are the oracle."""
    levels = np.logspace(-1, -5, 33)
    calibration = ImpostorCalibration(levels, impostors.isf(levels), pairs=10**7)  # type: ignore[attr-defined]
    for rate in (1e-6, 1e-7):
        value, extrapolated = calibration.threshold(rate)
        assert extrapolated
        assert value == pytest.approx(float(impostors.isf(rate)), abs=0.02)  # type: ignore[attr-defined]


def test_a_pareto_tail_is_found_again() -> None:
    law = stats.genpareto(-0.2, loc=0.3, scale=0.05)
    levels = np.logspace(-0.5, -4, 29)
    calibration = ImpostorCalibration(levels, law.isf(levels), pairs=10**6)
    assert calibration.tail.shape == pytest.approx(-0.2, abs=0.01)
    assert calibration.threshold(1e-6)[0] == pytest.approx(float(law.isf(1e-6)), abs=1e-3)


def test_from_scores_gives_the_share_of_scores_at_or_above() -> None:
    scores = np.random.default_rng(1).normal(0.05, 0.1, 50_000)
    calibration = ImpostorCalibration.from_scores(scores)
    for level, similarity in zip(calibration.levels, calibration.similarities, strict=True):
        assert np.mean(scores >= similarity) == pytest.approx(level, abs=1e-9)
    assert calibration.levels[-1] * scores.size == pytest.approx(10)


def test_quantiles_that_too_few_pairs_reach_do_not_count() -> None:
    thin = ImpostorCalibration(LEVELS, np.array([0.15, 0.25, 0.33, 0.40]), pairs=10_000)
    assert thin.levels.tolist() == [0.1, 0.01, 0.001]
    assert thin.threshold(0.0005)[1]


@pytest.mark.parametrize(
    ("levels", "similarities", "pairs"),
    [
        ([0.1, 0.2], [0.1, 0.2], 10**6),
        ([0.2, 0.1], [0.2, 0.1], 10**6),
        ([0.2, 0.1], [0.1, 1.5], 10**6),
        ([0.2, 0.0], [0.1, 0.2], 10**6),
        ([0.2, 0.1], [0.1, math.nan], 10**6),
        ([0.2], [0.1], 10**6),
        ([0.2, 0.1], [0.1, 0.2], 60),
    ],
)
def test_contradictions_are_refused(levels: list[float], similarities: list[float], pairs: int) -> None:
    with pytest.raises(ValueError, match=r"levels|similarities|calibration"):
        ImpostorCalibration(np.array(levels), np.array(similarities), pairs)


def test_manifest_order_does_not_matter() -> None:
    pairs = [(0.01, 0.25), (0.1, 0.15), (0.001, 0.33)]
    assert ImpostorCalibration.from_quantiles(pairs, 10**6).levels.tolist() == [0.1, 0.01, 0.001]


def test_policies() -> None:
    assert gallery_threshold(CosinePolicy(0.42), MEASURED, 10**6).value == 0.42
    fpir = gallery_threshold(FpirPolicy(0.01), MEASURED, 1)
    assert (fpir.value, fpir.policy, fpir.target) == (pytest.approx(0.25), "fpir", 0.01)
    assert verification_threshold(MEASURED, 0.001).value == pytest.approx(0.33)
    without = gallery_threshold(FpirPolicy(0.01), None, 10)
    assert (without.value, without.policy, without.target) == (DEFAULT_COSINE, "cosine", None)
    with pytest.raises(InvalidRequestError):
        verification_threshold(MEASURED, 0.0)


def test_the_promise_holds_on_independent_strangers() -> None:
    """Simulated: scores drawn from the law behind the calibration, 20,000 strangers against 200 faces."""
    rng = np.random.default_rng(7)
    calibration = ImpostorCalibration.from_scores(rng.normal(0.05, 0.1, 2_000_000))
    limit = gallery_threshold(FpirPolicy(0.03), calibration, 200)
    best = rng.normal(0.05, 0.1, (20_000, 200)).max(axis=1)
    assert np.mean(best >= limit.value) == pytest.approx(0.03, rel=0.2)


@pytest.mark.parametrize("shape", [-0.3, -0.1, -1e-9, 0.0, 1e-9, 0.1, 0.3])
def test_the_tail_is_scipy_s_generalized_pareto(shape: float) -> None:
    survival = np.logspace(-9, 0, 50)
    expected = stats.genpareto.isf(survival, shape)
    np.testing.assert_allclose(_excess(survival, shape), expected, rtol=1e-6, atol=1e-9)


def test_clumped_matches_are_worth_fewer_comparisons_and_a_lower_threshold() -> None:
    clumped = replace(MEASURED, clumping=0.003)
    assert MEASURED.independent(1000) == 1000
    assert clumped.independent(1) == pytest.approx(1, rel=0.01)
    worth = [clumped.independent(n) for n in (50, 200, 1000, 10_000)]
    assert worth == pytest.approx([46.6, 156.7, 462.1, 1144.7], rel=0.001)
    strict, fair = (gallery_threshold(FpirPolicy(0.1), each, 1000) for each in (MEASURED, clumped))
    assert fair.value < strict.value
    with pytest.raises(ValueError, match="clumping"):
        replace(MEASURED, clumping=-1.0)


def test_the_worth_follows_from_clumps_of_logarithmic_size() -> None:
    """Poisson clumps of logarithmic-series size, each match thinned to the share that is enrolled."""
    rng = np.random.default_rng(0)
    everybody, c, rate, enrolled = 10_000, 0.002, 4e-5, 1_000
    p = c * everybody / (1 + c * everybody)
    clumps = rng.poisson(rate * math.log1p(c * everybody) / c, 200_000)
    sizes = np.zeros(len(clumps), np.int64)
    np.add.at(sizes, np.repeat(np.arange(len(clumps)), clumps), rng.logseries(p, clumps.sum()))
    assert sizes.mean() == pytest.approx(rate * everybody, rel=0.05)
    fpir = float(np.mean(1 - (1 - enrolled / everybody) ** sizes))
    assert fpir == pytest.approx(1 - math.exp(-rate * math.log1p(c * enrolled) / c), rel=0.05)
