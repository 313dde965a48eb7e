import importlib.util
import json
import math
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import (
    AdaptiveTemperature,
    CorrectionInactiveWarning,
    adaptive_softmax,
    entropy_of,
    inactive_share,
    masking,
    softmax,
    temperature,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "sharpness.json").read_text())
PUBLISHED = AdaptiveTemperature.published()
HALVES = (torch.float16, torch.bfloat16)

quiet = pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning")


def row(case):
    if "logits" in case:
        return torch.tensor(case["logits"], dtype=torch.float64)
    if "linspace" in case:
        return torch.linspace(*case["linspace"], dtype=torch.float64)
    if "sine" in case:
        scale, n = case["sine"]
        return scale * torch.arange(n, dtype=torch.float64).sin()
    return torch.tensor([case["top"]] + [0] * case["zeros"], dtype=torch.float64)


def naive(logits):
    """The paper's rule for one row without masks, in Python floats: entropy, beta, weights."""
    z = [float(value) for value in logits]
    p = [math.exp(value - max(z)) for value in z]
    p = [value / sum(p) for value in p]
    entropy = -sum(value * math.log(value) for value in p if value > 0)
    beta = 1.0
    if entropy > 0.5:
        c = (-0.037, 0.481, -2.3, 4.917, -1.791)
        beta = max(1.0, sum(value * entropy ** (4 - i) for i, value in enumerate(c)))
    y = [math.exp(beta * (value - max(z))) for value in z]
    return entropy, beta, [value / sum(y) for value in y]


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape, dtype=torch.float64: torch.randn(*shape, generator=generator, dtype=dtype)


