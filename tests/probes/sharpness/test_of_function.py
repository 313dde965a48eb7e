import importlib.util
import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import ArgumentError
from holdfast.nn import (
    Adaptive,
    AdaptiveTemperature,
    Hard,
    Llama4,
    LogN,
    Plain,
    ScaleInvariant,
    SSMax,
    entropy_of,
)
from holdfast.probes.sharpness import of_function as sharpness
from holdfast.probes.sharpness import probe_sharpness
from holdfast.probes.sharpness.dispersion import checked_normalisers, critical_beta, onset


def two_heads(n):
    """Head 0 attends uniformly; head 1 to one key, ln(n - 1) above the others, so that it holds one half."""
    logits = torch.zeros(2, 4, n, dtype=torch.float64)
    logits[1, :, 0] = math.log(n - 1)
    return logits


@pytest.fixture
def report():
    return probe_sharpness(two_heads, (256, 16, 1024))


def test_numbers_of_known_heads(report):
    assert report.sizes == (16, 256, 1024)
    assert [(e.size, e.head) for e in report.entries] == [(n, h) for n in (16, 256, 1024) for h in (0, 1)]
    for entry in report.entries:
        n = entry.size
        assert (entry.rows, entry.nan_rows, entry.empty_rows) == (4, 0, 0)
        if entry.head == 0:
            h, largest, spread = math.log(n), 1 / n, 0.0
        else:
            h, largest, spread = math.log(2) + math.log(n - 1) / 2, 0.5, math.log(n - 1)
            # A head at the very bound of the lemma: it holds one half up to n and no further.
            assert entry.reach == entry.reach_max == pytest.approx(n)
        assert entry.entropy == pytest.approx(h, abs=1e-9)
        assert entry.entropy_share == pytest.approx(h / math.log(n), abs=1e-9)
        assert entry.effective_keys == pytest.approx(math.exp(h), rel=1e-9)
        assert entry.largest == pytest.approx(largest, abs=1e-9)
        assert entry.spread == entry.spread_max == pytest.approx(spread, abs=1e-9)
    assert report.slopes[0] == pytest.approx(1.0)
    assert report.slopes[1] == pytest.approx(0.5, abs=0.02)


def test_shares_follow_the_law(report):
    assert report.interval == pytest.approx((0.8485819960, 5.9445208279), abs=1e-9)
    uniform = {e.size: (e.below, e.acting, e.above) for e in report.entries if e.head == 0}
    assert uniform == {16: (0, 1, 0), 256: (0, 1, 0), 1024: (0, 0, 1)}

    law = AdaptiveTemperature((-1.0, 6.0), threshold=4.0)  # acts on 4 < H < 5
    entries = probe_sharpness(two_heads, (16, 100, 256), temperature=law).entries
    shares = {e.size: (e.below, e.acting, e.above) for e in entries if e.head == 0}
    assert shares == {16: (1, 0, 0), 100: (0, 1, 0), 256: (0, 0, 1)}

    never = probe_sharpness(two_heads, (16,), temperature=AdaptiveTemperature((1.0,)))
    assert never.interval is None
    assert [(e.below, e.acting, e.above) for e in never.entries] == [(1, 0, 0)] * 2


def test_masked_keys_are_left_out():
    def causal(n):
        logits = torch.randn(n, n, generator=torch.Generator().manual_seed(n))
        mask = torch.ones(n, n, dtype=torch.bool).tril()
        return logits.masked_fill(~mask, torch.finfo(torch.float32).min)

    entry = probe_sharpness(causal, (32,)).entries[0]
    rows = [row[: i + 1].double() for i, row in enumerate(causal(32))]
    h = [entropy_of(row).item() for row in rows]
    assert entry.entropy == pytest.approx(sum(h) / 32, abs=1e-6)
    assert entry.entropy_share == pytest.approx(
        sum(value / math.log(len(row)) for value, row in zip(h[1:], rows[1:], strict=True)) / 31, abs=1e-6
    )
    assert entry.spread == pytest.approx(sum((row.max() - row.min()).item() for row in rows) / 32, abs=1e-5)
    assert entry.spread_max == pytest.approx(max((row.max() - row.min()).item() for row in rows), abs=1e-5)


