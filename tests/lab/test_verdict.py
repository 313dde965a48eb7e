from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from holdfast.errors import ArgumentError
from holdfast.lab.few_seeds import compare_means, skewness_limit
from holdfast.lab.results import Values
from holdfast.lab.verdict import (
    LEVEL,
    Claim,
    Evidence,
    Status,
    Verdict,
    equivalent,
    exact,
    holm,
    judge,
    mean_of,
    paired_difference,
    unusable,
)

STUDIES = 1000
finite = st.floats(-1e6, 1e6)


def by_seed(values: np.ndarray | list[float], first: int = 0) -> dict[int, float]:
    return {first + i: float(value) for i, value in enumerate(values)}


def claim(name: str = "c", family: str = "claims") -> Claim:
    return Claim(name, f"text of {name}", lambda results: unusable("never called"), f"paper on {name}", family)


def status(evidence: Evidence) -> Status:
    return judge([claim()], [evidence])[0].status


def within(count: int, rate: float, n: int = STUDIES) -> bool:
    """Whether a count is one that a chance of `rate` gives, at four standard deviations."""
    return abs(count - n * rate) <= 4 * math.sqrt(n * rate * (1 - rate))


# What the tests promise, by simulation.


@pytest.mark.parametrize(("alternative", "threshold"), [("greater", 0.0), ("less", 0.3), ("greater", -2.0)])
def test_false_verdicts_are_five_per_cent_half_on_each_side(alternative, threshold):
    rng = np.random.default_rng(7)
    found = {Status.SUPPORTED: 0, Status.CONTRADICTED: 0, Status.INCONCLUSIVE: 0}
    covered = 0
    for _ in range(STUDIES):
        base = rng.normal(0, 3, 5)  # a strong effect of the seed, which pairing must remove
        control = by_seed(base)
        treatment = by_seed(base + threshold + rng.normal(0, 0.4, 5))
        evidence = paired_difference(treatment, control, threshold=threshold, alternative=alternative)
        covered += evidence.low <= threshold <= evidence.high
        found[status(evidence)] += 1
    assert within(found[Status.SUPPORTED], 0.025)
    assert within(found[Status.CONTRADICTED], 0.025)
    assert within(covered, 0.95)


def test_a_real_effect_is_found_nearly_always():
    rng = np.random.default_rng(8)
    found = [
        status(paired_difference(by_seed(rng.normal(3, 0.5, 5)), by_seed(rng.normal(0, 0.5, 5)))) for _ in range(200)
    ]
    assert found.count(Status.SUPPORTED) > 190
    assert Status.CONTRADICTED not in found


def test_false_equivalence_at_the_margin_is_at_most_half_of_the_level():
    rng = np.random.default_rng(9)
    found = []
    for _ in range(STUDIES):
        base = rng.normal(0, 3, 6)
        found.append(status(equivalent(by_seed(base + 0.5 + rng.normal(0, 0.1, 6)), by_seed(base), margin=0.5)))
    assert within(found.count(Status.SUPPORTED), 0.025)
    assert within(found.count(Status.CONTRADICTED), 0.025)


def test_a_family_shares_its_level():
    rng = np.random.default_rng(10)
    claims = [claim(str(i)) for i in range(6)]
    alone = together = 0
    for _ in range(STUDIES):
        evidence = [mean_of(by_seed(row), threshold=0.0) for row in rng.normal(size=(6, 5))]
        together += any(verdict.status is not Status.INCONCLUSIVE for verdict in judge(claims, evidence))
        alone += any(item.p_value is not None and item.p_value < LEVEL for item in evidence)
    assert together <= STUDIES * 0.05 + 4 * math.sqrt(STUDIES * 0.05 * 0.95)
    assert within(together, 1 - (1 - 0.05 / 6) ** 6)  # Holm's first step, for independent claims
    assert within(alone, 1 - 0.95**6)  # what would happen without it


# Agreement with SciPy.


