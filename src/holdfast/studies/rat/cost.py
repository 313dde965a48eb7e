"""Part `cost`: what mixing costs, beside PyTorch's attention with all key heads and with an eighth of them.

Between the projections, which cost every arm much the same. A trial makes inputs of its own and times all arms in turns
in one process, on a CPU by process time with one thread: its seeds are repetitions, and only ratios are judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from holdfast.lab import (
    Claim,
    Evidence,
    Figure,
    Outcome,
    Part,
    Results,
    Trial,
    exact,
    mean_of,
    progress,
    unusable,
    within,
)
from holdfast.lab.figures import GREY, draw_over_seeds, legend, size_axis
from holdfast.lab.results import Values
from holdfast.lab.seeds import generator_for
from holdfast.studies.clocks import cannot, clock_of, least_seconds
from holdfast.studies.rat.arms import style
from holdfast.studies.rat.cores import Call, Core, next_token, whole
from holdfast.studies.rat.paper import NOT_SHOWN
from holdfast.studies.rat.streams import INPUTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.rat.study import RATStudyConfig

KINDS = ("prefill", "training", "decode")
ARMS = ("attention", "gqa8", "rat16", "rat64", "rnn")

BASELINES = ("attention", "gqa8")
"""Every speed is told against both."""


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """What is timed.

    Arguments:
        device: where; on CUDA in bfloat16.
        heads: query heads, a multiple of 8.
        head_dim: width of a head.
        groups: queries and keys that RAT's heads share.
        prefill: tokens of sequences that are mixed as a whole, ascending.
        training: tokens of sequences that are mixed with all gradients.
        decode: tokens before the one that is decoded.
        tokens: sequences are so many that they have this number of tokens together; 0: one.
        batch: sequences that are decoded at once.
        rounds: of which the least time counts.
    """

    device: str = "cpu"
    heads: int = 8
    head_dim: int = 64
    groups: int = 2
    prefill: tuple[int, ...] = (64, 128, 256, 512, 1024, 4096, 16384)
    training: tuple[int, ...] = (256, 1024, 4096)
    decode: tuple[int, ...] = (1024, 4096, 16384)
    tokens: int = 0
    batch: int = 16
    rounds: int = 2


def trials(config: RATStudyConfig) -> Iterator[Trial[CostConfig]]:
    """One trial a repetition."""
    settings = config.cost
    for seed in config.seed_range:
        yield Trial(seed, settings, cost=40.0, gpu=1.0 if settings.device.startswith("cuda") else 0.0)


def run(trial: Trial[CostConfig]) -> Outcome:
    """Time all arms at all lengths.

    Records: for each `kind`, `arm` and `time`: `ms` a call, with the number of sequences (`batch`); in `decode` also
    the `cache` of a layer and sequence, in bytes. What the device has no memory for is left out.
    """
    import torch

    config = trial.config
    torch.set_num_threads(1)
    sizes = [(kind, time) for kind in KINDS for time in getattr(config, kind)]
    work = [time**1.5 for _, time in sizes]
    records: list[Record] = []
    for number, (kind, time) in enumerate(sizes):
        records += _timed(config, trial.seeds[0], kind, time)
        progress.report(sum(work[: number + 1]) / sum(work))
    return Outcome(records)


def _timed(config: CostConfig, seed: int, kind: str, time: int) -> list[Record]:
    """All arms at one length."""
    batch = config.batch if kind == "decode" else max(1, config.tokens // time)
    calls: dict[tuple[str, str], Call] = {}
    cores: dict[str, Core] = {}
    for arm in ARMS:
        if kind == "decode" and arm == "rnn":  # it has nothing to look back at
            continue
        cores[arm] = core = Core(
            arm=arm,
            batch=batch,
            time=time,
            heads=config.heads,
            head_dim=config.head_dim,
            groups=config.groups,
            device=config.device,
        )
        generator = generator_for(seed, INPUTS, KINDS.index(kind), time, ARMS.index(arm), device=config.device)
        try:
            made = (
                next_token(core, generator) if kind == "decode" else whole(core, generator, training=kind != KINDS[0])
            )
        except RuntimeError as error:
            if not cannot(error):
                raise
            continue
        calls |= {(arm, kernel): call for kernel, call in made.items()}
    seconds: dict[str, float] = {}
    for (arm, _), taken in least_seconds(calls, clock_of(config.device), rounds=config.rounds).items():
        seconds[arm] = min(taken, seconds.get(arm, math.inf))
    bits = 16 if config.device.startswith("cuda") else 32
    records: list[Record] = []
    for arm, taken in seconds.items():
        cache = {"cache": cores[arm].cache_bytes(bits)} if kind == "decode" else {}
        records.append({"kind": kind, "arm": arm, "time": time, "batch": batch, "ms": 1000 * taken, **cache})
    return records


def _ms(results: Results, kind: str, arm: str, time: int) -> Values:
    return results.by_seed("ms", part="cost", kind=kind, arm=arm, time=time)


def _times_faster(results: Results, kind: str, slow: str, fast: str, time: int) -> Values:
    return Values.of(lambda a, b: a / b, *(_ms(results, kind, arm, time) for arm in (slow, fast)))


def _longest(results: Results, kind: str) -> int:
    times: tuple[int, ...] = getattr(results.config.cost, kind)
    return times[-1]


def _faster(kind: str, slow: str, fast: str, above: float, results: Results) -> Evidence:
    """How many times as long the slow arm takes, at the greatest length."""
    values = _times_faster(results, kind, slow, fast, _longest(results, kind))
    return mean_of(values, threshold=above, name=f"{slow} / {fast}")


def _slope(arm: str, results: Results) -> Values:
    """Of log time against log length, over the two greatest lengths of prefill."""
    near, far = results.config.cost.prefill[-2:]
    span = math.log(far / near)
    # Where the number of tokens is fixed the time of a sequence is what grows.
    batches = [max(1, results.config.cost.tokens // time) for time in (near, far)]
    fewer = math.log(batches[0] / batches[1])
    return Values.of(
        lambda a, b: (math.log(a / b) + fewer) / span, *(_ms(results, "prefill", arm, time) for time in (far, near))
    )


def _flatter(arm: str, below: float, results: Results) -> Evidence:
    return mean_of(_slope(arm, results), threshold=below, alternative="less", name=f"slope of {arm}")


def _decode(results: Results) -> Evidence:
    values = _times_faster(results, "decode", "attention", "rat16", _longest(results, "decode"))
    return within(values, 0.8 * 16, 1.15 * 16, "attention / rat16")


def _decode_gqa(results: Results) -> Evidence:
    values = _times_faster(results, "decode", "gqa8", "rat16", _longest(results, "decode"))
    return mean_of(values, threshold=3.0, alternative="less", name="gqa8 / rat16")


def _loses(results: Results) -> Evidence:
    """At the shortest length attention takes less time than RAT16."""
    values = _times_faster(results, "prefill", "attention", "rat16", results.config.cost.prefill[0])
    return mean_of(values, threshold=1.0, alternative="less", name="attention / rat16")


def _cache(baseline: str, holds: Callable[[float], bool], results: Results) -> Evidence:
    """The baseline's bytes divided by those of RAT16, at the greatest length."""
    time = _longest(results, "decode")
    sizes = (results.by_seed("cache", part="cost", kind="decode", arm=arm, time=time) for arm in (baseline, "rat16"))
    ratios = Values.of(lambda a, b: a / b, *sizes)
    if not ratios:
        return unusable(ratios.missing or f"no caches at {time} tokens")
    ratio = next(iter(ratios.values()))
    return exact(holds=holds(ratio), effect=ratio, n=len(ratios), test="counted bytes", failed=ratios.failed)


