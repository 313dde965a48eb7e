"""What guards the times of RAT, and what is told of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from holdfast.benches.harness.timing import Arm
from holdfast.benches.rat import core, layer, measure, peers, subjects
from holdfast.benches.rat.floors import Machine, floor_ms
from holdfast.benches.rat.measure import Plan, crossover, slope, summary
from holdfast.benches.rat.subjects import Shape, Subject
from holdfast.errors import ArgumentError

SHAPE = Shape("cpu", "float32", 2, 24, 4, 1, 2, 8, 4)


def row(subject, tokens, speed_up, ms=1.0, arm="rat-auto", batch=1, aim=None):
    return {
        "subject": subject,
        "tokens": tokens,
        "batch": batch,
        "arm": arm,
        "ms": ms,
        "over_sdpa": speed_up,
        "over_gqa": speed_up / 2,
        "aim": aim,
    }


@pytest.mark.parametrize("train", [False, True])
def test_arms_that_agree_with_float64_are_timed(train):
    subject = subjects.core(SHAPE, train=train)
    assert set(subject.arms) == {"sdpa", "gqa", "rat-auto"}
    assert subject.wrong == {}
    assert 0 < subject.errors["rat-auto"] < 1e-5


def test_a_wrong_arm_is_not_timed(monkeypatch):
    usual = subjects._output
    monkeypatch.setattr(subjects, "_output", lambda call, backend: 1.01 * usual(call, backend))
    for subject in (subjects.core(SHAPE, train=False), subjects.decoding(SHAPE)):
        assert set(subject.arms) == {"sdpa", "gqa"}
        assert "from float64 is 0.01" in subject.wrong["auto"]
    monkeypatch.setattr(subjects, "_output", lambda call, backend: 1 / 0)
    assert "ZeroDivisionError" in subjects.core(SHAPE, train=False).wrong["auto"]


def test_bytes_of_a_cache():
    cache = subjects.decoding(SHAPE).cache_bytes
    assert cache == {"sdpa": 2 * 24 * 4 * 8 * 4, "gqa": 2 * 24 * 8 * 4, "rat-auto": 2 * 6 * 4 * 8 * 4 + 2 * 4 * 8 * 4}
    wide = replace(SHAPE, dtype="bfloat16", heads=16, head_dim=128, tokens=4096, chunk_size=16, batch=1)
    assert 24 * subjects.decoding(wide).cache_bytes["rat-auto"] == 50_724_864  # 24 layers, as published


def test_a_subject_that_fails_costs_no_other():
    def fails():
        raise RuntimeError("no memory")

    def does_not_fit():
        raise torch.OutOfMemoryError("Tried to allocate 64.00 GiB")

    plan = Plan(rounds=1, budget_s=1.0, aim=lambda subject: 2.0)
    makers = [("first", fails), ("second", lambda: subjects.decoding(SHAPE)), ("third", does_not_fit)]
    rows, failures, too_large = measure.measure(makers, plan, lambda row: None)
    assert failures == ("first: RuntimeError: no memory",)
    assert too_large == ("third",)
    assert [row["arm"] for row in rows] == ["sdpa", "gqa", "rat-auto"]
    assert [row["aim"] for row in rows] == [None, None, 2.0]


def test_the_headline_tells_aims_crossover_and_losses():
    rows = [row("prefill", 512, 0.8, aim=1.0), row("prefill", 1024, 1.5, aim=1.0), row("prefill", 4096, 4.0, aim=3.0)]
    rows += [row("decode", 4096, 12.0, batch=32), row("prefill", 4096, 1.0, arm="sdpa")]
    words, ratio = summary(rows, [("a power of 1.4", True), ("a power of 1.6", False)])
    assert ratio == pytest.approx(1 / 4.0)
    assert words.startswith("prefill, 4096 tokens: 4 x as fast as sdpa; 3 of 5 aims are met")
    assert "prefill, 512 tokens 0.8 x is below 1" in words
    assert "a power of 1.6, missed" in words
    assert "prefill wins over sdpa from 1024 tokens on" in words
    assert "prefill wins over gqa from 4096 tokens on" in words
    assert "decode wins over sdpa from 4096 tokens on (batch 32)" in words
    assert crossover(rows[:1], "prefill", "over_sdpa") == "prefill never wins over sdpa up to 512 tokens"
    assert summary([], []) == ("no time was measured", None)
    assert "aims" not in summary([row("prefill", 512, 2.0)], [])[0]


def test_slope_is_the_exponent_of_the_length():
    rows = [row("prefill", 4096, 1.0, ms=2.0), row("prefill", 16384, 1.0, ms=16.0)]
    assert slope(rows, "prefill", 4096, 16384) == pytest.approx(1.5)
    assert slope(rows[:1], "prefill", 4096, 16384) is None


def test_aims_hold_where_they_were_set():
    def of(name, **sizes):
        return Subject(name, replace(SHAPE, batch=1, chunk_size=16, **sizes), {"sdpa": Arm(lambda: None)})

    assert core.aim(of("train", tokens=16384)) == 7.5
    assert core.aim(of("prefill", tokens=700)) == 1.0
    assert core.aim(of("prefill", tokens=300)) is None
    assert core.aim(of("decode", tokens=16384)) is None
    thirty_two = of("decode", tokens=16384)
    assert core.aim(replace(thirty_two, shape=replace(thirty_two.shape, batch=32))) == 13.0
    assert layer.aim(of("layer", tokens=4096)) is None
    assert layer.aim(of("layer", tokens=4096, device="cuda")) == 1.0


def test_floors_are_those_of_the_published_shape():
    # An H200 that copies 4.3 TB/s and multiplies at 600 TFLOP/s, 16 heads of 128 dimensions.
    machine = Machine(4.3e12, 600e12)
    shape = Shape("cuda", "bfloat16", 2, 131072, 16, 2, 2, 128, 16)
    forward = floor_ms("layer", shape, machine)
    assert 25 < forward < 36
    assert 2.5 < floor_ms("layer-train", shape, machine) / forward < 4
    step = floor_ms("decode", replace(shape, batch=512, tokens=4096), machine)
    assert step == pytest.approx(0.262, abs=0.02)
    assert math.isclose(floor_ms("decode", replace(shape, batch=64), machine), 1.0, rel_tol=0.05)


def test_the_fastest_kernel_is_the_peer(monkeypatch):
    assert peers.best(lambda: None, "cpu")[0] == "usual"
    times = iter([3.0] * 3 + [1.0] * 3 + [2.0] * 3)
    monkeypatch.setattr(peers, "on_gpu", lambda call: next(times))
    assert peers.best(lambda: None, "cuda")[0] == "cudnn"


def test_the_official_layer_is_looked_for_in_the_checkout(tmp_path):
    shape = replace(SHAPE, batch=1)
    assert "official" not in subjects.layer(shape, train=False, official=None).wrong
    wrong = subjects.layer(shape, train=False, official=tmp_path).wrong
    assert "ModuleNotFoundError" in wrong["official"]


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="groups: expected a number that divides heads = 4, got 3"):
        core.run(replace(core.TOY, device="cpu", groups=3), lambda row: None)
    with pytest.raises(ArgumentError, match="rounds"):
        layer.run(replace(layer.TOY, device="cpu", rounds=0), lambda row: None)
    with pytest.raises(ArgumentError, match="batches"):
        core.run(replace(core.TOY, device="cpu", batches=(1, 0)), lambda row: None)
