"""Losses of partitions by definition, and what is found where the groups are known."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.probes.macros.groups import Path, agglomerate, centred, correlations, differences, losses

RNG = np.random.default_rng(7)


def some_values(masked: bool, second: bool):
    q = RNG.normal(size=(30, 6))
    legal = RNG.random(q.shape) < 0.7 if masked else np.ones(q.shape, dtype=bool)
    legal[:, 0] = True
    other = 0.5 * q + RNG.normal(size=q.shape) if second else None
    return centred(q, legal, other)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_losses_are_those_of_group_means(masked: bool, second: bool):
    """Each partition of the path by loops over states, groups and members."""
    values = some_values(masked, second)
    path = Path(6, ((1, 4), (0, 3), (1, 5), (0, 1)))
    residual, retention = losses(values, path)
    for groups in range(2, 7):
        labels = path.labels(groups)
        assert len(set(labels.tolist())) == groups
        lost = total = 0.0
        leads = []
        for own, judge in values.agents:
            kept = lead = 0.0
            for q, p, legal in zip(own, judge, values.legal, strict=True):
                smooth_q, smooth_p = (
                    np.array([v[(labels == labels[i]) & legal].mean() if legal[i] else 0.0 for i in range(6)])
                    for v in (q, p)
                )
                lost += ((q - smooth_q) * (p - smooth_p))[legal].sum()
                total += (q * p).sum()
                kept += smooth_p[np.where(legal, smooth_q, -np.inf).argmax()]
                lead += p[np.where(legal, q, -np.inf).argmax()]
            leads.append(kept / lead)
        assert residual[groups] == pytest.approx(lost / total, abs=1e-12)
        assert retention[groups] == pytest.approx(np.mean(leads), abs=1e-12)
    assert np.isnan(residual[:2]).all()


def test_all_in_one_group_loses_all():
    values = some_values(masked=False, second=False)
    residual, retention = losses(values, Path(6, tuple((0, b) for b in range(1, 6))))
    assert residual[1] == pytest.approx(1.0)
    assert retention[1] == pytest.approx(0.0, abs=1e-12)


def test_pairs_by_hand():
    """Columns less their means: (-1, 1, 0), (1, -1, 0), (1, -1, 0)."""
    values = centred(np.array([[0.0, 2, 1], [5, 3, 4], [2, 0, 1]]), np.ones((3, 3), dtype=bool))
    assert differences(values, np.ones(3)) == pytest.approx(np.array([[0, 2, 1], [2, 0, 1], [1, 1, 0]]))
    found = correlations(values)
    assert found[:2, :2] == pytest.approx(np.array([[1.0, -1], [-1, 1]]))
    assert np.isnan(found[2]).all()
    assert np.isnan(found[:, 2]).all()


def test_correlations_are_over_states_where_both_are_legal():
    values = some_values(masked=True, second=False)
    found = correlations(values)
    both = values.legal[:, 2] & values.legal[:, 5]
    assert found[2, 5] == pytest.approx(np.corrcoef(values.q[both, 2], values.q[both, 5])[0, 1])


def test_weights_are_repetitions():
    values = some_values(masked=True, second=True)
    times = RNG.integers(0, 3, size=30)
    repeated = values.part(np.repeat(np.arange(30), times))
    assert differences(values, times.astype(float)) == pytest.approx(differences(repeated, np.ones(times.sum())))


def test_actions_that_are_never_legal_together_stay_apart():
    q = np.tile([1.0, 1, 3, 3], (40, 1)) + RNG.normal(size=(40, 1))
    legal = np.ones((40, 4), dtype=bool)
    legal[:20, :2] = False
    legal[20:, 2:] = False
    values = centred(np.where(legal, q + 0.1 * RNG.normal(size=q.shape), 0.0), legal)
    path = agglomerate(values, np.ones(40))
    assert sorted(path.merges) == [(0, 1), (2, 3)]
