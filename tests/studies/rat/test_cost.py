"""Parts `cost` and `throughput`: what is called, what caches hold, and where lines cross."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from holdfast.lab import Results
from holdfast.lab.seeds import generator_for
from holdfast.nn import RAT, CausalAttention, WindowState
from holdfast.studies.caches import filled
from holdfast.studies.clocks import least_seconds
from holdfast.studies.rat import cost, throughput
from holdfast.studies.rat.arms import Shape, backbone_of
from holdfast.studies.rat.cores import Core, next_token, whole
from holdfast.studies.rat.cost import crossover
from holdfast.studies.rat.language_model import LanguageModel
from holdfast.studies.rat.study import study
from tests.studies.rat.toy import TOY
from tests.studies.tools import assert_drawn, results_of


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "cost", "throughput")


def test_what_is_timed(results: Results) -> None:
    rows = {(row["kind"], row["arm"], row["time"]): row for row in results.where(part="cost")}
    expected = {("prefill", arm, time) for arm in cost.ARMS for time in (16, 32, 64)}
    expected |= {("training", arm, 16) for arm in cost.ARMS}
    expected |= {("decode", arm, time) for arm in cost.ARMS if arm != "rnn" for time in (64, 128)}
    assert rows.keys() == expected
    assert all(float(row["ms"] or 0) > 0 for row in rows.values())
    assert [rows["prefill", "rat16", time]["batch"] for time in (16, 32, 64)] == [4, 2, 1]
    assert {row["batch"] for (kind, _, _), row in rows.items() if kind == "decode"} == {2}
    written = {row["arm"]: row for row in results.where(part="throughput")}
    assert written.keys() == set(throughput.ARMS)
    for row in written.values():
        batch, cache = int(row["batch"] or 0), int(row["cache"] or 0)
        assert batch == max(1, TOY.throughput.memory // cache)


def test_figures(results: Results) -> None:
    assert_drawn([*cost.part.figures, *throughput.part.figures], results)


def core(arm: str, **changes: int) -> Core:
    return Core(
        **{"arm": arm, "batch": 2, "time": 128, "heads": 8, "head_dim": 4, "groups": 2, "device": "cpu"} | changes
    )  # type: ignore[arg-type]


def test_caches_of_the_published_model() -> None:
    """24 layers of 2,048 channels after 4,096 tokens, in 16 bits: dossier and arXiv 2507.04416."""
    sizes = {arm: 24 * core(arm, time=4096, heads=16, head_dim=128).cache_bytes(16) for arm in cost.ARMS}
    assert sizes["rat16"] == 50_724_864
    assert sizes["attention"] == 805_306_368
    assert sizes["gqa8"] == 805_306_368 // 8


@pytest.mark.parametrize("arm", ["attention", "gqa8", "rat16", "rat64"])
def test_counted_bytes_are_those_of_a_state(arm: str) -> None:
    state = LanguageModel(backbone_of(arm, Shape(dim=32, heads=8), 64), 5, 0, 0).backbone.init_state(1, limit=128)
    assert state.nbytes == core(arm).cache_bytes(32)


@pytest.mark.parametrize("arm", cost.ARMS)
@pytest.mark.parametrize("training", [False, True])
def test_calls_compute(arm: str, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args: gradients.append(grad(*args)))
    for call in whole(core(arm), generator_for(0, 0), training=training).values():
        call()
    assert len(gradients) == training
    assert all(tensor.abs().sum() > 0 for group in gradients for tensor in group)
    if arm != "rnn":
        for call in next_token(core(arm), generator_for(0, 0)).values():
            call()


def test_shared_key_heads_as_the_queries_of_one_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest form of the baseline computes what the plain one does."""
    attend = torch.nn.functional.scaled_dot_product_attention
    outputs = []

    def both(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        heads = query.reshape(len(query), -1, 1, query.shape[-1])
        outputs.append((attend(query, key, value).reshape(heads.shape), attend(heads, key, value, enable_gqa=True)))
        return outputs[-1][0]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", both)
    next_token(core("gqa8", heads=16), generator_for(0, 0))["default"]()
    assert torch.allclose(*outputs[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("arm", [*throughput.ARMS, "rnn"])
def test_filled_states_are_like_those_of_tokens_that_were_read(arm: str) -> None:
    model = LanguageModel(backbone_of(arm, Shape(dim=32, heads=8, layers=2, window=8), 64), 5, 0, 0)
    tokens = torch.zeros(3, 37, dtype=torch.long)
    with torch.no_grad():
        _, read = model.step(tokens, model.backbone.init_state(3, limit=64))
        state = filled(model.backbone.init_state(3, limit=64), 37)
        for layer, expected in zip(state.layers, read.layers, strict=True):
            assert layer.limit == (None if isinstance(layer, WindowState) else expected.limit)
            assert (layer.longest, layer.nbytes) == (expected.longest, expected.nbytes)
            assert torch.equal(layer.seen, expected.seen)
            for part in ("cache", "closed"):
                if hasattr(layer, part):
                    assert getattr(layer, part).used == getattr(expected, part).used
        for _ in range(12):  # over the end of a chunk
            logits, state = model.step(tokens[:, :1], state)
    assert state.longest == 49
    assert logits.isfinite().all()


def test_turns_are_taken_and_the_least_counts() -> None:
    now, made = 0.0, []
    takes = {"a": [9.0, 3.0, 5.0], "b": [0.5, 0.25, 0.125], "c": []}
    numbers: dict[str, int] = defaultdict(int)

    def call(name: str) -> None:
        nonlocal now
        made.append(name)
        if name == "c":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        now += takes[name][numbers[name]]
        numbers[name] += 1

    calls = {name: (lambda name=name: call(name)) for name in takes}
    best = least_seconds(calls, lambda: now, rounds=2, least=0.0)
    assert best == {"a": 3.0, "b": 0.125}
    assert made == ["a", "b", "c", "a", "b", "a", "b"]


def test_what_is_wrong_with_a_call_is_no_lack_of_memory() -> None:
    def call() -> None:
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes"):
        least_seconds({"a": call}, lambda: 0.0, rounds=1)


def test_short_calls_are_repeated() -> None:
    now, count = 0.0, 0

    def call() -> None:
        nonlocal now, count
        now, count = now + 0.25, count + 1

    assert least_seconds({"a": call}, lambda: now, rounds=2, least=1.0) == {"a": 0.25}
    assert count == 1 + 2 * 4


def test_where_lines_cross() -> None:
    def rows(*ratios: float) -> list[dict[str, str | float | int | None]]:
        return [
            {"arm": "rat16", "tokens": 4**place, "attention / this": ratio} for place, ratio in enumerate(ratios, 3)
        ]

    assert crossover(rows(0.5, 2.0)) == pytest.approx(128), "half-way of 64 to 256 on a log-log line"
    assert crossover(rows(0.5, 2.0, 0.5, 8.0)) == pytest.approx(4 ** (5 + 0.25))
    assert crossover(rows(2.0, 3.0)) is None
    assert crossover(rows(0.2, 0.3)) is None
    assert crossover([]) is None


def test_modules_of_the_arms() -> None:
    shape = Shape(dim=32, heads=8)
    (shared,) = LanguageModel(backbone_of("gqa8", shape, 8), 5, 0, 0).backbone.blocks
    (rat,) = LanguageModel(backbone_of("rat16", shape, 8), 5, 0, 0).backbone.blocks
    assert isinstance(shared.mixer, CausalAttention)
    assert shared.mixer.kv_heads == 1
    assert isinstance(rat.mixer, RAT)
    assert rat.mixer.chunk_size == 16
