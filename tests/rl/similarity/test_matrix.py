"""Similarities are symmetric, not negative, balanced; they never start at the identity, nor get there unseen."""

from __future__ import annotations

import re
import warnings
from collections import Counter

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.rl import Macros, SimilarityMatrix, SimilarityWarning, effective_actions, similar_groups, spectral_actions
from holdfast.rl.similarity import sinkhorn


def averaging(n: int, clusters: int) -> SimilarityMatrix:
    return SimilarityMatrix(n, kind="cluster", clusters=[min(action, clusters - 1) for action in range(n)])


@pytest.mark.parametrize("n", [2, 3, 7, 64, 256])
@pytest.mark.parametrize("iterations", [1, 8, 20])
def test_sinkhorn_is_symmetric_and_doubly_stochastic(n, iterations):
    generator = torch.Generator().manual_seed(100 + n)
    spread = 2 * torch.rand(n, n, generator=generator) - 1
    for weights in (5 * spread, 5 * spread.sign(), torch.zeros(n, n)):
        sigma = sinkhorn(weights, iterations)
        assert sigma.dtype == torch.float32
        assert (sigma.sum(1) - 1).abs().max() < 1e-4
        assert (sigma - sigma.T).abs().max() < 1e-6
        assert sigma.min() >= 0


@pytest.mark.parametrize("n", [2, 5, 64])
def test_saturated_weights_give_numbers_and_gradients(n):
    generator = torch.Generator().manual_seed(200 + n)
    for weights in (
        50 * (torch.rand(n, n, generator=generator) - 0.5).sign(),
        torch.full((n, n), -50.0).fill_diagonal_(50.0),
        torch.full((n, n), 50.0).fill_diagonal_(-50.0),
        torch.full((n, n), 1e6).fill_diagonal_(-1e6),
    ):
        weights.requires_grad_()
        sigma = sinkhorn(weights, 20)
        sigma.square().sum().backward()
        assert torch.isfinite(sigma).all()
        assert torch.isfinite(weights.grad).all()
        assert (sigma.detach().sum(1) - 1).abs().max() < 1e-4
        assert sigma.min() >= -1e-6


def test_sinkhorn_converges_to_the_matrix_with_balanced_rows_and_its_gradient_is_right():
    generator = torch.Generator().manual_seed(300)
    target = sinkhorn(torch.randn(6, 6, generator=generator, dtype=torch.float64), 500)
    scales = torch.rand(6, 1, generator=generator, dtype=torch.float64) + 0.5
    # Whatever rows and columns are scaled by is undone.
    torch.testing.assert_close(sinkhorn((scales * target * scales.T).log(), 500), target, rtol=1e-9, atol=1e-12)
    weights = torch.randn(4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: sinkhorn(w, 5), (weights,))
    batch = torch.randn(3, 4, 4, generator=generator)
    torch.testing.assert_close(sinkhorn(batch, 9), torch.stack([sinkhorn(one, 9) for one in batch]))


def by_rounds(weights: torch.Tensor, iterations: int) -> torch.Tensor:
    """As it is defined, each operation with autograd's own rule."""
    kernel = torch.exp((weights + weights.mT) / 2)
    for _ in range(iterations):
        scale = kernel.sum(-1, keepdim=True).rsqrt()
        kernel = scale * kernel * scale.mT
    balanced = kernel / kernel.sum(-1, keepdim=True).amax(-2, keepdim=True)
    return balanced + torch.diag_embed(1 - balanced.sum(-1))


@pytest.mark.parametrize("iterations", [1, 2, 12])
def test_sinkhorn_and_its_gradient_are_those_of_the_rounds(iterations):
    generator = torch.Generator().manual_seed(400)
    weights = (3 * torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    towards = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    ours, theirs = sinkhorn(weights, iterations), by_rounds(weights, iterations)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)
    mine, other = (torch.autograd.grad((sigma * towards).sum(), weights)[0] for sigma in (ours, theirs))
    assert other.abs().max() > 1e-2
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [2, 6, 32, 64])
@pytest.mark.parametrize("kind", ["raw", "sinkhorn"])
def test_no_start_is_the_identity_or_uniform(kind, n):
    similarity = SimilarityMatrix(n, kind=kind)
    sigma = similarity.matrix().detach()
    diagonal = max(0.05 if kind == "sinkhorn" else 0.5, 1.5 / n)
    assert float(sigma.diagonal().mean()) == pytest.approx(diagonal, rel=0.05)
    others = sigma[~torch.eye(n, dtype=torch.bool)]
    assert torch.allclose(others, torch.tensor((1 - diagonal) / (n - 1)), rtol=0.1)
    assert (sigma == sigma.T).all()
    assert n == 2 or len(others.unique()) > n - 1  # noise
    assert torch.equal(sigma, SimilarityMatrix(n, kind=kind).matrix())
    assert not torch.equal(sigma, SimilarityMatrix(n, kind=kind, seed=1).matrix())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        similarity.project_()


