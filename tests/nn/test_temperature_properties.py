"""What holds for the adaptive softmax of any row: shifts, orders and padding change nothing, and entropy is bounded."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.nn import adaptive_softmax, entropy_of

rows = st.lists(st.floats(-20, 20), min_size=1, max_size=24).map(lambda z: torch.tensor(z, dtype=torch.float64))
properties = settings(max_examples=60, deadline=None)


@properties
@given(rows, st.floats(-1e3, 1e3))
def test_shift_invariance(z, shift):
    torch.testing.assert_close(adaptive_softmax(z + shift), adaptive_softmax(z), atol=1e-10, rtol=0)


@properties
@given(rows, st.randoms(use_true_random=False))
def test_permutation_equivariance(z, random):
    order = list(range(len(z)))
    random.shuffle(order)
    torch.testing.assert_close(adaptive_softmax(z[order]), adaptive_softmax(z)[order], atol=1e-12, rtol=0)


@properties
@given(rows, st.integers(1, 30))
def test_padding_changes_nothing(z, count):
    padded = torch.cat([z, z.new_full((count,), -math.inf)])
    weights = adaptive_softmax(padded)
    torch.testing.assert_close(weights[: len(z)], adaptive_softmax(z), atol=1e-13, rtol=0)
    assert (weights[len(z) :] == 0).all()


@properties
@given(rows)
def test_entropy_bounds_and_sharpening(z):
    """ln n - spread <= H <= ln n (lemma 2.1), and beta >= 1 never raises it."""
    h = entropy_of(z).item()
    weights = adaptive_softmax(z)
    spread = (z.max() - z.min()).item()
    assert max(0.0, math.log(len(z)) - spread) - 1e-12 <= h <= math.log(len(z)) + 1e-12
    assert entropy_of(weights.log()).item() <= h + 1e-9
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-12)