@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=12), st.floats(-10, 10))
@settings(max_examples=200, deadline=None)
def test_agrees_with_the_paired_t_test_of_scipy(pairs, threshold):
    a, b = np.array(pairs).T
    if np.ptp(a - b) <= 1e-6:
        return
    expected = stats.ttest_rel(a - threshold, b)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    for alternative in ("greater", "less"):
        found = paired_difference(by_seed(a), by_seed(b), threshold=threshold, alternative=alternative)
        assert found.n == len(pairs)
        assert found.effect == pytest.approx(np.mean(a - b), rel=1e-9, abs=1e-9)
        if found.p_value is None:
            assert "skewed" in found.reason
        else:
            assert found.p_value == pytest.approx(expected.pvalue, rel=1e-3, abs=1e-9)
        assert [found.low, found.high] == pytest.approx([*interval], rel=1e-6, abs=1e-6)
        side = np.mean(a - b) > threshold if alternative == "greater" else np.mean(a - b) < threshold
        assert found.favours == side


@given(st.lists(finite, min_size=3, max_size=10))
@settings(max_examples=100, deadline=None)
def test_interval_and_p_value_agree(values):
    found = mean_of(by_seed(values), threshold=0.5)
    excluded = not found.low <= 0.5 <= found.high
    if found.p_value is not None and abs(found.p_value - 0.05) > 1e-6:
        assert excluded == (found.p_value < 0.05)


@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=6), st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_seeds_does_not_matter(pairs, random):
    a, b = by_seed([x for x, _ in pairs]), by_seed([y for _, y in pairs])
    seeds = list(a)
    random.shuffle(seeds)
    assert repr(paired_difference({s: a[s] for s in seeds}, b)) == repr(paired_difference(a, b))


def test_swapping_arms_and_side_gives_the_same_p_value():
    rng = np.random.default_rng(0)
    a, b = by_seed(rng.normal(size=6)), by_seed(rng.normal(size=6))
    one = paired_difference(a, b, threshold=0.2)
    other = paired_difference(b, a, threshold=-0.2, alternative="less")
    assert one.p_value == pytest.approx(other.p_value)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.favours == other.favours


# Direction.


@pytest.mark.parametrize(
    ("shift", "alternative", "expected"),
    [
        (1.0, "greater", Status.SUPPORTED),
        (-1.0, "greater", Status.CONTRADICTED),
        (0.0, "greater", Status.INCONCLUSIVE),
        (1.0, "less", Status.CONTRADICTED),
        (-1.0, "less", Status.SUPPORTED),
    ],
)
def test_direction(shift, alternative, expected):
    noise = np.array([-0.1, 0.05, 0.1, -0.05, 0.0])
    treatment = by_seed(shift + noise + np.arange(5))
    assert status(paired_difference(treatment, by_seed(np.arange(5)), alternative=alternative)) is expected
    assert status(mean_of(by_seed(shift + noise), threshold=0.0, alternative=alternative)) is expected


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("shift", "spread", "expected"),
    [
        (0.1, 0.05, Status.SUPPORTED),
        (3.0, 0.05, Status.CONTRADICTED),
        (0.1, 5.0, Status.INCONCLUSIVE),
        (1.0, 0.05, Status.INCONCLUSIVE),  # right on the margin
    ],
)
def test_equivalence(shift, spread, expected, sign):
    noise = spread * np.array([-1.0, 0.5, 1.0, -0.5, 0.0])
    control = by_seed(np.arange(5.0))
    found = equivalent(by_seed(np.arange(5.0) + sign * shift + noise), control, margin=1.0)
    assert status(found) is expected
    assert found.effect == pytest.approx(sign * shift)
    assert (found.low > -1 and found.high < 1) == (expected is Status.SUPPORTED)


@pytest.mark.parametrize("margin", [0.0, -0.5, math.nan])
def test_a_margin_must_be_positive(margin):
    arm = by_seed([0.1, 0.7, 0.4])
    with pytest.raises(ArgumentError, match="margin"):
        equivalent(arm, arm, margin=margin)


# What no test can use.


