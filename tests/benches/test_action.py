"""What guards the times of action models' backbones, and what is told of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from holdfast.benches.action import measure, peers, settings, step, subjects, windows
from holdfast.benches.action.measure import Plan
from holdfast.benches.action.subjects import Case
from holdfast.benches.harness.timing import Arm
from holdfast.errors import ArgumentError
from holdfast.nn import XLSTM, Backbone
from holdfast.probes.fast_forward import layers_of

CASE = Case("toy", 2, "cpu", "float32")
LENGTHS = (4, 40)


@pytest.fixture
def alone(monkeypatch):
    """No peer is installed."""
    monkeypatch.setattr(peers, "find_spec", lambda name: None)


def row(arm, timesteps, to_chunk, batch=1, **changes):
    alike = {"size": "0.4M", "batch": batch, "launch": "host", "arm": arm, "timesteps": timesteps}
    return {**alike, "to_chunk": to_chunk, **changes}


def test_the_arms_of_a_step(alone):
    subject = subjects.steps(CASE, LENGTHS, window=4, recompute=4)
    assert set(subject.arms) == {("chunk", 4), ("chunk", 40), ("single", 0), ("kv-cache", 4), ("kv-cache", 40)}
    assert subject.wrong == []
    assert subject.left_out == [
        "nxai: the package xlstm is not installed",
        "hf-window, hf-recompute: transformers is not installed",
    ]
    shape = settings.SIZES["toy"]
    assert subject.kept["kv-cache", 40] == 2 * 40 * 3 * 2 * shape.dim * 4  # rows, tokens, keys and values
    inner = 2 * shape.dim
    head = inner // shape.heads
    of_layer = shape.heads * (head**2 + head + 1) + 3 * inner
    assert subject.kept["chunk", 4] == subject.kept["chunk", 40] == 2 * shape.layers * of_layer * 4


def test_every_call_is_the_same_step(alone):
    subject = subjects.steps(CASE, LENGTHS, window=4, recompute=4)
    for arm in subject.arms.values():
        first = arm.call()
        assert first.shape == (2, 3, 32)
        assert torch.equal(first, arm.call())
    torch.testing.assert_close(subject.arms["chunk", 40].call(), subject.arms["single", 0].call())


def test_a_cache_that_is_shared_holds_as_many_keys_as_its_length(alone):
    torch.manual_seed(0)
    transformer = CASE.placed(Backbone(settings.transformer_of(settings.SIZES["toy"])))
    with torch.no_grad():
        early, late = subjects._read(transformer, CASE)
        whole = subjects.fast_forward(early, late, 120)
        short = subjects._shortened(whole, 48)
        assert [layer.longest for layer in layers_of(short)] == [48]
        # What was really read is its beginning, so the step after it is the real one.
        expected = transformer(CASE.tokens(3), late)[0]
        torch.testing.assert_close(transformer(CASE.tokens(3), short)[0], expected)


def test_a_wrong_arm_is_not_timed(alone, monkeypatch):
    usual = subjects._singles
    monkeypatch.setattr(subjects, "_singles", lambda *given: lambda: 1.1 * usual(*given)())
    subject = subjects.steps(CASE, LENGTHS, window=4, recompute=4)
    assert ("single", 0) not in subject.arms
    assert subject.wrong == ["single: differs from ours by 0.1 of the largest output"]


def test_keys_and_values_that_do_not_fit_are_left_out(alone, monkeypatch):
    monkeypatch.setattr(subjects, "free_memory", lambda device: 2**16)
    subject = subjects.steps(CASE, LENGTHS, window=4, recompute=4)
    assert ("kv-cache", 4) in subject.arms
    assert ("kv-cache", 40) not in subject.arms
    assert subject.left_out[1].startswith("kv-cache, 40 timesteps: ")


def test_the_decision_transformer_reads_all_it_is_given():
    pytest.importorskip("transformers")
    subject = subjects.steps(CASE, LENGTHS, window=5, recompute=4)
    assert {key for key in subject.arms if key[0].startswith("hf")} == {("hf-window", 0), ("hf-recompute", 4)}
    assert subject.arms["hf-window", 0].call().shape == (2, peers.ACTIONS)
    assert "hf-recompute, 40 timesteps: above 4" in subject.left_out


def test_nxai_has_our_weights():
    pytest.importorskip("xlstm")
    subject = subjects.steps(replace(CASE, batch=1), LENGTHS, window=4, recompute=4)
    assert subject.wrong == []
    assert ("nxai", 0) in subject.arms
    assert ("nxai", 12) in subjects.windows(CASE, 12, train=True).arms


@pytest.mark.parametrize("train", [False, True])
def test_the_arms_of_a_window(alone, train):
    subject = subjects.windows(CASE, 12, train=train)
    assert set(subject.arms) == {("xlstm", 12), ("transformer", 12)}
    output = subject.arms["xlstm", 12].call()
    if train:
        network = XLSTM(settings.SIZES["toy"])
        assert [gradient.shape for gradient in output] == [weight.shape for weight in network.parameters()]
        assert all(bool(gradient.isfinite().all()) for gradient in output)
    else:
        assert output.shape == (2, 12, 32)
        assert not output.requires_grad


def test_a_case_that_fails_costs_no_other(alone):
    def fails():
        raise RuntimeError("no memory")

    cases = [(CASE, "step", fails), (CASE, "step", lambda: subjects.steps(CASE, LENGTHS, window=4, recompute=4))]
    plan = Plan(rounds=1, budget_s=1.0, reference="chunk", unit="timesteps")
    rows, failures, left_out = measure.measure(cases, plan, lambda row: None)
    assert failures == ("step, toy, batch 2: RuntimeError: no memory",)
    assert [(row["arm"], row["timesteps"]) for row in rows] == [
        ("chunk", 4), ("chunk", 40), ("single", None), ("kv-cache", 4), ("kv-cache", 40),
    ]  # fmt: skip
    assert rows[1]["to_chunk"] == 1
    assert len(left_out) == 2


def test_times_are_divided_by_the_chunk_after_the_longest_episode(monkeypatch):
    times = {"chunk 4": [2.0, 2.0], "chunk 40": [4.0, 4.0], "single 0": [8.0, 12.0]}
    monkeypatch.setattr(measure, "interleaved", lambda arms, clock, **rest: times)
    arms = {(name.split()[0], int(name.split()[1])): Arm(lambda: None) for name in times}
    plan = Plan(rounds=2, budget_s=1.0, reference="chunk", unit="timesteps")
    rows = measure._rows(CASE, "step", subjects.Subject(arms), arms, plan, "host")
    assert [row["to_chunk"] for row in rows] == [0.5, 1.0, 2.5]
    assert [row["ms"] for row in rows] == [2, 4, 10]


def test_the_headline_tells_crossover_and_aims():
    rows = [row("chunk", 10, 1.25), row("chunk", 1000, 1.0), row("single", None, 2.5), row("nxai", None, 2.9)]
    rows += [row("kv-cache", 10, 0.5), row("kv-cache", 1000, 1.5), row("kv-cache", 10, 3.0, batch=16)]
    words, number = step.summary(rows, aims=True)
    assert number == pytest.approx(1 / 2.9)
    assert "0.4M, batch 1: the transformer is faster until 500 timesteps" in words
    assert "0.4M, batch 16: the transformer is slower from 10 timesteps on" in words
    assert "after 1000 timesteps a step takes 0.80 of that after 10, missed" in words
    assert "a chunk is 2.5 x as fast as single;" in words
    assert "a chunk is 2.9 x as fast as nxai, below 3" in words
    assert "missed" not in step.summary(rows, aims=False)[0]
    assert step.crossover([row("kv-cache", 10, 0.5)]) == "the transformer is faster up to 10 timesteps"
    assert step.crossover([]) == "no transformer fits"
    assert step.summary([], aims=True) == ("no time was measured", None)
    of_windows = {"subject": "train", "size": "16M", "batch": 8, "tokens": 150, "arm": "nxai", "to_xlstm": 2.0}
    assert windows.summary([of_windows]) == ("train, 16M, 8 x 150 tokens: 2 x as fast as nxai", 0.5)
    assert windows.summary([]) == ("no time was measured", None)


def test_transformers_are_as_large_as_published():
    for size, layers, heads in (("16M", 4, 8), ("48M", 6, 12), ("108M", 8, 16), ("206M", 10, 20)):
        shape = settings.transformer_of(settings.SIZES[size])
        assert (len(shape.mixers), shape.heads) == (layers, heads)
        with torch.device("meta"):
            sizes = [sum(p.numel() for p in net.parameters()) for net in (Backbone(shape), XLSTM(settings.SIZES[size]))]
        assert sizes[0] / sizes[1] == pytest.approx(1, abs=0.06)


def test_settings_that_do_not_fit_are_refused():
    for change, message in (
        ({"sizes": ("7B",)}, "sizes: expected some of toy, 0.4M"),
        ({"batches": (0,)}, "batches: expected a whole number of at least 1"),
        ({"lengths": (0, 3)}, "lengths: expected a whole number of at least 1"),
        ({"rounds": 0}, "rounds: expected a whole number of at least 1"),
    ):
        with pytest.raises(ArgumentError, match=message):
            step.run(replace(step.TOY, device="cpu", **change), lambda row: None)
    with pytest.raises(ArgumentError, match="lengths: expected a whole number of at least 1"):
        windows.run(replace(windows.TOY, device="cpu", lengths=(0,)), lambda row: None)
