"""What guards the times of attention: a wrong arm has none. And what runs on a GPU only, with the device played."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch

from holdfast.benches import BENCHES
from holdfast.benches.harness import timing
from holdfast.benches.sharpness import arms, cost, decode, measure, prefill, subjects
from holdfast.benches.sharpness.arms import Case, compare

CASE = Case(1, 4, 2, 80, 80, 16, "float32", causal=True)


def compared(monkeypatch, change, **options):
    """Compare with our attention changed."""
    usual = arms.adaptive_attention
    monkeypatch.setattr(arms, "adaptive_attention", lambda *tensors, **more: change(usual(*tensors, **more)))
    return compare(dataclasses.replace(CASE, **options), "cpu", "reference", eager=False)


def test_arms_that_agree_with_float64_are_timed(monkeypatch):
    comparison = compared(monkeypatch, lambda output: output)
    assert set(comparison.arms) == {"sdpa", "off", "adaptive"}
    assert comparison.wrong == {}
    assert max(comparison.errors.values()) < 1e-4


def test_a_wrong_arm_is_not_timed(monkeypatch):
    comparison = compared(monkeypatch, lambda output: output * 1.01)
    assert set(comparison.arms) == {"sdpa"}
    assert "from float64 is 0.01, above 0.001" in comparison.wrong["adaptive"]


def test_output_that_is_not_written_is_seen(monkeypatch):
    def change(output):
        output[0, 0, 3] = torch.nan
        return output

    assert "not finite" in compared(monkeypatch, change, padding=0).wrong["adaptive"]


def test_an_arm_without_the_law_is_wrong(monkeypatch):
    usual = arms.adaptive_attention
    monkeypatch.setattr(arms, "adaptive_attention", lambda *t, **more: usual(*t, **more | {"normaliser": arms.Plain()}))
    assert set(compare(CASE, "cpu", "reference", eager=False).wrong) == {"adaptive"}


def test_a_kernel_that_did_not_run_is_seen(monkeypatch):
    """Our attention silently computes in PyTorch what the kernel does not take."""
    monkeypatch.setattr(arms, "kernels", lambda wanted: contextlib.nullcontext())
    wrong = compare(CASE, "cpu", "triton", eager=False).wrong
    assert "the kernel did not run" in wrong["adaptive"]


@pytest.fixture
def played_gpu(monkeypatch):
    """A CUDA device of which all calls are there and do nothing: tensors stay on the CPU."""

    class Event:
        def __init__(self, enable_timing):
            pass

        def record(self):
            pass

        def elapsed_time(self, other):
            return 1.0

    class Graph:
        def replay(self):
            pass

    played = {
        "is_available": lambda: True,
        "synchronize": lambda: None,
        "memory_allocated": lambda: 0,
        "max_memory_allocated": lambda: 3 << 20,
        "reset_peak_memory_stats": lambda: None,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": lambda graph: contextlib.nullcontext(),
    }
    for name, value in played.items():
        monkeypatch.setattr(torch.cuda, name, value)
    tensors, mask = Case.tensors, Case.mask
    monkeypatch.setattr(Case, "tensors", lambda case, device: tensors(case, "cpu"))
    monkeypatch.setattr(Case, "mask", lambda case, device: mask(case, "cpu"))
    ahead = []
    monkeypatch.setattr(measure, "compile_ahead", ahead.append)
    return ahead


def test_decoding_on_a_gpu_is_timed_as_a_graph_too(monkeypatch, played_gpu):
    report = decode.run(dataclasses.replace(decode.TOY, device="cuda", kernels="reference"), lambda row: None)
    assert report.failures == ()
    rows = [(row["launch"], row["arm"]) for row in report.rows if row["arm"] != "cudnn"]
    assert rows == [(launch, arm) for launch in ("host", "graph") for arm in ("sdpa", "off", "adaptive")]
    assert {row["peak_mib"] for row in report.rows if row["launch"] == "host"} == {3.0}
    assert "graph" in report.headline
    assert report.ratio == 1.0


def test_a_capture_that_fails_keeps_what_was_timed_before(monkeypatch, played_gpu):
    def graph(graph):
        raise RuntimeError("no capture")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    report = decode.run(dataclasses.replace(decode.TOY, device="cuda", kernels="reference"), lambda row: None)
    assert {row["launch"] for row in report.rows} == {"host"}
    assert "no capture" in report.failures[0]


def test_a_case_that_fails_leaves_the_others(monkeypatch, played_gpu):
    usual = timing.interleaved

    def interleaved(arms, clock, **options):
        if not played_gpu:
            played_gpu.append("once")
            raise torch.cuda.OutOfMemoryError("too large")
        return usual(arms, clock, **options)

    monkeypatch.setattr(measure, "interleaved", interleaved)
    options = dataclasses.replace(prefill.TOY, device="cuda", kernels="reference", lengths=(64, 80))
    report = prefill.run(options, lambda row: None)
    assert {row["keys"] for row in report.rows} == {80}
    assert ["too large" in failure for failure in report.failures] == [True]
    assert "80 keys" in report.headline


def test_the_usual_cases_of_a_gpu_compile_each_kernel_once(monkeypatch, played_gpu):
    made = []
    monkeypatch.setattr(measure, "_rows", lambda case, comparison, plan: made.append(case) or [])
    monkeypatch.setattr(measure, "compare", lambda *arguments, **options: arms.Comparison({}, {}, {}, "flash"))
    prefill.run(prefill.Options(device="cuda"), lambda row: None)
    assert made == played_gpu[0]
    assert (made[0].dtype, made[0].head_dim, made[0].keys, made[0].causal) == ("bfloat16", 128, 16384, True)
    assert {case.keys for case in made} == {4096, 8192, 16384, 32768}
    assert {(case.dtype, case.head_dim) for case in made} == {("bfloat16", 64), ("bfloat16", 128)}


def test_costs_are_reported_for_every_arm(monkeypatch):
    monkeypatch.setattr(cost, "AIMS_FROM", 1)
    threads = torch.get_num_threads()
    rows = []
    bench = BENCHES["sharpness-cost"]
    report = bench.run(cost.TOY, rows.append)
    assert torch.get_num_threads() == threads
    assert report.failures == ()
    assert list(report.rows) == rows
    of_subject = {
        "train": ["sdpa", "plain", "log-n", "adaptive"],
        "statistics": ["sdpa", "entropy", "everything"],
        "decode": ["sdpa", "plain", "log-n", "adaptive"],
    }
    cases = [(subject, attend) for attend in ("causal", "full") for subject in ("train", "statistics")]
    cases.append(("decode", "causal"))
    measured = [(row["subject"], row["attend"], row["arm"]) for row in rows]
    assert measured == [(subject, attend, arm) for subject, attend in cases for arm in of_subject[subject]]
    assert all((row["aim"] is None) == (row["arm"] == "sdpa") for row in rows)
    assert "of 13 aims are met" in report.headline
    assert report.ratio == [row["to_sdpa"] for row in rows if row["subject"] == "train"][-1]


def test_costs_on_a_gpu_are_timed_by_its_clock(monkeypatch, played_gpu):
    for name in ("training", "statistics", "decoding"):
        usual = getattr(subjects, name)

        def on_a_cpu(*arguments, usual=usual):
            assert arguments[-1] == "cuda"
            return usual(*arguments[:-1], "cpu")

        monkeypatch.setattr(subjects, name, on_a_cpu)
    report = cost.run(dataclasses.replace(cost.TOY, device="cuda", threads=(1, 2)), lambda row: None)
    assert report.failures == ()
    assert {(row["ms"], row["peak_mib"], row["threads"]) for row in report.rows} == {(1.0, 3.0, 1)}


@pytest.mark.parametrize("name", ["adaptive_attention", "attention_statistics"])
def test_a_wrong_cost_is_not_timed(name, monkeypatch):
    usual = getattr(subjects, name)

    def wrong(*tensors, **options):
        return usual(*(1.01 * tensor for tensor in tensors), **options)

    monkeypatch.setattr(subjects, name, wrong)
    report = cost.run(cost.TOY, lambda row: None)
    expected = {"adaptive_attention": {"train", "decode"}, "attention_statistics": {"statistics"}}[name]
    assert {failure.split(",")[0] for failure in report.failures} == expected
    assert {row["arm"] for row in report.rows if row["subject"] in expected} == {"sdpa"}


def test_a_missed_aim_is_in_the_headline():
    row = {"subject": "train", "arm": "adaptive", "attend": "full", "tokens": 4096, "threads": 1, "aim": 1.8}
    words, ratio = cost._headline([row | {"to_sdpa": 2.0}, row | {"threads": 2, "to_sdpa": 9.0}], 1)
    assert words.endswith("0 of 1 aims are met; train adaptive full 4096: 2.00 above 1.8")
    assert ratio == 2.0
