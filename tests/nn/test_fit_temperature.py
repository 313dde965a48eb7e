import importlib
import json
import math
import pickle
import warnings

import pytest
import torch

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.nn import AdaptiveTemperature, FitError, adaptive_softmax, entropy_of, fit_temperature

module = importlib.import_module("holdfast.nn.fit_temperature")  # the function of that name stands before it

SIZES = (16, 32, 64, 128, 256, 512)
TARGET = 0.36


def crowded(sizes=SIZES, rows=96, slope=60.0, seed=0, dtype=torch.float32):
    """Logits -s (1 - rho) with rho uniform, as a trained max-retrieval head has them: H grows as ln n."""
    generator = torch.Generator().manual_seed(seed)
    return {n: (-slope * (1 - torch.rand(rows, n, generator=generator))).to(dtype) for n in sizes}


@pytest.fixture(scope="module")
def law():
    return fit_temperature(crowded())


@pytest.mark.parametrize("seed", [1, 2])
def test_brings_fresh_rows_close_to_the_target(law, seed):
    for n, logits in crowded(seed=seed).items():
        before = entropy_of(logits).mean().item()
        after = entropy_of(adaptive_softmax(logits, temperature=law).log()).mean().item()
        assert abs(after - law.fit.target) < 0.25
        if n >= 64:
            assert abs(after - law.fit.target) < 0.3 * abs(before - law.fit.target)


def test_reaches_where_the_published_law_does_not():
    """A winner by 5 nats over equals: at 1024 keys the published law is a plain softmax."""
    generator = torch.Generator().manual_seed(0)
    needles = {
        n: torch.cat([5 + torch.randn(96, 1, generator=generator) / 2, torch.zeros(96, n - 1)], 1)
        for n in (*SIZES, 1024)
    }
    fitted = fit_temperature(needles)
    needle = torch.zeros(1024, dtype=torch.float64)
    needle[0] = 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        published = adaptive_softmax(needle)
    torch.testing.assert_close(published, needle.softmax(-1), atol=1e-12, rtol=0)
    assert published[0].item() == pytest.approx(0.126696, abs=1e-6)
    assert adaptive_softmax(needle, temperature=fitted)[0] >= 0.9


def test_record_says_what_was_done(law):
    record = law.fit
    assert record.method == "entropy"
    assert record.reference == 16
    assert record.target == pytest.approx(TARGET, abs=0.1)
    assert record.excluded == 0
    assert record.bins >= 8
    assert [check.size for check in record.checks] == list(SIZES)
    assert all(check.rows == 24 and check.target == record.target for check in record.checks)
    assert all(check.distance_after < check.distance_before + 0.02 for check in record.checks)
    last = record.checks[-1]
    held_out = crowded()[512][3::4].double()
    assert last.entropy_before == pytest.approx(entropy_of(held_out).mean().item(), abs=1e-9)
    after = entropy_of(held_out * law.beta(entropy_of(held_out))[:, None])
    assert last.entropy_after == pytest.approx(after.mean().item(), abs=1e-9)
    assert AdaptiveTemperature.from_json(law.to_json()) == law
    assert json.loads(law.to_json())["fit"]["checks"][0]["size"] == 16


def test_law_stays_in_the_fitted_range(law):
    low, high = law.entropy_range
    assert 0.5 <= law.threshold <= low < high <= math.log(512)
    beyond = law.beta(torch.tensor([high, high + 5.0, 1e3]))
    assert (beyond == beyond[0]).all()
    everywhere = law.beta(torch.linspace(0, 20, 2001))
    assert everywhere.min() >= 1.0
    assert everywhere.max() <= law.beta_max <= 64.0
    assert law.active_interval[1] == math.inf


def test_same_input_same_law(law):
    shuffled = dict(reversed(crowded().items()))
    state = torch.get_rng_state()
    assert fit_temperature(shuffled) == law
    assert torch.equal(torch.get_rng_state(), state)