def test_bad_and_empty_rows_are_counted_and_left_out():
    def dirty(n):
        logits = torch.zeros(2, 5, n)
        logits[0, 0, 1] = math.nan
        logits[0, 1, 1] = math.inf
        logits[0, 2] = -math.inf
        logits[1] = math.nan
        return logits

    first, second = probe_sharpness(dirty, (8,)).entries
    assert (first.rows, first.nan_rows, first.empty_rows) == (5, 2, 1)
    assert first.entropy == pytest.approx(math.log(8), abs=1e-6)
    assert first.below + first.acting + first.above == 1.0
    assert (second.nan_rows, second.empty_rows) == (5, 0)
    assert math.isnan(second.entropy)
    assert math.isnan(second.spread)
    assert math.isnan(probe_sharpness(dirty, (8, 16)).slopes[1])
    assert str(probe_sharpness(dirty, (8,))).splitlines()[4].split()[4] == "-"


def test_one_key_and_half_precision():
    entry = probe_sharpness(lambda n: torch.zeros(3, n, dtype=torch.bfloat16), (1, 64)).entries
    assert entry[0].entropy == 0.0
    assert math.isnan(entry[0].entropy_share)
    assert entry[1].entropy == pytest.approx(math.log(64), abs=1e-6)


def test_reach_does_not_overflow():
    entry = probe_sharpness(lambda n: torch.tensor([[0.0, 1e5]]), (2,)).entries[0]
    assert entry.reach == entry.reach_max == math.inf


def test_weight_of_the_reach():
    report = probe_sharpness(lambda n: torch.tensor([[5.69] + [0.0] * (n - 1)]), (64,), weight=0.9)
    assert report.entries[0].reach == pytest.approx(1 + math.exp(5.69) / 9, rel=1e-5)
    assert "w=0.9" in str(report)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 200), st.floats(0.01, 8.0), st.integers(0, 10_000))
