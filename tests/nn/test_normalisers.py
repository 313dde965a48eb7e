"""Every normaliser meets the figures of its own paper, and the same rules for masks, dtypes and NaN."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import (
    NORMALISERS,
    Adaptive,
    AdaptiveTemperature,
    Entmax,
    Hard,
    Llama4,
    LogN,
    Plain,
    Rows,
    ScaleInvariant,
    Sparsemax,
    SSMax,
    YaRN,
    adaptive_softmax,
)

pytestmark = pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning")

ALL = [
    Plain(),
    Adaptive(),
    Adaptive(AdaptiveTemperature((2.0,)), detach=False),
    LogN(4),
    SSMax(),
    YaRN(4.0),
    Llama4(floor_scale=4.0),
    ScaleInvariant(),
    Hard(),
    Entmax(),
    Entmax(1.3),
    Sparsemax(),
]
each = pytest.mark.parametrize("normaliser", ALL, ids=repr)


def factor(normaliser, visible=1, position=0):
    one = torch.zeros(1, 1, dtype=torch.float64)
    return normaliser.factor(one, torch.tensor([[visible]]), torch.tensor([[position]])).item()


def test_every_name_has_a_normaliser():
    assert {type(normaliser) for normaliser in ALL} == set(NORMALISERS.values())


def test_figures_of_the_papers():
    needle = torch.full((1, 1024), -2.0, dtype=torch.float64)
    needle[0, 0] = 3.0
    assert Plain().weights(needle)[0, 0].item() == pytest.approx(0.1267, abs=5e-5)
    assert SSMax(0.43).weights(needle)[0, 0].item() == pytest.approx(0.9997, abs=5e-5)
    for length, value in ((1024, 1.0), (8192, 1.182), (32768, 1.364), (131072, 1.545)):
        assert factor(LogN(2048), visible=length) == pytest.approx(value, abs=5e-4)
    assert factor(YaRN(4.0)) == pytest.approx(1.296, abs=5e-4)
    assert factor(YaRN(32.0)) == pytest.approx(1.813, abs=5e-4)
    for position, value in ((8190, 1.0), (8191, 1.0693), (131071, 1.283), (1048575, 1.486)):
        assert factor(Llama4(), position=position) == pytest.approx(value, abs=5e-4)
    a, m = ScaleInvariant().coefficients(torch.tensor([0.0, 100.0], dtype=torch.float64))
    assert a.tolist() == pytest.approx([1.0, 2.4074], abs=5e-5)
    assert m.tolist() == pytest.approx([0.0, -4.7958], abs=5e-5)


def test_figures_of_entmax():
    short = torch.tensor([[-2.0, 0.0, 0.5]])
    assert Sparsemax().weights(short)[0].tolist() == pytest.approx([0, 0.25, 0.75], abs=1e-6)
    assert Entmax().weights(short)[0].tolist() == pytest.approx([0, 0.32600736, 0.67399264], abs=1e-6)
    ramp = torch.arange(4.0)[None]
    assert Entmax().weights(ramp)[0].tolist() == pytest.approx([0, 0, 0.16928109, 0.83071891], abs=1e-6)
    assert Sparsemax().weights(ramp)[0].tolist() == [0, 0, 0, 1]
    assert Entmax(1.500001).weights(ramp)[0].tolist() == pytest.approx(Entmax().weights(ramp)[0].tolist(), abs=1e-4)


def test_adaptive_is_adaptive_softmax():
    logits = 4 * torch.randn(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(Adaptive().weights(logits), adaptive_softmax(logits), atol=1e-14, rtol=0)


def test_plain_is_softmax():
    logits = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(Plain().weights(logits), logits.softmax(-1))


def test_hard_shares_ties():
    assert Hard().weights(torch.tensor([[1.0, 3.0, 3.0, 2.0]])).tolist() == [[0, 0.5, 0.5, 0]]


def test_ssmax_takes_one_scale_a_head():
    logits = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    together = SSMax((0.1, 0.4, 0.9)).weights(logits)
    for head, scale in enumerate((0.1, 0.4, 0.9)):
        torch.testing.assert_close(together[:, head], SSMax(scale).weights(logits[:, head]))


def test_scale_invariant_reads_positions():
    logits = torch.randn(1, 6, dtype=torch.float64)
    rows = Rows(torch.tensor([9]), torch.arange(4, 10))
    torch.testing.assert_close(ScaleInvariant().weights(logits, rows), ScaleInvariant().weights(logits))
    far = Rows(torch.tensor([99]), torch.arange(6))
    assert (ScaleInvariant().weights(logits, far) - ScaleInvariant().weights(logits)).abs().max() > 1e-3
    with pytest.raises(ArgumentError, match="sink"):
        ScaleInvariant().weights(logits, Rows(torch.tensor([5]), torch.arange(6), sink=True))


@each
def test_rows_sum_to_one_and_masked_keys_get_nothing(normaliser):
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 3, 5, 9, dtype=torch.float64)
    logits[..., 2:5, 4] = -math.inf
    logits[0, 0, 1] = torch.finfo(torch.float64).min
    weights = normaliser.weights(logits)
    assert weights.dtype == logits.dtype
    assert (weights[..., 2:5, 4] == 0).all()
    assert (weights[0, 0, 1] == 0).all()
    sums = weights.sum(-1)
    sums[0, 0, 1] += 1
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_stays_close_and_finite(normaliser, dtype):
    torch.manual_seed(1)
    logits = (3 * torch.randn(4, 33)).to(dtype)
    logits[1, :20] = torch.finfo(dtype).min
    logits[2] = -math.inf
    weights = normaliser.weights(logits)
    exact = normaliser.weights(logits.double().masked_fill(logits <= torch.finfo(dtype).min / 2, -math.inf))
    assert weights.dtype == dtype
    torch.testing.assert_close(weights.double(), exact, atol=5e-3 if dtype != torch.float32 else 1e-5, rtol=0)


@each
def test_nan_stays_in_its_row(normaliser):
    logits = torch.randn(3, 6)
    clean = normaliser.weights(logits)
    logits[1, 2] = math.nan
    weights = normaliser.weights(logits)
    assert weights[1].isnan().all()
    torch.testing.assert_close(weights[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogN(1),
        lambda: SSMax(-1.0),
        lambda: SSMax(()),
        lambda: YaRN(0.5),
        lambda: ScaleInvariant(0.0),
        lambda: Entmax(1.0),
    ],
)
def test_bad_settings_are_refused(make):
    with pytest.raises(ArgumentError, match="expected"):
        make()


def test_scale_invariant_at_the_ends_of_the_range():
    """A factor above 1 carries such logits out of float32; the weights are those of float64."""
    torch.manual_seed(0)
    for logits in (torch.full((1, 50), 3e38), torch.full((1, 50), -1.5e38), 3e38 * torch.randn(4, 50).clamp(-1, 1)):
        weights = ScaleInvariant().weights(logits)
        torch.testing.assert_close(weights, ScaleInvariant().weights(logits.double()).float(), atol=1e-6, rtol=0)
        torch.testing.assert_close(weights.sum(-1), torch.ones(len(logits)))
    wide = torch.full((1, 50), 1.5e308, dtype=torch.float64)
    assert ScaleInvariant().weights(wide).isfinite().all()


@pytest.mark.parametrize("alpha", [1.05, 1.3, 1.5, 2.0, 3.0])
def test_entmax_is_that_of_its_authors(alpha):
    entmax = pytest.importorskip("entmax")
    torch.manual_seed(0)
    logits = (5 * torch.randn(6, 40, dtype=torch.float64)).requires_grad_()
    expected = entmax.entmax_bisect(logits, alpha=alpha, n_iter=80)
    weights = Entmax(alpha).weights(logits)
    torch.testing.assert_close(weights, expected, atol=1e-9, rtol=1e-6)
    value = torch.randn(40, dtype=torch.float64)
    gradients = [torch.autograd.grad((w @ value).sum(), logits)[0] for w in (weights, expected)]
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_entmax_can_be_differentiated_twice(alpha):
    torch.manual_seed(0)
    logits = torch.randn(3, 6, dtype=torch.float64)
    logits[0, 2] = -math.inf
    logits = logits.requires_grad_()
    assert torch.autograd.gradcheck(Entmax(alpha).weights, (logits,))
    assert torch.autograd.gradgradcheck(Entmax(alpha).weights, (logits,))


def test_entmax_of_ties_and_of_one_key():
    for normaliser in (Entmax(), Sparsemax(), Entmax(1.3), Entmax(3.0)):
        one = normaliser.weights(torch.zeros(1, 7))
        torch.testing.assert_close(one, torch.full((1, 7), 1 / 7))
        assert normaliser.weights(torch.tensor([[3.0]])).tolist() == [[1.0]]
        assert normaliser.weights(torch.tensor([[1e30, 0.0, -1e30]])).tolist() == [[1.0, 0.0, 0.0]]