def test_a_start_can_be_given_and_the_identity_is_refused():
    start = averaging(5, 2).matrix()
    torch.testing.assert_close(SimilarityMatrix(5, kind="raw", start=start).matrix().detach(), start)
    torch.testing.assert_close(SimilarityMatrix(5, start=start).matrix().detach(), start, rtol=0, atol=1e-5)
    assert SimilarityMatrix(5, start=0.9).matrix().diagonal().mean().item() == pytest.approx(0.9, abs=0.01)
    for kind in ("raw", "sinkhorn"):
        with pytest.raises(ArgumentError, match="start: expected another matrix than the identity"):
            SimilarityMatrix(5, kind=kind, start=torch.eye(5))
        for diagonal in (1.0, 0.0, float("nan")):
            with pytest.raises(ArgumentError, match="at the identity nothing is learned"):
                SimilarityMatrix(5, kind=kind, start=diagonal)
    empty = start.clone()
    empty[3] = empty[:, 3] = 0
    with pytest.raises(ArgumentError, match="start: expected rows that are not all zeros, got zeros for action 3"):
        SimilarityMatrix(5, start=empty)


def test_bad_matrices_are_refused_or_projected():
    good = averaging(4, 2).matrix()
    skew, negative, nan = good.clone(), good.clone(), good.clone()
    skew[0, 1] += 0.1
    negative[2, 3] = negative[3, 2] = -0.2
    nan[1, 1] = torch.nan
    for matrix, message in [
        (torch.zeros(3, 3), r"start: expected shape \(4, 4\), of 4 actions, got shape \(3, 3\)"),
        (torch.zeros(4, 3), r"start: expected shape \(4, 4\)"),
        (skew, "start: expected a symmetric matrix"),
        (negative, "start: expected entries that are not negative .* got -0.2"),
        (nan, "start: expected finite entries"),
        (nan * torch.inf, "start: expected finite entries"),
    ]:
        for kind in ("frozen", "raw", "sinkhorn"):
            with pytest.raises(ArgumentError, match=message):
                SimilarityMatrix(4, kind=kind, start=matrix)
    projected = SimilarityMatrix(4, kind="frozen", start=negative + skew - good, project=True).matrix()
    assert float(projected[0, 1]) == pytest.approx(0.05)
    assert float(projected[2, 3]) == 0
    assert torch.equal(projected, projected.T)
    for settings, message in [
        ({"kind": "frozen"}, "start: expected a matrix for kind frozen, got None"),
        ({"kind": "cluster"}, "clusters: expected the group of each action"),
        ({"kind": "raw", "clusters": [0, 0, 1, 1]}, "clusters: .* None for others"),
        ({"kind": "cluster", "clusters": [0, 1]}, "clusters: expected the groups of 4 actions, got 2 groups"),
        ({"kind": "cluster", "clusters": [0, 0, 1, 1], "start": 0.5}, "start: expected None for kind cluster"),
        ({"iterations": 0}, "iterations: expected a whole number of at least 1"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            SimilarityMatrix(4, **settings)
    with pytest.raises(ArgumentError, match="actions: expected a whole number of at least 2"):
        SimilarityMatrix(1)


def test_effective_actions_by_both_definitions():
    for n, clusters, expected in [(32, 9, 11.0909), (64, 9, 14.0), (64, 1, 6.7273), (12, 12, 12.0)]:
        similarity = averaging(n, clusters)
        assert similarity.d_eff(10.0) == pytest.approx(expected, abs=1e-4)
        assert spectral_actions(similarity.matrix()) == pytest.approx(clusters, rel=1e-5)
    generator = torch.Generator().manual_seed(100)
    sigma = torch.rand(5, 5, generator=generator, dtype=torch.float64)
    deviation = torch.eye(5, dtype=torch.float64) - sigma
    smoother = torch.linalg.inv(torch.eye(5, dtype=torch.float64) + 3 * deviation.T @ deviation)
    assert effective_actions(sigma, 3.0) == pytest.approx(float(smoother.trace()), rel=1e-10)
    assert effective_actions(sigma, 0.0) == 5
    for bad, message in [
        (torch.zeros(2, 3), "sigma: expected a square matrix"),
        (torch.full((2, 2), torch.nan), "sigma: expected finite entries"),
    ]:
        for measure in (effective_actions, spectral_actions, similar_groups):
            with pytest.raises(ArgumentError, match=message):
                measure(bad)
    with pytest.raises(ArgumentError, match="c: expected 0 or a positive finite number"):
        effective_actions(sigma, -1.0)
    with pytest.raises(ArgumentError, match="sigma: expected a matrix that is not 0"):
        spectral_actions(torch.zeros(2, 2))


def test_groups_of_similar_actions():
    labels = [3, 1, 1, 3, 0, 1]
    similarity = SimilarityMatrix(6, kind="cluster", clusters=labels)
    assert similarity.clusters() == ((0, 3), (1, 2, 5), (4,))
    generator = torch.Generator().manual_seed(100)
    noise = torch.rand(6, 6, generator=generator) * 0.05
    assert similar_groups(similarity.matrix() + noise) == ((0, 3), (1, 2, 5), (4,))
    assert similar_groups(similarity.matrix(), least=1.0) == ((0, 3), (1, 2, 5), (4,))
    apart = torch.eye(6) + noise + noise.T
    assert similar_groups(apart) == tuple((action,) for action in range(6))
    assert similar_groups(apart, least=0.01) == (tuple(range(6)),)
    with pytest.raises(ArgumentError, match="sigma: expected a positive diagonal"):
        similar_groups(torch.ones(2, 2).fill_diagonal_(0.0))


def test_steps_are_projected():
    raw = SimilarityMatrix(4, kind="raw")
    with torch.no_grad():
        raw.weights[0, 1] -= 5.0
        raw.weights[2, 3] += 0.2
    raw.project_()
    assert raw.weights[0, 1].item() == raw.weights[1, 0].item() == 0
    assert torch.equal(raw.weights, raw.weights.T)
    assert torch.equal(raw.matrix(), raw.weights)
    balanced = SimilarityMatrix(4)
    with torch.no_grad():
        balanced.weights[0, 1] = 70.0
    with pytest.warns(SimilarityWarning, match="entries of W beyond ±50"):
        balanced.project_()
    assert float(balanced.weights.detach().abs().max()) == 50


@pytest.mark.parametrize("kind", ["raw", "sinkhorn"])
def test_collapse_and_diffusion_are_warned_of_once_each_time(kind):
    similarity = SimilarityMatrix(6, kind=kind)
    start = similarity.weights.detach().clone()
    collapsed = torch.full((6, 6), 1e-3).fill_diagonal_(0.995)
    uniform = torch.full((6, 6), 1 / 6)

    def become(matrix: torch.Tensor) -> list[str]:
        with torch.no_grad():
            similarity.weights.copy_(matrix.log() if kind == "sinkhorn" else matrix)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            similarity.project_()
        assert all(warning.category is SimilarityWarning for warning in caught)
        return [re.search("identity|uniform", str(warning.message))[0] for warning in caught]

    first = start.exp() if kind == "sinkhorn" else start
    course = [first, collapsed, collapsed, uniform, uniform, first, collapsed]
    assert [become(matrix) for matrix in course] == [[], ["identity"], [], ["uniform"], [], [], ["identity"]]
    numbers = similarity.statistics()
    assert numbers["diagonal"] == pytest.approx(0.995, rel=1e-5)
    assert numbers["off_diagonal"] == pytest.approx(0.005, rel=1e-3)
    assert numbers["d_eff"] == pytest.approx(6.0, abs=1e-2)


def test_smoothing_values():
    similarity = SimilarityMatrix(3, kind="cluster", clusters=[0, 0, 1])
    torch.testing.assert_close(similarity(torch.tensor([[1.0, 3.0, 2.0]])), torch.tensor([[2.0, 2.0, 2.0]]))
    assert Counter(dict(similarity.named_parameters())) == {}


def test_checkpoints_are_of_the_same_actions(tmp_path):
    macros = Macros(2, ((0, 0), (1, 1)))
    similarity = SimilarityMatrix(macros, seed=5)
    optimizer = torch.optim.Adam(similarity.parameters(), lr=0.01)
    for step in range(6):
        if step == 3:
            torch.save((similarity.state_dict(), optimizer.state_dict()), tmp_path / "state")
        optimizer.zero_grad()
        (similarity.matrix() @ torch.arange(4.0)).square().sum().backward()
        optimizer.step()
        similarity.project_()
    again = SimilarityMatrix(macros)
    other = torch.optim.Adam(again.parameters(), lr=0.01)
    state, moments = torch.load(tmp_path / "state", weights_only=True)
    again.load_state_dict(state)
    other.load_state_dict(moments)
    for _ in range(3):
        other.zero_grad()
        (again.matrix() @ torch.arange(4.0)).square().sum().backward()
        other.step()
        again.project_()
    assert torch.equal(again.weights, similarity.weights)
    for wrong, message in [
        (SimilarityMatrix(Macros(2, ((1, 1), (0, 0)))), r"got action 2 = \(0, 0\), here \(1, 1\)"),
        (SimilarityMatrix(4), r"got action 2 = \(0, 0\), here \(2,\)"),
        (SimilarityMatrix(macros, kind="raw"), "expected a similarity of kind raw, got sinkhorn"),
        (SimilarityMatrix(macros, iterations=8), "expected a similarity of iterations 8, got 12"),
        (SimilarityMatrix(Macros(2, ((0, 0),))), "got 4 actions, here 3"),
    ]:
        kept = wrong.weights.detach().clone()
        with pytest.raises(ArgumentError, match=message):
            wrong.load_state_dict(state)
        assert torch.equal(wrong.weights, kept)
    # As a part of an agent too.
    agent = torch.nn.ModuleDict({"similarity": SimilarityMatrix(Macros(2, ((1, 1), (0, 0))))})
    with pytest.raises(ArgumentError, match="the same actions in the same order"):
        agent.load_state_dict({f"similarity.{name}": value for name, value in state.items()})