CLAIMS = (
    Claim(
        "cost-prefill-16",
        "At the greatest length (16,384 tokens; on a GPU 131,072) attention takes more than 4 times as long as RAT16 "
        "for a whole sequence.",
        partial(_faster, "prefill", "attention", "rat16", 4.0),
        paper="6.9 at 131,072 tokens, projections included (latency figure)",
        family="cost",
        headline=True,
        plain="RAT reads a long text several times faster than attention",
        figure="cost-prefill",
        scale="laptop",
    ),
    Claim(
        "cost-prefill-64",
        "At the greatest length attention takes more than 8 times as long as RAT64 for a whole sequence.",
        partial(_faster, "prefill", "attention", "rat64", 8.0),
        paper="9.5 at 131,072 tokens, projections included (latency figure)",
        family="cost",
        scale="laptop",
    ),
    Claim(
        "cost-training-16",
        "At the greatest length of training (4,096 tokens; on a GPU 131,072) attention takes more than 3 times as "
        "long as RAT16, forward and backward.",
        partial(_faster, "training", "attention", "rat16", 3.0),
        paper="6.8 at 131,072 tokens, and 0.8 at 4,096, projections included (latency figure)",
        family="cost",
        scale="laptop",
    ),
    Claim(
        "cost-decode-16",
        "One more token after the greatest length (16,384; on a GPU 4,096) takes attention 16 times as long as RAT16 "
        "(ratio from 12.8 to 18.4).",
        _decode,
        paper="8.8 at 4,096 tokens and 512 sequences, projections included (latency figure)",
        family="cost",
        headline=True,
        plain="RAT writes its next token about 16 times faster than attention after a long text",
        figure="cost-decode",
        scale="laptop",
    ),
    Claim(
        "cost-decode-gqa",
        "Attention with 8 query heads a key head takes less than 3 times as long as RAT16 for one more token.",
        _decode_gqa,
        paper=NOT_SHOWN,
        family="cost",
        scale="laptop",
    ),
    Claim(
        "cost-loses",
        "At the shortest length (64 tokens; on a GPU 4,096) attention takes less time than RAT16.",
        _loses,
        paper="38 against 45 ms at 4,096 tokens (visible in the latency figure)",
        family="cost",
        scale="laptop",
    ),
    Claim(
        "cost-slope-16",
        "The time of RAT16 grows with a power of length below 1.5 between the two greatest lengths.",
        partial(_flatter, "rat16", 1.5),
        paper="all but linear (latency figure)",
        family="slopes",
        scale="laptop",
    ),
    Claim(
        "cost-slope-64",
        "The time of RAT64 grows with a power of length below 1.3 between the two greatest lengths.",
        partial(_flatter, "rat64", 1.3),
        paper="all but linear (latency figure)",
        family="slopes",
        scale="laptop",
    ),
    Claim(
        "cost-cache",
        "The cache of RAT16 is at least 15 times smaller than that of attention.",
        partial(_cache, "attention", lambda ratio: ratio >= 15),
        paper="16 times smaller",
        family="exact",
        scale="laptop",
    ),
    Claim(
        "cost-cache-gqa",
        "The cache of RAT16 is at most 2 times smaller than that of attention with 8 query heads a key head.",
        partial(_cache, "gqa8", lambda ratio: ratio <= 2),
        paper=NOT_SHOWN,
        family="exact",
        scale="laptop",
    ),
)


