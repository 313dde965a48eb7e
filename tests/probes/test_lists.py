"""The probe of list functions: what it counts, and that it needs no labels, no torch model and no luck."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.lists import BadAnswer, Oracle
from holdfast.probes.lists import ListReport, probe_filter_equivariance
from holdfast.studies.lists.tasks import CONTROLS, EQUIVARIANT

LENGTHS = (2, 4, 6, 8)


def quus(xs):
    """Sorts up to five elements, and gives up beyond."""
    return sorted(xs) if len(xs) <= 5 else list(xs[::2])


@pytest.mark.parametrize("task", EQUIVARIANT, ids=lambda task: task.name)
def test_what_keeps_the_law_is_never_blamed(task):
    lists = [np.random.default_rng(seed).integers(9, size=1 + seed % 12).tolist() for seed in range(100)]
    for report in (probe_filter_equivariance(task, LENGTHS), probe_filter_equivariance(task, lists=lists)):
        assert all(entry.violation == entry.alien == entry.multiplicity == 0 for entry in report.entries)
        assert report.violations(0.0) == ()
        assert report.breaks_at(0.0) is None


@pytest.mark.parametrize("task", CONTROLS, ids=lambda task: task.name)
def test_what_breaks_the_law_is_caught(task):
    report = probe_filter_equivariance(task, [8], lists_per_length=200)
    assert report.entries[0].violation > 0.04
    assert report.entries[0].alien == 0


def test_the_share_is_that_of_the_deletions_that_show():
    """Rotating shows only where the first element is deleted, unless the list is of one or two."""
    report = probe_filter_equivariance(lambda xs: [*xs[1:], *xs[:1]], [2, 5], lists_per_length=4000)
    assert report.entries[0].violation == 0
    entry = report.entries[1]
    assert entry.interval[0] < 1 / 5 < entry.interval[1]
    assert entry.interval[1] - entry.interval[0] < 0.03


def test_violations_show_where_a_function_departs():
    report = probe_filter_equivariance(quus, [3, 5, 6, 7], reference=sorted)
    assert [entry.exact for entry in report.entries] == [1, 1, 0, 0]
    assert [entry.violation > 0.5 for entry in report.entries] == [False, False, True, True]
    assert report.breaks_at() == 6
    assert [entry.length for entry in report.violations(0.5)] in ([6, 7], [7, 6])
    worst = report.violations(0.5)
    assert worst[0].violation >= worst[1].violation


def test_an_equivariant_mistake_does_not_show():
    entry = probe_filter_equivariance(lambda xs: sorted(xs, reverse=True), [6], reference=sorted).entries[0]
    assert (entry.violation, entry.exact) == (0, 0)


@pytest.mark.parametrize(
    ("f", "alien", "multiplicity"),
    [
        (lambda xs: [*xs, 1000], 1, 0),
        (lambda xs: [*xs, *xs[:1]] if len(xs) == 4 else xs, 0, 0.75),
        (lambda xs: xs[::-1] if len(xs) == 4 else xs, 0, 0),
        (lambda xs: [4000 + len(xs)], 1, 0),
    ],
    ids=["adds a value", "repeats the first", "changes its order", "says its length"],
)
def test_kinds_of_violation(f, alien, multiplicity):
    entry = probe_filter_equivariance(f, [4], lists_per_length=400).entries[0]
    assert entry.violation >= max(entry.alien, entry.multiplicity)
    assert entry.alien == alien
    assert entry.multiplicity == pytest.approx(multiplicity, abs=0.08)
    assert entry.violation > 0.6


def test_a_value_that_comes_back_after_its_deletion_is_alien():
    entry = probe_filter_equivariance(lambda xs: [3, 5], lists=[[3, 5]] * 10).entries[0]
    assert (entry.alien, entry.violation) == (1, 1)


def test_lists_may_hold_anything():
    lists = [["b", "a", "b"], [("x", 1), ("y", 2)], [[1], [2], [1]], "word"]
    report = probe_filter_equivariance(lambda xs: xs[::-1], lists=lists)
    assert report.lengths == (2, 3, 4)
    assert all(entry.violation == 0 for entry in report.entries)
    assert [entry.lists for entry in report.entries] == [1, 2, 1]


def test_values_are_what_lists_are_made_of():
    seen = []
    probe_filter_equivariance(lambda xs: seen.append(list(xs)) or xs, [3], values="abcd", lists_per_length=20)
    longest = [xs for xs in seen if len(xs) == 3]
    assert {x for xs in longest for x in xs} == set("abcd")
    assert all(len(set(xs)) == 3 for xs in longest)


def test_a_batched_function_is_called_once_a_length():
    sizes = []

    def f(lists):
        sizes.append(len(lists))
        return [sorted(xs) for xs in lists]

    report = probe_filter_equivariance(Oracle(f, batched=True), [5, 9], lists_per_length=30)
    assert sizes == [60, 60]
    assert report.queries == 120
    assert report == probe_filter_equivariance(sorted, [9, 5], lists_per_length=30)


def test_the_seed_decides_the_lists():
    one, two, other = (
        probe_filter_equivariance(CONTROLS[0], [6], seed=seed, lists_per_length=500).entries[0].violation
        for seed in (1, 1, 2)
    )
    assert one == two != other


def test_random_states_are_left_as_they_were():
    def careless(xs):
        random.random()
        np.random.random()
        torch.rand(1)
        return xs

    def states_after(f):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        probe_filter_equivariance(f, [3], lists_per_length=3)
        return random.getstate(), tuple(np.random.get_state()[1]), tuple(torch.get_rng_state().tolist())

    # Against a function that draws nothing, since the checks of types draw too.
    assert states_after(careless) == states_after(sorted)


def test_wilson_intervals_by_hand():
    entry = probe_filter_equivariance(sorted, [3], lists_per_length=60, reference=sorted).entries[0]
    z = 1.959963984540054
    assert entry.interval == pytest.approx((0, z**2 / (60 + z**2)))
    assert entry.exact_interval == pytest.approx((60 / (60 + z**2), 1))


def test_a_report_is_readable_and_plain():
    report = probe_filter_equivariance(quus, LENGTHS, reference=sorted)
    text = str(report)
    assert "violation" in text
    assert "exact" in text
    assert text.startswith("The function stops following the rule between lengths")
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["entries"][0]["length"] == 2
    without = probe_filter_equivariance(sorted, LENGTHS)
    assert math.isnan(without.entries[0].exact)
    assert without.to_dict()["entries"][0]["exact"] is None
    assert "exact" not in str(without)
    assert str(without).startswith("Up to length")


@pytest.mark.parametrize("reference", [None, sorted])
def test_a_plot_has_a_line_for_what_is_known(reference):
    figure, ax = plt.subplots()
    report: ListReport = probe_filter_equivariance(quus, LENGTHS, reference=reference)
    report.plot(ax)
    assert len(ax.lines) == 1 + (reference is not None)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [entry.violation for entry in report.entries])
    plt.close(figure)


def test_the_module_needs_no_torch():
    code = "import sys, holdfast.probes.lists; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "lengths: expected lengths, or lists, got neither"),
        ({"lengths": [3], "lists": [[1]]}, "lengths: expected lengths, or lists, got both"),
        ({"lengths": []}, "lengths: expected lengths from 1 to 128"),
        ({"lengths": [0, 3]}, "lengths: expected lengths from 1 to 128"),
        ({"lengths": [200]}, "lengths: expected lengths from 1 to 128"),
        ({"lengths": [2], "values": [1, 1, 2]}, "values: expected distinct values"),
        ({"lengths": [2], "lists_per_length": 0}, "lists_per_length: expected a whole number of at least 1"),
        ({"lists": [[1], []]}, "lists: expected lists with an element to delete"),
        ({"lists": []}, "lists: expected at least one list"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        probe_filter_equivariance(sorted, **arguments)


def test_an_answer_that_is_no_list_is_named():
    with pytest.raises(BadAnswer, match="returned int"):
        probe_filter_equivariance(len, [3])


@pytest.mark.parametrize(
    ("f", "lengths", "begins", "advice"),
    [
        (sorted, (3, 6), "Up to length 6 the function follows the rule on every list tried", "greater lengths"),
        (quus, (3, 5, 6, 7), "The function stops following the rule between lengths 5 and 6", "capacity=5)"),
        (quus, (6, 7), "The function breaks the rule on most lists from length 6 on", "try shorter lists"),
        (lambda xs: [*xs[1:], *xs[:1]], (2, 8), "The function breaks the rule now and then", "votes"),
    ],
)
def test_the_report_begins_with_a_verdict(f, lengths, begins, advice):
    report = probe_filter_equivariance(f, lengths)
    assert report.verdict.startswith(begins)
    assert advice in report.verdict
    assert report.verdict.endswith(".")
    assert " ".join(str(report).split()).startswith(report.verdict)
    assert report.to_dict()["verdict"] == report.verdict


def test_the_columns_are_explained():
    report = probe_filter_equivariance(sorted, [3], reference=sorted, lists_per_length=5)
    header = next(line for line in str(report).splitlines() if line.split()[:2] == ["n", "lists"])
    explained = [line.split("  ")[0] for line in report.explain().splitlines()]
    assert set(header.replace("95 %", "95%").split()) == {name.replace(" ", "") for name in explained}
    assert "exact" not in probe_filter_equivariance(sorted, [3], lists_per_length=5).explain()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lists": [[1, 2]], "values": "ab"}, "values: expected none beside lists of your own"),
        ({"lists": [[1, 2]], "lists_per_length": 3}, "lists_per_length: expected none beside lists of your own"),
        ({"lengths": [2], "seed": -1}, "seed: expected a whole number"),
    ],
)
def test_options_that_do_not_apply_or_cannot_be_used_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        probe_filter_equivariance(sorted, **options)