def test_no_key_holds_the_weight_beyond_the_reach(n, scale, seed):
    logits = scale * torch.randn(8, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    entry = probe_sharpness(lambda _: logits, (n,)).entries[0]
    if n > entry.reach_max * (1 + 1e-9):
        assert logits.softmax(-1).max() < 0.5
    assert entry.entropy >= math.log(n) - entry.spread - 1e-9


def test_slope_is_over_the_largest_sizes():
    def bent(n):
        logits = torch.zeros(1, n)
        if n <= 64:
            logits[0, 0] = 30.0
        return logits

    sizes = (16, 64, 256, 1024, 4096)
    assert probe_sharpness(bent, sizes).slopes[0] == pytest.approx(1.0, abs=1e-4)
    assert probe_sharpness(bent, sizes).slope_sizes == (256, 1024, 4096)
    assert probe_sharpness(bent, sizes, slope_sizes=5).slopes[0] > 1.2
    assert math.isnan(probe_sharpness(bent, (16,)).slopes[0])


def test_leaves_random_and_gradient_state_alone(monkeypatch):
    # Run-time checks of annotations draw random numbers of their own: take the module without them.
    spec = importlib.util.spec_from_file_location("plain_sharpness", sharpness.__file__)
    monkeypatch.setitem(sys.modules, spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sys.modules[spec.name])
    law, probe = AdaptiveTemperature.published(), sys.modules[spec.name].probe_sharpness
    weight = torch.nn.Parameter(torch.ones(()))
    graded = []

    def noisy(n):
        random.random()
        np.random.rand()
        logits = weight * torch.randn(2, n)
        graded.append(logits.requires_grad)
        return logits

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    probe(noisy, (8, 16), temperature=law)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert torch.is_grad_enabled()
    assert graded == [False, False]
    assert weight.grad is None
    with pytest.raises(ZeroDivisionError):
        probe(lambda n: torch.randn(1, n) * (1 // 0), (8,), temperature=law)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.is_grad_enabled()


def test_report_as_a_dict_is_json(report):
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["entries"][0]["entropy"] == pytest.approx(math.log(16))
    assert document["slope_sizes"] == [16, 256, 1024]
    unbounded = probe_sharpness(two_heads, (16,), temperature=AdaptiveTemperature((2.0,)))
    assert unbounded.to_dict()["interval"] == [0.5, None]


def test_report_as_a_table(report):
    lines = str(report).splitlines()
    assert len({len(line) for line in lines[2:9]}) == 1
    assert lines[2].split()[:5] == ["n", "head", "rows", "NaN", "H"]
    assert lines[3].split()[:3] == ["16", "0", "4"]
    assert "0.8486 < H < 5.9445 nats" in lines[9]
    assert lines[10].startswith("dH/d ln n, by head, over n = 16, 256, 1024: 1.000, 0.5")


def test_report_as_a_figure(report):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    ax = figure.subplots()
    report.plot(ax)
    assert len(ax.lines) == 3
    assert list(ax.lines[1].get_ydata()) == pytest.approx([math.log(n) for n in (16, 256, 1024)])
    assert ax.get_xlabel()
    assert "nats" in ax.get_ylabel()


@pytest.mark.parametrize(
    ("logits_of", "sizes", "settings", "match"),
    [
        (two_heads, (), {}, "sizes"),
        (two_heads, (0, 16), {}, "sizes"),
        (two_heads, (16, 16), {}, "sizes"),
        (lambda n: torch.zeros(2, n + 1), (16,), {}, r"logits_of\(16\)"),
        (lambda n: torch.zeros(n), (16,), {}, r"logits_of\(16\)"),
        (lambda n: torch.zeros(1, 2, 3, n), (16,), {}, r"logits_of\(16\)"),
        (lambda n: torch.zeros(0, n), (16,), {}, r"logits_of\(16\)"),
        (lambda n: torch.zeros(n // 16, 2, n), (16, 32), {}, "1 heads, as before"),
        (two_heads, (16,), {"weight": 1.0}, "weight"),
        (two_heads, (16,), {"slope_sizes": 1}, "slope_sizes"),
    ],
)
def test_arguments_are_refused(logits_of, sizes, settings, match):
    with pytest.raises(ArgumentError, match=match):
        probe_sharpness(logits_of, sizes, **settings)


def test_the_package_of_probes_imports_no_torch():
    code = "import sys, holdfast.probes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


NORMALISERS = {"plain": Plain(), "adaptive": Adaptive(), "log-n": LogN(16), "hard": Hard()}


def test_normalisers_are_compared_on_the_same_rows():
    def dirty(n):
        logits = two_heads(n)
        logits[1, 0] = math.nan
        logits[1, 1] = -math.inf
        return logits

    report = probe_sharpness(dirty, (64, 16), normalisers=NORMALISERS)
    assert report.normalisers == tuple(NORMALISERS)
    assert [(e.size, e.head, e.normaliser) for e in report.remedies] == [
        (n, head, name) for n in (16, 64) for head in (0, 1) for name in NORMALISERS
    ]
    entries = {(e.size, e.head): e for e in report.entries}
    for found in report.remedies:
        n, beta = found.size, 1.0
        if found.normaliser == "plain":
            own = entries[n, found.head]
            assert (found.entropy, found.largest) == pytest.approx((own.entropy, own.largest))
        if found.head == 1:
            gap = math.log(n - 1)
            if found.normaliser == "adaptive":
                entropy = torch.tensor(math.log(2) + gap / 2, dtype=torch.float64)
                beta = AdaptiveTemperature.published().beta(entropy).item()
            elif found.normaliser == "log-n":
                beta = max(1.0, math.log(n) / math.log(16))
            largest = 1 / (1 + (n - 1) * math.exp(-beta * gap)) if found.normaliser != "hard" else 1.0
            assert found.largest == pytest.approx(largest, abs=1e-9)
        elif found.normaliser == "hard":
            assert found.entropy == pytest.approx(math.log(n))  # all tie, and share
    text = str(report)
    assert "mean entropy in nats, by normaliser and n" in text
    assert max(map(len, text.splitlines()[1:])) <= 100
    json.dumps(report.to_dict(), allow_nan=False)


def test_rows_stand_at_their_last_visible_key():
    """What a causal row gets from a normaliser that asks for positions does not depend on the keys after it."""
    scores = torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    causal = scores.masked_fill(~torch.ones(8, 8, dtype=torch.bool).tril(), -math.inf)
    for normaliser in (ScaleInvariant(2.0), Llama4(floor_scale=2.0)):
        found = probe_sharpness(lambda _: causal, (8,), normalisers={"it": normaliser}).remedies[0]
        alone = [
            torch.special.entr(normaliser.weights(scores[i : i + 1, : i + 1])).sum().item() for i in range(len(scores))
        ]
        assert found.entropy == pytest.approx(sum(alone) / 8)


def test_half_precision_masks_stay_masks_for_normalisers():
    logits = torch.zeros(1, 1, 8, dtype=torch.float16)
    logits[..., 4:] = torch.finfo(torch.float16).min
    report = probe_sharpness(lambda _: logits, (8,), normalisers=NORMALISERS)
    assert all(each.entropy == pytest.approx(math.log(4), abs=1e-6) for each in report.remedies)


def test_errors_split_in_ordering_and_dispersion():
    """Four rows of two-level logits; an answer is right if the right key holds more than half the weight."""
    n = 8
    logits = torch.zeros(4, n, dtype=torch.float64)
    logits[0, 0] = 9.0  # right
    logits[1, 0] = 1.0  # spread too thin
    logits[2, 1] = 9.0  # another key wins
    logits[3, 1] = 1.0  # both
    asked = []

    def correct(size, weights):
        asked.append((size, weights.shape))
        return weights[:, 0] > 0.5

    report = probe_sharpness(lambda _: logits, (n,), correct=correct, normalisers={"sharp": SSMax(9.0)})
    [found] = report.answers
    assert (found.size, found.rows) == (n, 4)
    assert (found.ordering_error, found.dispersion_error, found.error) == (0.5, 0.25, 0.75)
    assert found.accuracy == {"sharp": 0.5}
    assert set(asked) == {(n, (4, n))}
    assert "error of the softmax" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["answers"][0]["accuracy"] == {"sharp": 0.5}
    alone = probe_sharpness(lambda _: logits, (n,), correct=correct).answers
    assert alone[0].accuracy == {}


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 97), st.floats(0.1, 5.0), st.integers(0, 10_000))
def test_the_two_errors_add_up_exactly(n, rows, scale, seed):
    logits = scale * torch.randn(2, rows, n, generator=torch.Generator().manual_seed(seed))
    report = probe_sharpness(
        lambda _: logits, (n,), correct=lambda _, weights: weights[0, :, 0] + weights[1, :, -1] > 0.6
    )
    [found] = report.answers
    assert found.error == found.ordering_error + found.dispersion_error
    weights = logits.softmax(-1)
    wrong = ~(weights[0, :, 0] + weights[1, :, -1] > 0.6)
    assert found.error == pytest.approx(wrong.double().mean().item(), abs=1e-12)


def test_critical_beta():
    logits = torch.tensor(
        [[0.0, -1.0, -2.0, -9.0], [0.0, -2.0, -2.0, -2.0], [3.0, 3.0, 0.0, 0.0], [5.0, -math.inf, -math.inf, -math.inf]]
    )
    expected = [max(math.log(2), math.log(3) / 2), math.log(4) / 2, math.inf, 0.0]
    assert critical_beta(logits).tolist() == pytest.approx(expected)
    assert math.isnan(critical_beta(torch.full((1, 3), -math.inf))[0])
    assert critical_beta(torch.zeros(2, 1)).tolist() == [0.0, 0.0]
    # A row of one visible key is left out, and the lower of two medians is taken.
    assert probe_sharpness(lambda _: logits[1:], (4,)).entries[0].beta_crit == pytest.approx(math.log(4) / 2)
    assert probe_sharpness(lambda _: logits[2:], (4,)).entries[0].beta_crit == math.inf


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 300), st.floats(0.1, 20.0), st.integers(0, 10_000))
def test_what_critical_beta_promises(n, scale, seed):
    logits = scale * torch.randn(8, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    beta = critical_beta(logits).unsqueeze(-1)
    harmonic = sum(1 / i for i in range(1, n + 1))
    assert (((beta * (1 + 1e-9)) * logits).softmax(-1).amax(-1) >= 1 / harmonic).all()
    assert (((beta * (1 - 1e-9)) * logits).softmax(-1).amax(-1) < 2 / 3 + 1e-6).all()


def needle(margin, sizes):
    return [(n, 1 / (1 + (n - 1) * math.exp(-margin))) for n in sizes]


def test_onset_of_a_winner_by_a_fixed_margin_is_told_from_small_sizes():
    true = 1 + math.exp(5.0)
    assert onset(needle(5.0, (8, 16, 32)), 0.5) == pytest.approx(true, rel=0.1)
    assert onset(needle(5.0, (16, 64, 256, 1024)), 0.5) == pytest.approx(true, rel=0.05)
    assert onset([(n, min(1.0, 100 / n)) for n in (16, 64, 256, 1024)], 0.1) == pytest.approx(1000, rel=0.1)


def test_onset_where_there_is_none_or_it_cannot_be_told():
    assert onset([(16, 0.9), (64, 0.9), (256, 0.9)], 0.5) == math.inf
    assert onset([(16, 1.0), (64, 1.0)], 0.5) == math.inf
    assert onset([(16, 0.3), (64, 0.6)], 0.5) == math.inf
    assert math.isnan(onset([(16, 0.4), (64, 0.2)], 0.5))
    assert math.isnan(onset([(16, 0.9)], 0.5))
    assert math.isnan(onset([(16, 1.0), (64, 1.0), (256, 0.9)], 0.5))
    assert math.isnan(onset([(16, math.nan), (64, 0.9)], 0.5))
    assert 64 < onset([(16, 1.0), (64, 1.0), (256, 0.4)], 0.5) < 256
    # A trend over the largest sizes that has passed the weight already: not before the last size, which holds it.
    assert onset([(16, 0.99), (32, 0.52), (64, 0.52)], 0.5) >= 64


def test_onsets_in_the_report(report):
    assert math.isnan(report.onsets[0])  # uniform
    assert report.onsets[1] == pytest.approx(1024) or report.onsets[1] == math.inf  # one half at all sizes
    assert "predicted n at which the mean largest weight falls below 0.5, by head: -, " in str(report)
    found = probe_sharpness(lambda n: 5.0 * torch.eye(1, n), (16, 64, 256)).onsets
    assert found[0] == pytest.approx(1 + math.exp(5.0), rel=0.05)


def test_violations_are_those_of_the_largest_size(report):
    assert [entry.head for entry in report.violations(0.9)] == [0]
    assert [entry.head for entry in report.violations(0.5)] == [0, 1]
    assert {entry.size for entry in report.violations(0.5)} == {1024}
    assert report.violations(1.1) == ()
    broken = probe_sharpness(lambda n: torch.full((1, n), math.nan), (4,))
    assert len(broken.violations(1.1)) == 1


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"normalisers": {"x": SSMax((0.4, 0.5, 0.6))}}, "normalisers"),
        ({"correct": lambda n, weights: weights.sum(-1)}, "correct"),
        ({"correct": lambda n, weights: True}, "correct"),
        ({"correct": lambda n, weights: weights[0] > 0}, "correct"),
    ],
)
def test_what_cannot_be_compared_or_scored_is_refused(options, argument):
    with pytest.raises(ArgumentError, match=argument):
        probe_sharpness(two_heads, (8,), **options)