@pytest.mark.parametrize(
    ("treatment", "control", "reason"),
    [
        ({}, {0: 1.0}, "no results for new"),
        ({0: 1.0}, {}, "no results for old"),
        ({}, {}, "no results for new"),
        ({0: 1.0}, {0: 0.5}, "1 seed, at least 3 needed"),
        ({0: 1.0, 1: 2.0}, {0: 0.5, 1: 1.0}, "2 seeds, at least 3 needed"),
        ({0: 1.0, 1: math.nan, 2: 1.0}, {0: 0.0, 1: 0.1, 2: 0.0}, "new is not finite for seed 1"),
        ({0: 1.0, 1: 1.5, 2: 1.0}, {0: math.inf, 1: 0.1, 2: -math.inf}, "old is not finite for seeds 0, 2"),
        ({0: 1.0, 1: 1.5, 2: 1.1}, {1: 1.0, 2: 1.2, 3: 0.1}, "seeds without a partner: 0, 3"),
        ({0: 1e300, 1: -1e300, 2: 5e299}, {0: 0.0, 1: 0.1, 2: 0.2}, "too large"),
        ({0: 1.5e308, 1: 1.6e308, 2: 1e308}, {0: -1.5e308, 1: -1e308, 2: -1e308}, "too large"),
    ],
)
def test_unusable_input_is_inconclusive_with_the_reason(treatment, control, reason):
    names = ("new", "old")
    for found in (
        paired_difference(treatment, control, names=names),
        equivalent(treatment, control, margin=0.1, names=names),
    ):
        assert found.p_value is None
        assert reason in found.reason
        verdict = judge([claim()], [found])[0]
        assert verdict.status is Status.INCONCLUSIVE
        assert verdict.p_adjusted is None
        assert reason in verdict.reason


@pytest.mark.parametrize("values", [{}, {0: 1.0}, {0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0, 2: math.nan}])
def test_mean_of_unusable_values(values):
    found = mean_of(values, threshold=0.0, name="loss")
    assert found.p_value is None
    assert found.reason


def test_min_seeds_can_be_raised_and_not_lowered():
    values = by_seed([1.0, 1.1, 0.9, 1.05])
    assert mean_of(values, threshold=0.0, min_seeds=5).p_value is None
    assert mean_of({0: 1.0, 1: 1.1}, threshold=0.0, min_seeds=1).p_value is None
    assert mean_of(values, threshold=0.0, min_seeds=4).p_value is not None


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("alternative", "two-sided"),
        ("threshold", math.nan),
        ("cases", 0),
        ("bounds", (1, 0)),
        ("bounds", (0, math.inf)),
        ("bounds", (math.nan, 1)),
    ],
)
def test_a_misspelt_option_is_refused(argument, wrong):
    values = by_seed([1.0, 2.0, 4.0])
    options = {"threshold": 0.0, argument: wrong}
    with pytest.raises(ArgumentError, match=argument):
        mean_of(values, **options)
    with pytest.raises(ArgumentError, match=argument):
        paired_difference(values, by_seed([0.0, 0.5, 0.1]), **options)


def test_options_that_contradict_each_other_are_refused():
    shares = by_seed([0.5, 0.7, 0.6])
    with pytest.raises(ArgumentError, match="threshold"):
        mean_of(shares, threshold=95, cases=10)  # per cent
    with pytest.raises(ArgumentError, match="threshold"):
        paired_difference(shares, shares, threshold=1.5, bounds=(0, 1))
    with pytest.raises(ArgumentError, match="threshold"):
        equivalent(shares, shares, margin=2, cases=10)
    with pytest.raises(ArgumentError, match="bounds"):
        mean_of(shares, threshold=0.5, cases=10, bounds=(0, 100))
    assert mean_of(shares, threshold=0.5, cases=10, bounds=(0, 1)) == mean_of(shares, threshold=0.5, cases=10)