def test_chunks_do_not_change_the_law(law, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 5000)
    assert fit_temperature(crowded()).coefficients == pytest.approx(law.coefficients, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_takes_any_float_dtype_and_leaves_gradients_alone(dtype):
    logits = {n: rows.requires_grad_() for n, rows in crowded(dtype=dtype).items()}
    fitted = fit_temperature(logits)
    assert all(rows.grad is None for rows in logits.values())
    assert fitted.fit.target == pytest.approx(TARGET, abs=0.1)


def test_rows_at_or_below_the_target_are_left_alone():
    law = fit_temperature(crowded(), reference=64)
    assert law.fit.reference == 64
    assert law.threshold == law.fit.target > 1.0
    assert law.beta(torch.tensor(law.fit.target - 1e-3)) == 1.0


def test_beta_for_is_the_smallest_that_reaches_the_target():
    rows = crowded((128,), dtype=torch.float64)[128]
    beta = module._beta_for(rows, TARGET, 64.0)
    reached = beta < 63.9
    assert reached.sum() > 80
    assert (entropy_of(rows * beta[:, None]) <= TARGET + 1e-6)[reached].all()
    just_less = rows * (beta * (1 - 1e-4))[:, None]
    assert (entropy_of(just_less)[beta > 1] > TARGET).all()
    assert (beta[entropy_of(rows) <= TARGET] == 1).all()


def test_ties_and_the_largest_beta():
    rows = torch.zeros(3, 8, dtype=torch.float64)
    rows[0, :2] = 5.0  # two equal winners: never below ln 2
    rows[1, 0] = 1e-3  # a winner that no beta below 64 separates
    rows[2, 0] = 1.0
    beta = module._beta_for(rows, 0.3, 64.0)
    assert beta[0].isnan()
    assert beta[1].item() == pytest.approx(64.0)
    assert 1 < beta[2] < 64
    assert not module._beta_for(rows, 0.7, 64.0).isnan().any()


def test_tied_rows_are_left_out_and_counted(law):
    logits = crowded()
    for rows in logits.values():
        top = rows[::6].topk(2).indices
        rows[::6] = rows[::6].scatter(1, top, 0.0)
    fitted = fit_temperature(logits)
    assert fitted.fit.excluded > 0
    assert all(check.distance_after < check.distance_before + 0.02 for check in fitted.fit.checks)


def test_plateau_at_the_largest_beta_is_cut():
    law = fit_temperature(crowded(), beta_max=4.0)
    assert law.beta_max <= 4.0
    assert law.beta(torch.tensor(6.0)).item() == pytest.approx(4.0, rel=0.1)


def cross_entropy(logits):
    """Loss of finding the largest logit, with a penalty that makes its best beta grow with the row's entropy."""

    def loss(size, beta):
        z = logits[size].double()
        weights = (beta * z).softmax(-1).amax(-1)
        return -weights.log() + 0.02 * math.log(beta) ** 2

    return loss


def test_fit_to_a_loss():
    logits = crowded()
    law = fit_temperature(logits, loss=cross_entropy(logits))
    assert law.fit.method == "loss"
    assert law.threshold == 0.5
    assert law.beta(torch.tensor(4.0)) > law.beta(torch.tensor(1.5)) > 1
    for check in law.fit.checks:
        assert check.loss_after <= check.loss_before
    assert law.fit.checks[-1].loss_after < 0.5 * law.fit.checks[-1].loss_before
    assert AdaptiveTemperature.from_json(law.to_json()) == law


def test_loss_that_fooled_the_fit_is_refused():
    """Held-out rows want the opposite of what the fitted rows want."""
    logits = crowded()

    def loss(size, beta):
        held_out = torch.arange(96) % 4 == 3
        sharp = cross_entropy(logits)(size, beta)
        return torch.where(held_out, torch.full_like(sharp, math.log(beta)), sharp)

    with pytest.raises(FitError, match="validation") as caught:
        fit_temperature(logits, loss=loss)
    assert caught.value.rule == "validation"


def test_bad_losses_are_refused():
    logits = crowded()
    with pytest.raises(FitError, match="non-finite"):
        fit_temperature(logits, loss=lambda size, beta: torch.full((96,), math.nan))
    with pytest.raises(ArgumentError, match="shape"):
        fit_temperature(logits, loss=lambda size, beta: torch.zeros(95))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, torch.finfo(torch.float32).min])