def _rows(results: Results, kind: str) -> list[Record]:
    """Mean time of each arm and length, and by how much each baseline is slower."""
    rows: list[Record] = []
    for arm in ARMS:
        for time in getattr(results.config.cost, kind):
            values = _ms(results, kind, arm, time)
            if not values:
                continue
            row = {"kind": kind, "arm": arm, "tokens": time, "ms": sum(values.values()) / len(values)}
            for baseline in BASELINES:
                ratios = list(_times_faster(results, kind, baseline, arm, time).values())
                row[f"{baseline} / this"] = sum(ratios) / len(ratios) if ratios else None
            caches = list(results.by_seed("cache", part="cost", kind=kind, arm=arm, time=time).values())
            rows.append({**row, "cache bytes": caches[0] if caches else None, "seeds": len(values)})
    return rows


def draw_cost(kind: str, results: Results, axes: Axes) -> list[Record]:
    """Time by length, and where RAT16 begins to be faster than attention."""
    for arm in ARMS:
        values = {time: list(_ms(results, kind, arm, time).values()) for time in getattr(results.config.cost, kind)}
        draw_over_seeds(axes, values, dots=True, marker="o", markersize=3, linewidth=1.6, **style(arm))
    rows = _rows(results, kind)
    where = crossover(rows)
    if where is not None:
        label = f"RAT16 faster from {where:.0f} tokens on"
        axes.axvline(where, color=GREY, linewidth=0.8, linestyle="--", label=label)
    if rows:
        axes.set_yscale("log")
    size_axis(axes, sorted({int(row["tokens"] or 0) for row in rows}), "tokens")
    axes.set_ylabel("milliseconds")
    legend(axes)
    return rows


def crossover(rows: list[Record]) -> float | None:
    """Tokens from which on RAT16 is faster than attention, between lengths on a log-log line.

    Arguments:
        rows: what `draw_cost` returns.

    Returns:
        `None` where one of them is faster at all lengths.
    """
    ratios = [
        (int(row["tokens"] or 0), float(row["attention / this"] or 0.0))
        for row in rows
        if row["arm"] == "rat16" and row["attention / this"] is not None
    ]
    slower = [place for place, (_, ratio) in enumerate(ratios) if ratio < 1]
    if not slower or slower[-1] == len(ratios) - 1:
        return None
    (near, low), (far, high) = ratios[slower[-1]], ratios[slower[-1] + 1]
    share = -math.log(low) / (math.log(high) - math.log(low))
    return float(near * (far / near) ** share)


part = Part(
    "cost",
    trials,
    run,
    claims=CLAIMS,
    figures=tuple(
        Figure(
            f"cost-{kind}",
            f"Time of mixing, without projections: {what}. Lines are means over repetitions, dots repetitions.",
            partial(draw_cost, kind),
        )
        for kind, what in zip(
            KINDS,
            (
                "whole sequences",
                "whole sequences, forward and backward",
                "one token of each sequence, by the number of tokens before it",
            ),
            strict=True,
        )
    ),
)
