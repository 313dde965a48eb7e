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
        status(paired_difference(by_seed(rng.normal(2, 0.5, 5)), by_seed(rng.normal(0, 0.5, 5)))) for _ in range(200)
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
        alone += any(item.p_value < LEVEL for item in evidence)
    assert together <= STUDIES * 0.05 + 4 * math.sqrt(STUDIES * 0.05 * 0.95)
    assert within(together, 1 - (1 - 0.05 / 6) ** 6)  # Holm's first step, for independent claims
    assert within(alone, 1 - 0.95**6)  # what would happen without it


def test_bootstrap_coverage_is_known_to_be_a_little_short():
    rng = np.random.default_rng(11)
    n = 150
    covered = false = 0
    for _ in range(n):
        evidence = mean_of(by_seed(rng.normal(size=20)), threshold=0.0, interval="bootstrap")
        covered += evidence.low <= 0 <= evidence.high
        false += evidence.p_value < LEVEL
    assert 0.86 * n <= covered <= n
    assert abs(false - (n - covered)) <= 1  # the p-value and the interval tell the same story


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
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-3, abs=1e-9)
        assert [found.low, found.high] == pytest.approx([*interval], rel=1e-6, abs=1e-6)
        side = np.mean(a - b) > threshold if alternative == "greater" else np.mean(a - b) < threshold
        assert found.favours == side


@given(st.lists(finite, min_size=3, max_size=10))
@settings(max_examples=100, deadline=None)
def test_interval_and_p_value_agree(values):
    found = mean_of(by_seed(values), threshold=0.5)
    excluded = not found.low <= 0.5 <= found.high
    if abs(found.p_value - 0.05) > 1e-6:
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


def test_bootstrap_interval_is_scipys_percentile_interval():
    values = np.random.default_rng(3).exponential(size=15)
    found = mean_of(by_seed(values), threshold=1.0, interval="bootstrap")
    means = np.random.default_rng(1).choice(values, (20_000, 15)).mean(axis=1)
    assert [found.low, found.high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.03)
    assert found.effect == pytest.approx(values.mean())
    assert "bootstrap" in found.test
    assert found == mean_of(by_seed(values), threshold=1.0, interval="bootstrap"), "must be reproducible"


def test_bootstrap_p_value_is_never_zero_and_follows_the_side():
    values = by_seed(np.random.default_rng(4).normal(5, 0.1, 12))
    above = mean_of(values, threshold=0.0, interval="bootstrap")
    below = mean_of(values, threshold=0.0, alternative="less", interval="bootstrap")
    assert 0 < above.p_value == below.p_value < 0.001
    assert (status(above), status(below)) == (Status.SUPPORTED, Status.CONTRADICTED)


def test_bootstrap_needs_ten_seeds():
    values = by_seed(np.random.default_rng(0).normal(size=9))
    found = mean_of(values, threshold=0.0, interval="bootstrap")
    assert found.p_value is None
    assert "9 seeds, at least 10 needed" in found.reason


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


def test_arms_that_never_differ_are_equivalent():
    arm = by_seed([0.1, 0.7, 0.4])
    found = equivalent(arm, dict(arm), margin=0.01)
    assert status(found) is Status.SUPPORTED
    assert found.effect == 0


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


def test_a_constant_difference():
    control = by_seed([0.1, 0.2, 0.3, 0.7])
    treatment = {seed: value + 0.1 for seed, value in control.items()}  # rounding makes these differ by 1e-17
    above = paired_difference(treatment, control)
    assert status(above) is Status.SUPPORTED
    assert above.low == above.high == above.effect == pytest.approx(0.1)
    assert status(paired_difference(treatment, control, alternative="less")) is Status.CONTRADICTED
    on_it = paired_difference(treatment, control, threshold=0.1)
    assert status(on_it) is Status.INCONCLUSIVE


def test_rounding_noise_of_large_values_is_no_evidence():
    control = by_seed(np.random.default_rng(0).uniform(1e6, 2e6, 8))
    treatment = {seed: value + 0.1 for seed, value in control.items()}
    for interval in ("t", "bootstrap"):
        extended = {**control, 8: 1.5e6, 9: 1.7e6}
        found = paired_difference(
            {seed: value + 0.1 for seed, value in extended.items()}, extended, threshold=0.1, interval=interval
        )
        assert found.p_value == 1.0
    assert status(paired_difference(treatment, control, threshold=0.05)) is Status.SUPPORTED


def test_a_constant_bootstrap_does_not_resample():
    found = mean_of(by_seed([2.0] * 10), threshold=1.0, interval="bootstrap")
    assert (found.low, found.high, found.p_value) == (2.0, 2.0, 0.0)


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [("alternative", "two-sided"), ("interval", "bca"), ("threshold", math.nan)],
)
def test_a_misspelt_option_is_refused(argument, wrong):
    values = by_seed([1.0, 2.0, 4.0])
    options = {"threshold": 0.0, argument: wrong}
    with pytest.raises(ArgumentError, match=argument):
        mean_of(values, **options)
    with pytest.raises(ArgumentError, match=argument):
        paired_difference(values, by_seed([0.0, 0.5, 0.1]), **options)


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