def test_refuses_logits_that_are_not_finite(bad):
    logits = crowded()
    logits[64][5, 3] = bad
    with pytest.raises(FitError, match=r"non-finite.*logits\[64\] has 1 rows"):
        fit_temperature(logits)


def test_refuses_too_few_bins():
    with pytest.raises(FitError, match="bins"):
        fit_temperature(crowded((16, 1024), rows=12))
    equal = {n: torch.zeros(64, n) for n in SIZES}
    with pytest.raises(FitError, match=r"bins.*ties"):
        fit_temperature(equal)
    identical = {n: torch.linspace(-30, 0, n).expand(64, n) for n in (16, 256, 1024)}
    with pytest.raises(FitError, match="bins"):
        fit_temperature(identical)


def test_refuses_a_narrow_range():
    with pytest.raises(FitError, match=r"range.*1 nat"):
        fit_temperature(crowded((250, 256), rows=128))


def test_refuses_a_polynomial_that_does_not_follow():
    def jumpy(size, beta):
        """Best beta: 1 or 30, by turns of half a nat."""
        h = entropy_of(logits[size].double())
        wanted = torch.where((2 * h).floor() % 2 == 0, 1.0, 30.0)
        return (wanted.log() - math.log(beta)) ** 2

    logits = crowded()
    with pytest.raises(FitError, match="shape"):
        fit_temperature(logits, loss=jumpy)


def test_refuses_a_law_that_fails_held_out_rows():
    """Every fourth row is another kind, a clear winner over many equals, which needs far less sharpening."""
    logits = crowded()
    generator = torch.Generator().manual_seed(3)
    for n in SIZES:
        winner = torch.full((24, 1), 6.0)
        logits[n][3::4] = torch.cat([winner, torch.randn(24, n - 1, generator=generator) / 10], 1)
    with pytest.raises(FitError, match="validation"):
        fit_temperature(logits, reference=64)


def test_score():
    logits = crowded()
    law = fit_temperature(logits, score=lambda law: 0.9 if law is None else 0.896)
    assert (law.fit.score_before, law.fit.score_after) == (0.9, 0.896)
    with pytest.raises(FitError, match="score"):
        fit_temperature(logits, score=lambda law: 0.9 if law is None else 0.89)
    with pytest.raises(FitError, match="non-finite"):
        fit_temperature(logits, score=lambda law: math.nan)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"logits": {}}, "logits"),
        ({"logits": {16: torch.zeros(8, 15)}}, "shape"),
        ({"logits": {16: torch.zeros(2, 8, 16)}}, "shape|logits"),
        ({"logits": {16: torch.zeros(3, 16)}}, "4 rows"),
        ({"reference": 17}, "reference"),
        ({"degree": 0}, "degree"),
        ({"degree": 7}, "degree"),
        ({"bins": 7}, "bins"),
        ({"beta_max": 1.0}, "beta_max"),
        ({"beta_max": math.nan}, "beta_max"),
        ({"threshold": -1.0}, "threshold"),
    ],
)
def test_arguments_are_refused(arguments, match):
    with pytest.raises((ArgumentError, TypeError), match=match):
        fit_temperature(**{"logits": crowded((16, 64)), **arguments})


def test_fit_error_survives_pickling():
    error = pickle.loads(pickle.dumps(FitError("range", "too narrow")))
    assert isinstance(error, HoldfastError)
    assert (error.rule, str(error)) == ("range", "fit refused by the rule 'range': too narrow")