def test_what_is_no_normaliser_is_refused():
    unchecked = getattr(checked_normalisers, "__wrapped__", checked_normalisers)  # without run-time types
    with pytest.raises(ArgumentError, match=r"normalisers: expected a Normaliser of holdfast\.nn under each name"):
        unchecked({"x": 3})


def test_one_scale_a_head():
    found = probe_sharpness(two_heads, (8,), normalisers={"per head": SSMax((0.1, 2.0))}).remedies
    alone = [
        probe_sharpness(two_heads, (8,), normalisers={"all": SSMax(s)}).remedies[h] for h, s in enumerate((0.1, 2.0))
    ]
    assert [e.entropy for e in found] == pytest.approx([e.entropy for e in alone])


@pytest.mark.parametrize("normalisers", [None, NORMALISERS])
@pytest.mark.parametrize("heads", [2, 12])
def test_the_picture_has_a_line_for_each(normalisers, heads):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    probe_sharpness(lambda n: torch.zeros(heads, 2, n), (4, 8), normalisers=normalisers).plot(axes)
    assert len(axes.get_lines()) == 1 + (heads if normalisers is None else len(NORMALISERS))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    wanted = [f"head {i}" for i in range(heads)] if heads <= 10 else [f"{heads} heads"]
    assert labels == ["uniform, ln n", *(wanted if normalisers is None else NORMALISERS), "the law acts"]


