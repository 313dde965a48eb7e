"""What attention costs to train, to take statistics of and to decode with, beside PyTorch's fused attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    from holdfast.benches.sharpness.subjects import Subject


@dataclass(frozen=True)
class Options:
    """Training, row statistics and decoding of a batch, beside PyTorch's fused attention."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run: cpu, cuda, or auto, which is cuda where there is one."""
    lengths: tuple[int, ...] | None = None
    """Numbers of tokens; in decoding, of keys; unless given, 128 and 512 on a CPU, 1024 and 4096 on a GPU."""
    attend: tuple[Literal["causal", "full"], ...] = ("causal", "full")
    """What a query sees."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads; the first one decides whether an aim is met, and is the only one on a GPU."""
    heads: int = 8
    """Heads, of keys too."""
    head_dim: int = 64
    """Dimensions of a head."""
    batch: int = 8
    """Sequences that are decoded at once; training and statistics take one."""
    rounds: int = 100
    """Timed rounds at most."""
    budget: float = 0.5
    """Seconds after which no further round of a case begins, once there are three."""


AIMS_FROM = 1024
"""Tokens from which on the aims hold: below, fixed costs of tens of microseconds decide."""

TOY = Options(lengths=(64,), threads=(1,), heads=2, head_dim=16, batch=2, rounds=2)


def run(options: Options, tell: Tell) -> Report:
    """Time all arms in turn on the same inputs, and divide the least time of each by that of the peer.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds, memory in MiB above the inputs.

    Errors:
        ArgumentError: a size is not positive, or there is no such device.
    """
    import torch

    from holdfast.benches.sharpness.arms import device_of
    from holdfast.errors import count_of

    device = device_of(options.device)
    gpu = device == "cuda"
    lengths = options.lengths or ((1024, 4096) if gpu else (128, 512))
    options = replace(options, device="cuda" if gpu else "cpu", lengths=lengths)
    sizes = {"lengths": min(lengths), "threads": min(options.threads)}
    for name in ("heads", "head_dim", "batch", "rounds"):
        sizes[name] = getattr(options, name)
    for name, size in sizes.items():
        count_of(name, size, 1)
    rows: list[Row] = []
    failures: list[str] = []
    before = torch.get_num_threads()
    try:
        for threads in options.threads[:1] if gpu else options.threads:
            torch.set_num_threads(threads)
            for case, make in _cases(options, lengths, device):
                subject = make()
                failures += [f"{_name(subject, case)}: {arm} is {subject.errors[arm]:.2g} off" for arm in subject.wrong]
                for row in _rows(subject, case | {"threads": threads}, options):
                    tell(row)
                    rows.append(row)
    finally:
        torch.set_num_threads(before)
    return Report(asdict(options), tuple(rows), *_headline(rows, options.threads[0]), tuple(failures))


def _cases(
    options: Options, lengths: tuple[int, ...], device: str
) -> Iterator[tuple[dict[str, str | int], Callable[[], Subject]]]:
    """Every case, and what makes its arms."""
    from functools import partial

    from holdfast.benches.sharpness.subjects import decoding, statistics, training

    for tokens in lengths:
        for attend in options.attend:
            case: dict[str, str | int] = {"attend": attend, "tokens": tokens}
            for make in (training, statistics):
                yield case, partial(make, tokens, options.heads, options.head_dim, attend == "causal", device)
        of_decoding: dict[str, str | int] = {"attend": "causal", "tokens": tokens}
        yield of_decoding, partial(decoding, tokens, options.batch, options.heads, options.head_dim, device)


def _name(subject: Subject, case: dict[str, str | int]) -> str:
    return f"{subject.name}, {case['attend']}, {case['tokens']} tokens"


def _rows(subject: Subject, case: dict[str, str | int], options: Options) -> Iterator[Row]:
    """The arms of a subject, timed."""
    from holdfast.benches.harness.timing import interleaved, on_cpu, on_gpu, peak_on_cpu, peak_on_gpu

    clock, peak_of = (on_gpu, peak_on_gpu) if options.device == "cuda" else (on_cpu, peak_on_cpu)
    peaks = {name: peak_of(arm) for name, arm in subject.right.items()}
    milliseconds = interleaved(subject.right, clock, rounds=options.rounds, budget_s=options.budget)
    for name, times in milliseconds.items():
        peak = peaks[name]
        yield {
            "subject": subject.name,
            **case,
            "arm": name,
            "ms": min(times),
            "to_sdpa": min(times) / min(milliseconds["sdpa"]),
            "aim": subject.aims.get(name) if int(case["tokens"]) >= AIMS_FROM else None,
            "peak_mib": None if peak is None else round(peak / 2**20, 2),
            "error": subject.errors.get(name),
            "rounds": len(times),
        }


def _headline(rows: list[Row], threads: int) -> tuple[str, float | None]:
    """Training with the law at the greatest length, and which aims were missed."""
    decide = [row for row in rows if row["threads"] == threads]
    aimed = [row for row in decide if row["aim"] is not None]
    missed = [
        f"{row['subject']} {row['arm']} {row['attend']} {row['tokens']}: {row['to_sdpa']:.2f} above {row['aim']:g}"
        for row in aimed
        if row["to_sdpa"] > row["aim"]
    ]
    trained = [row for row in decide if (row["subject"], row["arm"]) == ("train", "adaptive")]
    if not trained:
        return "no training was timed", None
    last = trained[-1]
    words = (
        f"training with the law, {last['attend']}, {last['tokens']} tokens, {threads} threads: "
        f"{last['to_sdpa']:.2f} x the time of sdpa; {len(aimed) - len(missed)} of {len(aimed)} aims are met"
    )
    return "; ".join([words, *missed]), last["to_sdpa"]