@pytest.fixture(scope="module")
def plain():
    """Law and softmax without run-time checks of annotations, as users have them: compilers see through it."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        for module in (masking, temperature, softmax):
            spec = importlib.util.spec_from_file_location(module.__name__, module.__file__)
            unchecked = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, spec.name, unchecked)
            spec.loader.exec_module(unchecked)
            names |= vars(unchecked)
        yield SimpleNamespace(**names)


@quiet
@pytest.mark.parametrize("case", GOLDEN["rows"], ids=lambda case: case["name"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-6)])
def test_reference_rows(case, dtype, tolerance):
    logits = row(case).to(dtype)
    entropy = entropy_of(logits)
    weights = adaptive_softmax(logits)
    found = {
        "entropy": entropy,
        "beta": PUBLISHED.beta(entropy),
        "entropy_after": entropy_of(weights.log()),
        "largest": adaptive_softmax(logits, temperature=AdaptiveTemperature((1.0,))).max(),
        "largest_after": weights.max(),
    }
    assert weights.dtype == entropy.dtype == dtype
    for name, value in found.items():
        assert value.item() == pytest.approx(case[name], abs=tolerance), name


def test_reference_weights():
    weights = adaptive_softmax(torch.arange(4, dtype=torch.float64))
    assert weights.tolist() == pytest.approx(GOLDEN["weights_of_0_1_2_3"], abs=1e-9)


def test_polynomial_and_its_order():
    raw = AdaptiveTemperature(PUBLISHED.coefficients, beta_min=1e-9)
    for point in GOLDEN["polynomial"]:
        entropy = torch.tensor(point["entropy"], dtype=torch.float64)
        assert raw.beta(entropy).item() == pytest.approx(max(point["value"], 1e-9), abs=1e-9)
        assert PUBLISHED.beta(entropy).item() == pytest.approx(max(point["value"], 1.0), abs=1e-9)
    trap = torch.tensor(2.5, dtype=torch.float64)
    reversed_law = AdaptiveTemperature(PUBLISHED.coefficients[::-1])
    assert PUBLISHED.beta(trap).item() == pytest.approx(2.1968125, abs=1e-12)
    assert reversed_law.beta(trap).item() == 1.0


def test_active_interval_and_maximum():
    assert PUBLISHED.active_interval == pytest.approx(GOLDEN["active_interval"], abs=1e-9)
    h = torch.linspace(4, 5, 1_000_001, dtype=torch.float64)
    beta = PUBLISHED.beta(h)
    assert h[beta.argmax()].item() == pytest.approx(GOLDEN["maximum"]["entropy"], abs=1e-5)
    assert beta.max().item() == pytest.approx(GOLDEN["maximum"]["beta"], abs=1e-5)


@pytest.mark.parametrize(
    ("law", "interval"),
    [
        (AdaptiveTemperature((1.0,)), None),
        (AdaptiveTemperature((0.0, 1.0)), None),
        (AdaptiveTemperature((2.0,)), (0.5, math.inf)),
        (AdaptiveTemperature((2.0,), threshold=0.0), (0.0, math.inf)),
        (AdaptiveTemperature((2.0,), beta_max=1.0), None),
        (AdaptiveTemperature((1.0, 0.0)), (1.0, math.inf)),
        (AdaptiveTemperature((-1.0, 4.0)), (0.5, 3.0)),
        (AdaptiveTemperature((-1.0, 4.0), entropy_range=(1.0, 2.0)), (0.5, math.inf)),
        (AdaptiveTemperature((-1.0, 4.0), entropy_range=(1.0, 3.5)), (0.5, 3.0)),
        (AdaptiveTemperature((-1.0, 6.0, -8.0)), None),  # touches 1 at H = 3
        (AdaptiveTemperature((-1.0, 6.0, -7.0)), (2.0, 4.0)),
    ],
)
def test_active_interval_follows_the_law(law, interval):
    assert law.active_interval == (interval if interval is None else pytest.approx(interval, abs=1e-9))


def test_threshold_is_strict():
    law = AdaptiveTemperature((3.0,), threshold=1.0)
    h = torch.tensor([1.0, 1.0 + 1e-12, 0.0], dtype=torch.float64)
    assert law.beta(h).tolist() == [1.0, 3.0, 1.0]


def test_beta_clamps_entropy_and_value():
    law = AdaptiveTemperature((2.0, 0.0), entropy_range=(1.0, 2.0), beta_max=3.5)
    h = torch.tensor([0.6, 1.2, 1.9, 9.0])
    assert law.beta(h).tolist() == pytest.approx([2.0, 2.4, 3.5, 3.5])
    assert law.beta(torch.tensor(math.nan)).isnan()


@pytest.mark.parametrize(
    "arguments",
    [
        {"coefficients": ()},
        {"coefficients": (1.0, math.nan)},
        {"coefficients": (1.0, -math.inf)},
        {"coefficients": (1, 2)},
        {"coefficients": (True,)},
        {"coefficients": "1.0"},
        {"coefficients": 1.0},
        {"coefficients": torch.tensor([1.0])},
        {"threshold": math.nan},
        {"threshold": -0.1},
        {"threshold": "0.5"},
        {"beta_min": 0.0},
        {"beta_min": True},
        {"beta_max": 0.5},
        {"beta_max": math.inf},
        {"entropy_range": (2.0, 1.0)},
        {"entropy_range": (1.0, 1.0)},
        {"entropy_range": (-1.0, 1.0)},
        {"entropy_range": (0.0, math.inf)},
        {"entropy_range": (1.0,)},
        {"entropy_range": 1.0},
        {"fit": "mine"},
    ],
)
def test_law_refuses(plain, arguments):
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        plain.AdaptiveTemperature(**{"coefficients": (1.0,), **arguments})


def test_law_settles_its_fields(plain):
    law = plain.AdaptiveTemperature([2.0, 1.0], threshold=1, entropy_range=[1, 2], beta_max=3)
    same = plain.AdaptiveTemperature((2.0, 1.0), 1.0, (1.0, 2.0), 1.0, 3.0)
    assert law == same
    assert hash(law) == hash(same)


def test_coefficients_of_any_kind_say_their_order(plain):
    ascending = torch.tensor(PUBLISHED.coefficients, dtype=torch.float64).flip(0)
    make = plain.AdaptiveTemperature.from_coefficients
    assert make(ascending, order="ascending") == plain.PUBLISHED
    assert make(list(PUBLISHED.coefficients), order="descending") == plain.PUBLISHED
    assert make(ascending.flip(0), order="descending", beta_max=2.0).beta_max == 2.0
    for bad in (torch.tensor([1, 2]), torch.tensor([True]), torch.ones(2, 2)):
        with pytest.raises(ArgumentError, match="coefficients"):
            make(bad, order="descending")
    with pytest.raises(ArgumentError, match="order"):
        make(ascending, order="desc")
    with pytest.raises(TypeError):
        make(ascending)


def test_coefficients_from_numpy(plain):
    numpy = pytest.importorskip("numpy")
    AdaptiveTemperature, PUBLISHED = plain.AdaptiveTemperature, plain.PUBLISHED
    make = AdaptiveTemperature.from_coefficients
    assert make(numpy.array(PUBLISHED.coefficients), order="descending") == PUBLISHED
    assert make(numpy.polynomial.Polynomial(PUBLISHED.coefficients[::-1]).coef, order="ascending") == PUBLISHED
    assert AdaptiveTemperature(tuple(numpy.array(PUBLISHED.coefficients))) == PUBLISHED
    with pytest.raises(ArgumentError, match="coefficients"):
        make(numpy.array([1, 2]), order="descending")


def test_json_round_trip():
    law = AdaptiveTemperature((0.1, 1 / 3), 0.25, (0.5, 6.0), 1.0, 12.0)
    for each in (law, PUBLISHED):
        assert AdaptiveTemperature.from_json(each.to_json()) == each
        assert json.loads(each.to_json())["order"] == "descending"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"order": None}, "order"),
        ({"order": "ascending"}, "order"),
        ({"order": "desc"}, "order"),
        ({"version": None}, "version"),
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"format": "other"}, "format"),
        ({"coefficients": None}, "coefficients"),
        ({"coefficients": [1, 2]}, "coefficients"),
        ({"treshold": 0.1}, "treshold"),
        ({"threshold": "0.5"}, "threshold"),
        ({"fit": {"method": "entropy"}}, "fit"),
        ({"fit": 3}, "fit"),
    ],
)
def test_json_refuses(plain, change, match):
    document = {**json.loads(PUBLISHED.to_json()), **change}
    document = {name: value for name, value in document.items() if value is not None}
    with pytest.raises(ArgumentError, match=match):
        plain.AdaptiveTemperature.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"coefficients": [NaN]}'])
def test_json_refuses_other_documents(text):
    with pytest.raises(ArgumentError):
        AdaptiveTemperature.from_json(text)


def test_agrees_with_the_naive_rule(randn):
    for n in (1, 2, 3, 17, 65):
        for scale in (0.1, 1.0, 4.0, 30.0):
            logits = scale * randn(n)
            entropy, _, weights = naive(logits)
            assert entropy_of(logits).item() == pytest.approx(entropy, abs=1e-12)
            assert adaptive_softmax(logits).tolist() == pytest.approx(weights, abs=1e-12)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_any_dim(randn, dim):
    logits = 2 * randn(3, 4, 5)
    mask = randn(3, 4, 5) > -1
    moved, moved_mask = logits.movedim(dim, -1), mask.movedim(dim, -1)
    assert torch.equal(entropy_of(logits, dim, mask=mask), entropy_of(moved, mask=moved_mask))
    weights = adaptive_softmax(logits, dim, mask=mask)
    torch.testing.assert_close(weights.movedim(dim, -1), adaptive_softmax(moved, mask=moved_mask))


def test_entropy_of_huge_offsets():
    z = torch.randn(4096, generator=torch.Generator().manual_seed(1))
    exact = entropy_of(z.double()).item()
    for offset in (1e4, 1e5, -1e5):
        moved = z + offset
        assert entropy_of(moved).item() == pytest.approx(entropy_of(moved.double()).item(), abs=5e-6)
        assert entropy_of(z.double() + offset).item() == pytest.approx(exact, abs=1e-9)


def test_spread_beyond_the_range_of_the_dtype():
    logits = torch.tensor([3e38, -1.5e38, 2.9e38, 0.0], requires_grad=True)
    assert entropy_of(logits).item() == 0.0
    weights = adaptive_softmax(logits, detach=False, temperature=AdaptiveTemperature((9.0,), threshold=0.0))
    weights[0].backward()
    assert weights.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert logits.grad.isfinite().all()


@quiet
@pytest.mark.parametrize("n", [1, 2, 7, 400])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_ties_stay_exactly_uniform(n, dtype):
    logits = torch.full((2, n), 3.25, dtype=dtype)
    weights = adaptive_softmax(logits)
    assert torch.equal(weights, (torch.ones(2, n) / n).to(dtype) if n & (n - 1) == 0 else weights[:, :1].expand(2, n))
    assert entropy_of(logits)[0].item() == pytest.approx(math.log(n), abs=1e-5)


def test_one_key_has_no_entropy():
    logits = torch.tensor([[5.0], [-3e4]])
    assert entropy_of(logits).tolist() == [0.0, 0.0]
    assert adaptive_softmax(logits).tolist() == [[1.0], [1.0]]


@quiet
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_takes_statistics_in_float32(randn, dtype):
    logits = (2 * randn(4, 300)).to(dtype)
    entropy = entropy_of(logits)
    assert entropy.dtype == torch.float32
    torch.testing.assert_close(entropy.double(), entropy_of(logits.double()), atol=5e-6, rtol=0)
    weights = adaptive_softmax(logits)
    assert weights.dtype == dtype
    torch.testing.assert_close(weights, adaptive_softmax(logits.double()).to(dtype), atol=1e-6, rtol=2**-7)


@quiet
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_leaves_the_statistics_alone(randn, dtype):
    logits = 2 * randn(4, 300, dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        entropy, weights = entropy_of(logits), adaptive_softmax(logits)
        half = entropy_of(logits.to(dtype))
    assert entropy.dtype == weights.dtype == half.dtype == torch.float32
    assert torch.equal(entropy, entropy_of(logits))
    assert torch.equal(weights, adaptive_softmax(logits))


def hide(logits, mask, how):
    value = {"inf": -math.inf, "min": torch.finfo(logits.dtype).min, "near": torch.finfo(logits.dtype).min * 0.75}
    return logits.masked_fill(~mask, value[how])


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("how", ["mask", "inf", "min", "near"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_masks_in_every_form(randn, how, dtype, detach):
    base = (1.5 * randn(6, 12)).to(dtype)
    mask = torch.ones(6, 12, dtype=torch.bool).tril(3)
    mask[2] = False
    logits = (base if how == "mask" else hide(base, mask, how)).requires_grad_()
    argument = mask if how == "mask" else None

    weights = adaptive_softmax(logits, mask=argument, detach=detach)
    entropy = entropy_of(logits, mask=argument)
    (weights * torch.arange(12)).sum().backward()

    assert weights.isfinite().all()
    assert (weights[~mask] == 0).all()
    assert entropy[2] == 0
    assert logits.grad.isfinite().all()
    assert (logits.grad[~mask] == 0).all()
    for i in (0, 1, 3, 4, 5):
        visible = base[i][mask[i]].detach().clone().requires_grad_()
        alone = adaptive_softmax(visible, detach=detach)
        (alone * torch.arange(12)[mask[i]]).sum().backward()
        torch.testing.assert_close(weights[i][mask[i]], alone)
        torch.testing.assert_close(entropy[i], entropy_of(visible))
        torch.testing.assert_close(logits.grad[i][mask[i]], visible.grad, atol=1e-3, rtol=1e-2)


def test_additive_mask_plus_score(randn):
    logits = randn(4, 8, dtype=torch.float32) * 50
    mask = torch.ones(4, 8, dtype=torch.bool).tril()
    additive = torch.zeros(4, 8).masked_fill(~mask, torch.finfo(torch.float32).min)
    assert torch.equal(adaptive_softmax(logits + additive), adaptive_softmax(logits, mask=mask))
    padded = torch.full((1, 8), torch.finfo(torch.float32).min)
    assert adaptive_softmax(padded).tolist() == [[0.0] * 8]


def test_entropy_gradient_is_finite_with_masks(randn):
    logits = hide(randn(3, 5), torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [False] * 5]), "inf")
    logits.requires_grad_()
    entropy_of(logits).sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_logits_stay_in_their_row(randn, bad, detach):
    clean = randn(4, 6)
    dirty = clean.clone()
    dirty[1, 3] = bad
    dirty.requires_grad_()
    entropy, weights = entropy_of(dirty), adaptive_softmax(dirty, detach=detach)
    others = [0, 2, 3]
    assert entropy[1].isnan()
    assert weights[1].isnan().any()
    assert torch.equal(entropy[others], entropy_of(clean)[others])
    assert torch.equal(weights[others], adaptive_softmax(clean)[others])
    (weights * torch.arange(6)).sum().backward()
    assert dirty.grad[others].isfinite().all()


def test_masked_nan_is_never_read(randn):
    clean = randn(3, 6)
    dirty = clean.clone()
    dirty[:, 4:] = math.nan
    mask = torch.tensor([True] * 4 + [False] * 2)
    dirty.requires_grad_()
    weights = adaptive_softmax(dirty, mask=mask, detach=False)
    weights[:, 0].sum().backward()
    assert torch.equal(weights, adaptive_softmax(clean, mask=mask))
    assert dirty.grad.isfinite().all()


@pytest.mark.parametrize("name", ["entropy_of", "adaptive_softmax"])
def test_arguments_are_refused(plain, name):
    function = getattr(plain, name)
    logits = torch.zeros(2, 3)
    with pytest.raises(ArgumentError, match="at least one key"):
        function(torch.zeros(2, 0))
    with pytest.raises(ArgumentError, match="at least one key"):
        function(torch.zeros(0, 3), 0)
    with pytest.raises(ArgumentError, match="logits"):
        function(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ArgumentError, match="dim"):
        function(logits, 2)
    with pytest.raises(ArgumentError, match="dim"):
        function(torch.tensor(1.0))
    for mask in (torch.ones(2, 3), torch.ones(3, 3, dtype=torch.bool), torch.ones(1, 2, 3, dtype=torch.bool)):
        with pytest.raises(ArgumentError, match="mask"):
            function(logits, mask=mask)
    assert function(torch.zeros(0, 3)).shape[0] == 0


def test_beta_refuses_integers(plain):
    with pytest.raises(ArgumentError, match="entropy"):
        plain.PUBLISHED.beta(torch.tensor([1]))


@pytest.mark.parametrize("detach", [True, False])
def test_gradcheck(randn, detach):
    if detach:
        law, scale = AdaptiveTemperature((1.7,), threshold=0.0), 1.0  # a constant beta, the only case to check
    else:
        law, scale = PUBLISHED, 0.7
    logits = (scale * randn(3, 9)).requires_grad_()
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, 5:] = False
    mask[2] = False
    assert torch.autograd.gradcheck(
        lambda z: adaptive_softmax(z, mask=mask, temperature=law, detach=detach), logits, atol=1e-8
    )
    assert torch.autograd.gradcheck(lambda z: entropy_of(z, mask=mask), logits, atol=1e-8)


def test_attached_backward_in_closed_form(randn):
    logits = torch.cat([randn(3, 20), 5 * randn(3, 20), torch.tensor([9.0] + [0.0] * 19).expand(1, 20)])
    logits.requires_grad_()
    upstream = randn(7, 20)
    (adaptive_softmax(logits, detach=False) * upstream).sum().backward()

    z = logits.detach()
    p, h = z.softmax(-1), entropy_of(z)[:, None]
    beta = PUBLISHED.beta(h)
    y = (beta * z).softmax(-1)
    g = y * (upstream - (y * upstream).sum(-1, keepdim=True))
    c0, c1, c2, c3, _ = PUBLISHED.coefficients
    slope = (4 * c0 * h**3 + 3 * c1 * h**2 + 2 * c2 * h + c3) * (beta > 1)
    expected = beta * g + slope * (g * z).sum(-1, keepdim=True) * -p * (z - (p * z).sum(-1, keepdim=True))
    assert set((beta > 1).flatten().tolist()) == {True, False}
    torch.testing.assert_close(logits.grad, expected, atol=1e-13, rtol=1e-12)


def test_detached_backward_is_that_of_a_softmax_with_constant_beta(randn):
    logits = randn(5, 30).requires_grad_()
    upstream = randn(5, 30)
    (mine,) = torch.autograd.grad((adaptive_softmax(logits) * upstream).sum(), logits)
    beta = PUBLISHED.beta(entropy_of(logits.detach()))[:, None]
    (plain,) = torch.autograd.grad(((beta * logits).softmax(-1) * upstream).sum(), logits)
    (attached,) = torch.autograd.grad((adaptive_softmax(logits, detach=False) * upstream).sum(), logits)
    torch.testing.assert_close(mine, plain, atol=1e-14, rtol=1e-12)
    assert not torch.allclose(mine, attached, rtol=1e-3)


@pytest.fixture
def unwarned(monkeypatch):
    monkeypatch.setattr(softmax, "_warned", set())


def test_warns_once_when_the_law_cannot_act(unwarned):
    dispersed = torch.zeros(2, 1024)
    with pytest.warns(CorrectionInactiveWarning, match="2 of 2 attention rows.*5.9445"):
        adaptive_softmax(dispersed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adaptive_softmax(dispersed)


def test_does_not_warn_without_need(unwarned):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = torch.zeros(20, 1024)
        few[2:, 0] = 30.0
        adaptive_softmax(few)
        adaptive_softmax(torch.zeros(2, 1024), temperature=AdaptiveTemperature((2.0,)))
        adaptive_softmax(torch.zeros(2, 1024), temperature=AdaptiveTemperature((1.0,)))


def test_inactive_share():
    h = torch.tensor([0.1, 3.0, 5.94, 5.95, 7.0, math.nan])
    assert inactive_share(h) == pytest.approx(2 / 5)
    assert inactive_share(h, AdaptiveTemperature((2.0,))) == 0.0
    assert inactive_share(h, AdaptiveTemperature((1.0,))) == 1.0
    assert inactive_share(h[5:]) == 0.0


@pytest.mark.parametrize("detach", [True, False])
def test_compiles_without_graph_breaks(plain, randn, detach):
    torch.compiler.reset()
    compiled = torch.compile(plain.adaptive_softmax, backend="eager", fullgraph=True, dynamic=True)
    for n in (5, 9, 1024):
        logits = randn(3, n, dtype=torch.float32).requires_grad_()
        mask = torch.ones(3, n, dtype=torch.bool).tril(2)
        expected = adaptive_softmax(logits, mask=mask, detach=detach)
        found = compiled(logits, mask=mask, detach=detach)
        torch.testing.assert_close(found, expected)
        (one,) = torch.autograd.grad(expected[:, 0].sum(), logits)
        (two,) = torch.autograd.grad(found[:, 0].sum(), logits)
        torch.testing.assert_close(one, two)


def test_compiles_with_a_law_as_an_argument(plain, randn):
    torch.compiler.reset()
    law = plain.AdaptiveTemperature((0.5, 1.0), entropy_range=(0.5, 3.0), beta_max=2.0)
    logits = randn(3, 40)
    compiled = torch.compile(plain.adaptive_softmax, backend="eager", fullgraph=True)
    expected = plain.adaptive_softmax(logits, temperature=law)
    torch.testing.assert_close(compiled(logits, temperature=law), expected)


@quiet
def test_vmap_and_func_grad(randn):
    logits = randn(4, 3, 500)
    batched = torch.func.vmap(adaptive_softmax)(logits)
    torch.testing.assert_close(batched, adaptive_softmax(logits))
    per_row = torch.func.vmap(torch.func.grad(lambda z: adaptive_softmax(z, detach=False)[0]))(logits[:, 0])
    leaf = logits[:, 0].clone().requires_grad_()
    adaptive_softmax(leaf, detach=False)[:, 0].sum().backward()
    torch.testing.assert_close(per_row, leaf.grad)


def test_meta_tensors_have_shapes():
    logits = torch.zeros(2, 3, 4, dtype=torch.bfloat16, device="meta")
    assert adaptive_softmax(logits, 1).shape == (2, 3, 4)
    assert entropy_of(logits, 1).shape == (2, 4)