def test_the_report_begins_with_a_sentence(report):
    assert str(report).startswith(report.verdict + "\n")
    assert report.verdict == (
        "Attention is dispersed at n = 1024: 1 of 2 heads spreads almost evenly (H / ln n above 0.8), and the entropy "
        "of 2 of 2 heads grows with ln n at a slope above 0.5; the law does not reach 100% of their rows, so fit one "
        "that does (fit_temperature), or try LogN."
    )
    assert report.to_dict()["verdict"] == report.verdict
    header = str(report).splitlines()[2]
    for column in sharpness.MEANINGS:
        assert column in header or column in ("ordering", "dispersion")
    assert report.explain().count("\n") == len(sharpness.MEANINGS) - 1


def test_sentences():
    sharp = probe_sharpness(lambda n: torch.eye(4, n) * 50, (16, 64))
    assert sharp.verdict.startswith("Attention is not dispersed at n = 64: 0 of 1 head spread almost evenly")
    one = probe_sharpness(two_heads, (64,))
    assert "whether it grows with the input cannot be told at one size" in one.verdict
    assert "adaptive temperature acts on" in one.verdict
    nothing = probe_sharpness(lambda n: torch.full((3, n), math.nan), (16, 64))
    assert nothing.verdict.startswith("Nothing can be said about dispersion at n = 64")
    assert "6 rows are NaN" in nothing.verdict
    wrong = probe_sharpness(two_heads, (16, 64), correct=lambda n, w: (w.amax(-1) > 0.9).all(0))
    assert "100% of the answers there are wrong, most by ordering" in wrong.verdict