@pytest.mark.parametrize("options", [{"cases": 10}, {"bounds": (0, 1)}])
def test_values_outside_their_bounds_are_named(options):
    values = by_seed([0.5, 1.5, 0.5])
    assert mean_of(values, threshold=0.1, name="x", **options).reason == "x is not within 0 and 1 for seed 1"
    found = paired_difference(by_seed([0.5, 0.6, 0.9]), values, names=("new", "old"), **options)
    assert found.reason == "old is not within 0 and 1 for seed 1"
    assert mean_of(by_seed([1 + 1e-15, 0.5, 0.7]), threshold=0.1, **options).reason == ""


# Identical values.


def test_identical_values_decide_nothing_by_themselves():
    control = by_seed([0.1, 0.2, 0.3, 0.7])
    treatment = {seed: value + 0.1 for seed, value in control.items()}  # rounding makes these differ by 1e-17
    for found in (
        mean_of(by_seed([1.0] * 5), threshold=0.95),
        mean_of(by_seed([1.0] * 5), threshold=1.0),
        paired_difference(treatment, control),
        paired_difference(control, control),
        equivalent(control, dict(control), margin=0.01),
    ):
        assert status(found) is Status.INCONCLUSIVE
        assert found.p_value is None
        assert math.isnan(found.low)
        assert "identical values decide nothing" in found.reason
    assert paired_difference(treatment, control).effect == pytest.approx(0.1)


def test_rounding_noise_of_large_values_is_no_evidence():
    control = by_seed(np.random.default_rng(0).uniform(1e6, 2e6, 10))
    treatment = {seed: value + 0.1 for seed, value in control.items()}
    for threshold in (0.05, 0.1):
        found = paired_difference(treatment, control, threshold=threshold)
        assert found.p_value is None
        assert "in all 10 seeds" in found.reason


