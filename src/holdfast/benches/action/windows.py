"""What an xLSTM costs over whole windows, in prefill and in training, beside NX-AI's and a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

Part = Literal["prefill", "train"]


@dataclass(frozen=True)
class Options:
    """Windows of tokens through a backbone: forward, or forward and backward."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run, on a CPU on one thread: cpu, cuda, or auto, which is cuda where there is one."""
    parts: tuple[Part, ...] = ("prefill", "train")
    """What is timed: forward, forward and backward."""
    sizes: tuple[str, ...] | None = None
    """Networks: 0.4M, 1.7M, 16M, 48M, 108M, 206M parameters; unless given, 0.4M on a CPU, 16M and 206M on a GPU."""
    lengths: tuple[int, ...] | None = None
    """Tokens of a window; unless given, 150, which is 50 timesteps, and 1536."""
    batches: tuple[int, ...] | None = None
    """Windows; unless given, 8 on a CPU, 32 on a GPU."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of weights and tokens; unless given, float32 on a CPU and bfloat16 on a GPU."""
    rounds: int = 15
    """Timed rounds at most."""
    budget: float = 3.0
    """Seconds after which no further round of a case begins, once there are three."""


TOY = Options(sizes=("toy",), batches=(2,), lengths=(12,), dtype="float32", rounds=2)

DEFAULTS = {
    "sizes": (("0.4M",), ("16M", "206M")),
    "lengths": ((150, 1536), (150, 1536)),
    "batches": ((8,), (32,)),
    "dtype": ("float32", "bfloat16"),
}


def run(options: Options, tell: Tell) -> Report:
    """Check the arms, time them in turn, and compare them within each round.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds, memory in MiB.

    Errors:
        ArgumentError: a number is not positive, no such size, or no such device.
    """
    from functools import partial

    import torch

    from holdfast.benches.action import subjects
    from holdfast.benches.action.measure import Plan, measure
    from holdfast.benches.action.settings import filled

    options = filled(options, DEFAULTS)
    before = torch.get_num_threads()
    torch.manual_seed(0)
    cases = []
    for part in options.parts:
        for size in options.sizes or ():
            for batch in options.batches or ():
                for tokens in options.lengths or ():
                    case = subjects.Case(size, batch, str(options.device), str(options.dtype))
                    cases.append((case, part, partial(subjects.windows, case, tokens, train=part == "train")))
    plan = Plan(options.rounds, options.budget, reference="xlstm", unit="tokens")
    try:
        if options.device == "cpu":
            torch.set_num_threads(1)
        rows, failures, left_out = measure(cases, plan, tell)
    finally:
        torch.set_num_threads(before)
    headline, number = summary(rows)
    return Report(asdict(options) | {"left_out": left_out}, rows, headline, number, failures)


def summary(rows: Sequence[Row]) -> tuple[str, float | None]:
    """How many times faster than its peers the xLSTM is, and its time divided by the first one's."""
    peers = [row for row in rows if row["arm"] != "xlstm"]
    if not peers:
        return "no time was measured", None
    words = [
        f"{row['subject']}, {row['size']}, {row['batch']} x {row['tokens']} tokens: {row['to_xlstm']:.3g} x as fast as "
        f"{row['arm']}"
        for row in peers
    ]
    return "; ".join(words), 1 / peers[0]["to_xlstm"]