@pytest.mark.parametrize("value", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("cases", [1, 7, 100])
def test_identical_shares_have_the_exact_binomial_interval(value, cases):
    if value * cases != round(value * cases):
        return
    found = mean_of(by_seed([value] * 3), threshold=0.3, cases=cases)
    expected = stats.binomtest(round(3 * cases * value), 3 * cases, 0.3).proportion_ci(0.95, "exact")
    assert [found.low, found.high] == pytest.approx([*expected], abs=1e-9)
    assert (found.p_value < LEVEL) == (not found.low <= 0.3 <= found.high)
    assert f"pooled exact interval of {3 * cases} cases" in found.test


def test_all_right_is_above_ninety_five_hundredths_only_with_enough_cases():
    found = {n: status(mean_of(by_seed([1.0] * 3), threshold=0.95, cases=n)) for n in (1, 10, 23, 25, 100)}
    # 0.95^69 > 0.025 > 0.95^75
    assert [n for n, word in found.items() if word is Status.SUPPORTED] == [25, 100]
    assert status(mean_of(by_seed([1.0] * 3), threshold=0.95, alternative="less", cases=100)) is Status.CONTRADICTED


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_identical_bounded_values_have_the_interval_that_their_number_earns(n):
    """For 0 and 1 it is that of n of n cases; elsewhere it moves with the bounds."""
    share = 0.025 ** (1 / n)
    ones = mean_of(by_seed([1.0] * n), threshold=0.4, bounds=(0, 1))
    exact_one = mean_of(by_seed([1.0] * n), threshold=0.4, cases=1)
    assert (ones.low, ones.high, ones.p_value) == pytest.approx((share, 1.0, 2 * 0.4**n))
    assert (ones.low, ones.high, ones.p_value) == pytest.approx((exact_one.low, exact_one.high, exact_one.p_value))
    moved = mean_of(by_seed([-2.0] * n), threshold=0.0, bounds=(-5, 5))
    assert (moved.low, moved.high) == pytest.approx((-5 + 3 * share, 5 - 7 * share))
    assert moved.p_value == pytest.approx(min(1.0, 2 * (5 / 7) ** n))
    on_it = mean_of(by_seed([0.3] * n), threshold=0.3, bounds=(0, 1))
    assert on_it.p_value == 1.0


def test_arms_that_saturate_are_judged_as_by_the_sign_test():
    for n in (3, 5, 6, 10):
        found = paired_difference(by_seed([1.0] * n), by_seed([0.0] * n), bounds=(0, 1))
        assert found.p_value == pytest.approx(stats.binomtest(n, n).pvalue)
        assert -1 <= found.low < found.high == 1


def test_identical_differences_of_shares_have_an_exact_interval():
    old = by_seed([0.50, 0.46, 0.54])
    new = {seed: value + 0.24 for seed, value in old.items()}
    found = paired_difference(new, old, cases=50)
    assert status(found) is Status.SUPPORTED
    bounds = [stats.binomtest(k, 150).proportion_ci(0.975, "exact") for k in (111, 75)]
    assert found.low == pytest.approx(bounds[0].low - bounds[1].high)
    assert found.high == pytest.approx(bounds[0].high - bounds[1].low)
    for end in (found.low, found.high):  # the p-value is that of the interval which just touches the threshold
        assert paired_difference(new, old, threshold=end, cases=50).p_value == pytest.approx(0.05)
    mirrored = paired_difference(old, new, alternative="less", cases=50)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert mirrored.p_value == pytest.approx(found.p_value)
    assert paired_difference(old, old, cases=50).p_value == 1.0
    for edge in (0.0, 1.0):  # where the one arm alone decides
        same = by_seed([edge] * 3)
        found = equivalent(same, same, margin=0.1, cases=50)
        assert found.p_value == pytest.approx(4 * 0.9**150)
        assert found.high == -found.low == pytest.approx(1 - 0.0125 ** (1 / 150))
    ones, zeros = by_seed([1.0] * 3), by_seed([0.0] * 3)
    found = paired_difference(ones, zeros, cases=50)
    assert found.p_value == pytest.approx(4 * 0.5**150)
    assert (found.low, found.high) == pytest.approx((2 * 0.0125 ** (1 / 150) - 1, 1.0))
    assert status(equivalent(old, dict(old), margin=0.05, cases=50)) is Status.INCONCLUSIVE
    assert status(equivalent(old, dict(old), margin=0.05, cases=5000)) is Status.SUPPORTED


# Shares.


@given(st.lists(st.integers(0, 20), min_size=3, max_size=12), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_a_share_has_the_wider_of_two_intervals_within_0_and_1(counts, threshold):
    n = len(counts)
    values = by_seed([count / 20 for count in counts])
    found = mean_of(values, threshold=threshold, cases=20)
    exact_one = stats.binomtest(sum(counts), 20 * n).proportion_ci(0.95, "exact")
    assert found.low <= exact_one.low + 1e-9
    assert found.high >= exact_one.high - 1e-9
    assert 0 <= found.low <= found.effect <= found.high <= 1
    if len(set(counts)) > 1:
        plain = mean_of(values, threshold=threshold)
        assert found.low <= max(0, plain.low) + 1e-9
        assert found.high >= min(1, plain.high) - 1e-9
    if found.p_value is not None and abs(found.p_value - LEVEL) > 1e-6:
        assert (found.p_value < LEVEL) == (not found.low <= threshold <= found.high)


def test_bounds_clip_an_interval_and_leave_the_p_value():
    values = by_seed([0.9, 1.0, 0.8])
    plain, bounded = (mean_of(values, threshold=0.5, bounds=bounds) for bounds in (None, (0, 1)))
    assert (plain.high > 1, bounded.high, bounded.low) == (True, 1.0, plain.low)
    assert bounded.p_value == plain.p_value
    difference = paired_difference(by_seed([1.0, 0.2, 1.0]), by_seed([0.0, 0.1, 0.1]), bounds=(0, 1))
    assert difference.low >= -1
    assert difference.high == 1


# Skewed values.


def test_a_long_tail_towards_a_near_threshold_is_inconclusive():
    values = by_seed([0.1, 0.2, 0.15, 0.12, 0.3, 0.2, 0.18, 0.11, 0.16, 1.2])
    near = mean_of(values, threshold=0.6, alternative="less")
    assert stats.ttest_1samp(list(values.values()), 0.6).pvalue < LEVEL
    assert (status(near), near.p_value) == (Status.INCONCLUSIVE, None)
    assert "skewed towards the threshold" in near.reason
    assert near.low < near.effect < near.high
    # Away from the threshold, or far from it, the tail changes nothing.
    assert status(mean_of(values, threshold=5.0, alternative="less")) is Status.SUPPORTED
    assert status(mean_of(values, threshold=-0.1)) is Status.SUPPORTED
    mirrored = mean_of(by_seed([-value for value in values.values()]), threshold=-0.6)
    assert mirrored.reason == near.reason


def test_many_seeds_decide_in_spite_of_a_tail_where_the_threshold_is_many_standard_errors_away():
    """Forty seeds of which a fifth scores nothing: the mean of the others is far from a half."""
    some = [0.0, 0.78, 0.80, 0.82, 0.81]
    many = mean_of(by_seed(some * 8), threshold=0.35)
    assert (status(many), many.p_value < 1e-5) == (Status.SUPPORTED, True)
    assert "skewed towards" in mean_of(by_seed(some * 3), threshold=0.35).reason
    nearer = mean_of(by_seed(some * 8), threshold=0.5)
    assert stats.ttest_1samp(some * 8, 0.5).pvalue < LEVEL
    assert "skewed towards" in nearer.reason


def test_few_seeds_say_what_they_rest_on():
    rng = np.random.default_rng(0)
    few, enough = (by_seed(rng.normal(size=n)) for n in (9, 10))
    assert mean_of(few, threshold=0).test.endswith("t interval; with 9 seeds it rests on symmetric values")
    found = paired_difference(few, by_seed(np.zeros(9)))
    assert found.test == "paired difference, t interval; with 9 seeds it rests on symmetric differences"
    assert mean_of(enough, threshold=0).test == "mean over seeds, t interval"


@pytest.mark.parametrize("n", [3, 5, 10, 20, 50])
def test_the_limit_of_skewness_is_its_quantile_in_normal_samples(n):
    samples = np.random.default_rng(n).normal(size=(20_000, n))
    share = float(np.mean(np.abs(stats.skew(samples, axis=1)) <= skewness_limit(n)))
    # Four standard deviations, and the 1.5 % by which the formula may miss.
    assert abs(share - 0.85) <= 4 * math.sqrt(0.85 * 0.15 / 20_000) + 0.006


def test_many_samples_at_once_are_judged_as_one_by_one():
    rng = np.random.default_rng(3)
    shares = rng.binomial(20, 0.9, (200, 5)) / 20
    settings = [
        (rng.lognormal(0, 1.5, (200, 10)), None, 3.0, {}),
        (rng.integers(0, 2, (200, 3)).astype(float), None, 0.5, {}),
        (rng.integers(0, 2, (200, 3)).astype(float), None, 0.5, {"bounds": (0, 1)}),
        (shares, None, 0.8, {"cases": 20}),
        (shares, rng.binomial(20, 0.8, (200, 5)) / 20, 0.0, {"cases": 20}),
    ]
    words = set()
    for values, control, threshold, options in settings:
        together = compare_means(values, threshold, control=control, **options)
        for i, row in enumerate(values):
            if control is None:
                alone = mean_of(by_seed(row), threshold=threshold, **options)
            else:
                alone = paired_difference(by_seed(row), by_seed(control[i]), threshold=threshold, **options)
            assert (status(alone) is not Status.INCONCLUSIVE) == bool(together.decided(LEVEL)[i])
            assert (alone.effect, alone.low, alone.high) == pytest.approx(
                (together.mean[i], together.low[i], together.high[i]), nan_ok=True
            )
            words.add(alone.reason.split(" ")[0])
    assert {"", "the"} <= words


# Seeds that failed.


def lost(values: list[float], *failed: int) -> Values:
    """Values by seed, some of which have failed."""
    kept = {seed: value for seed, value in by_seed(values).items() if seed not in failed}
    return Values(kept, failed=dict.fromkeys(failed, "ValueError: no"))


def test_a_failed_seed_is_named_and_makes_a_claim_inconclusive():
    values = lost([1.0, 1.1, 0.9, 1.05, 1.0], 3)
    found = mean_of(values, threshold=0.1)
    assert (status(found), found.n) == (Status.INCONCLUSIVE, 4)
    assert found.effect == 1.0
    assert found.reason == "no result for seed 3 (ValueError: no)"
    control = by_seed([0.1, 0.0, 0.1, 0.0, 0.2])
    for pair in ((values, control), (control, values)):
        assert paired_difference(*pair).reason == "no result for seed 3 (ValueError: no)"
        assert equivalent(*pair, margin=5).reason == "no result for seed 3 (ValueError: no)"
    both = paired_difference(values, lost(list(control.values()), 1))
    assert "no result for seeds 1, 3" in both.reason
    assert both.n == 3
    assert "no result for seed 0" in mean_of(lost([1.0, 2.0, 3.0], 0), threshold=0.0).reason  # too few are left, too


def test_a_failed_seed_counts_as_its_worst_where_there_is_one():
    values = lost([0.9 + 0.01 * (i % 3) for i in range(12)], 4)
    as_zero = [0.0 if i == 4 else 0.9 + 0.01 * (i % 3) for i in range(12)]
    found = mean_of(values, threshold=0.5, bounds=(0, 1))
    assert status(found) is Status.SUPPORTED
    assert found.effect == pytest.approx(np.mean(as_zero))
    assert found.p_value == pytest.approx(stats.ttest_1samp(as_zero, 0.5).pvalue)
    assert found.test.endswith("failed seed 4 counted as 0")
    assert status(mean_of(values, threshold=0.5, alternative="less", bounds=(0, 1))) is Status.CONTRADICTED
    closer = mean_of(values, threshold=0.8, bounds=(0, 1))
    assert status(closer) is Status.INCONCLUSIVE
    assert closer.reason == "no result for seed 4 (ValueError: no); with seed 4 counted as 0, the data cannot tell"
    assert closer.effect == pytest.approx(0.91, abs=0.01)  # of the seeds that there are


def test_a_failed_pair_counts_as_its_worst_on_the_arms_that_failed():
    n = 12
    new, old = [0.9 + 0.01 * (i % 3) for i in range(n)], [0.1 + 0.02 * (i % 2) for i in range(n)]
    found = paired_difference(lost(new, 4), by_seed(old), bounds=(0, 1))
    expected = paired_difference(by_seed([0.0 if i == 4 else x for i, x in enumerate(new)]), by_seed(old))
    assert (status(found), found.effect) == (Status.SUPPORTED, expected.effect)
    both = paired_difference(lost(new, 4), lost(old, 4), bounds=(0, 1))
    assert both.effect == pytest.approx((sum(new) - new[4] - sum(old) + old[4] - 1) / n)
    assert found.test.endswith("failed seed 4 of the treatment counted as 0")
    other = paired_difference(by_seed(new), lost(old, 4), bounds=(0, 1))
    assert other.test.endswith("failed seed 4 of the control counted as 1")
    assert both.test.endswith("failed seed 4 of the treatment counted as 0 and seed 4 of the control counted as 1")
    inside = equivalent(lost(new, 4), by_seed(new), margin=0.5, bounds=(0, 1))
    assert status(inside) is Status.SUPPORTED
    assert status(equivalent(lost(new, 4), by_seed(new), margin=0.1, bounds=(0, 1))) is Status.INCONCLUSIVE


def test_a_failed_share_counts_as_none_of_its_cases():
    found = mean_of(lost([1.0] * 20, 7), threshold=0.5, cases=50)
    assert (found.effect, status(found)) == (pytest.approx(0.95), Status.SUPPORTED)


def test_exact_claims_need_every_seed_to_hold_and_one_to_fail():
    failed = {3: "killed"}
    found = exact(holds=True, effect=0, n=10, test="exceptions", failed=failed)
    assert (status(found), found.reason) == (Status.INCONCLUSIVE, "no result for seed 3 (killed)")
    assert status(exact(holds=False, effect=1, n=10, test="exceptions", failed=failed)) is Status.CONTRADICTED


def test_exact():
    assert status(exact(holds=True, effect=1e-12, n=1000, test="identity")) is Status.SUPPORTED
    assert status(exact(holds=False, effect=3.0, n=1, test="identity")) is Status.CONTRADICTED
    assert "no case" in exact(holds=True, effect=0.0, n=0, test="identity").reason
    assert "nan" in exact(holds=True, effect=math.nan, n=5, test="identity").reason
    assert status(exact(holds=True, effect=math.inf, n=5, test="identity")) is Status.INCONCLUSIVE


# Holm's correction.


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # times 3, 1, 2, 4; then the running maximum
        ([0.04, 0.04, 0.04], [0.12, 0.12, 0.12]),
        ([0.6, 0.9], [1.0, 1.0]),
        ([0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_holm_by_hand(p_values, expected):
    assert holm(p_values) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_monotonic_and_between_the_raw_value_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) or q == pytest.approx(p)
    for (p, q), (r, s) in itertools.combinations(zip(p_values, adjusted, strict=True), 2):
        assert (q <= s) if p <= r else (q >= s)
    by_steps = sorted(p_values)
    rejected = list(itertools.takewhile(lambda i: by_steps[i] * (len(by_steps) - i) < LEVEL, range(len(by_steps))))
    assert sum(q < LEVEL for q in adjusted) == len(rejected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_follows_a_permutation(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    adjusted = holm(p_values)
    assert holm([p_values[i] for i in order]) == [adjusted[i] for i in order]


def evidence(p: float | None, *, favours: bool = True) -> Evidence:
    return Evidence(1.0, 0.5, 1.5, favours, p, 5, "t", "" if p is not None else "lost")


def test_a_claim_that_could_not_be_tested_counts_in_its_family():
    claims = [claim("a"), claim("b")]
    verdicts = judge(claims, [evidence(0.03), evidence(None)])
    assert verdicts[0].p_adjusted == pytest.approx(0.06)
    assert verdicts[0].status is Status.INCONCLUSIVE
    assert verdicts[1].reason == "lost"
    assert judge(claims[:1], [evidence(0.03)])[0].status is Status.SUPPORTED


def test_families_are_corrected_apart_and_the_order_is_kept():
    claims = [claim("a", "one"), claim("b", "two"), claim("c", "one")]
    verdicts = judge(claims, [evidence(0.04), evidence(0.04, favours=False), evidence(0.001)])
    assert [verdict.claim for verdict in verdicts] == ["a", "b", "c"]
    assert [verdict.p_adjusted for verdict in verdicts] == pytest.approx([0.04, 0.04, 0.002])
    assert [verdict.status for verdict in verdicts] == ["supported", "contradicted", "supported"]
    assert verdicts[1].text == "text of b"
    assert verdicts[1].paper == "paper on b"


def test_the_level_itself_is_inconclusive():
    assert status(evidence(LEVEL)) is Status.INCONCLUSIVE
    assert status(evidence(np.nextafter(LEVEL, 0))) is Status.SUPPORTED


def test_claims_and_evidence_must_pair_up():
    with pytest.raises((ValueError, IndexError)):
        judge([claim("a"), claim("b")], [evidence(0.1)])


# The reason.


def test_reason_is_empty_for_a_decision_and_names_the_p_value_otherwise():
    assert judge([claim()], [evidence(0.01)])[0].reason == ""
    assert judge([claim()], [evidence(0.2)])[0].reason == "the data cannot tell (adjusted p = 0.2 ≥ 0.05)"


@pytest.mark.parametrize("odd", [Evidence(), Evidence(effect=1.0, p_value=math.nan, n=4)])
def test_reason_exists_even_where_a_claims_own_test_gave_none(odd):
    verdict = judge([claim()], [odd])[0]
    assert isinstance(verdict, Verdict)
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.p_adjusted is None
    assert verdict.reason


def test_any_mapping_will_do():
    class Values(Mapping[int, float]):
        def __getitem__(self, seed):
            return float(seed)

        def __iter__(self):
            return iter(range(5))

        def __len__(self):
            return 5

    assert mean_of(Values(), threshold=-1.0).effect == 2.0
