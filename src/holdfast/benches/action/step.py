"""What one step of control costs against the length of the episode: xLSTM beside its peers and a transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell


@dataclass(frozen=True)
class Options:
    """One timestep of a backbone, three tokens, after episodes of several lengths."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run, on a CPU on one thread: cpu, cuda, or auto, which is cuda where there is one."""
    sizes: tuple[str, ...] | None = None
    """Networks: 0.4M, 1.7M, 16M, 48M, 108M, 206M parameters; unless given, 0.4M on a CPU, 16M and 206M on a GPU."""
    batches: tuple[int, ...] | None = None
    """Episodes side by side; unless given, 1 and 16 on a CPU, 1 and 64 on a GPU."""
    lengths: tuple[int, ...] | None = None
    """Lengths of episodes; unless given, up to 10000 on a CPU, to 25600 on a GPU."""
    window: int = 50
    """Timesteps that the decision transformer reads at each step."""
    recompute: int | None = None
    """Most timesteps that it reads where it reads all of them; unless given, 100 on a CPU, 400 on a GPU."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of weights and tokens; unless given, float32 on a CPU and bfloat16 on a GPU. What an xLSTM keeps is float32."""
    rounds: int = 30
    """Timed rounds at most."""
    budget: float = 4.0
    """Seconds after which no further round of a case begins, once there are three."""


TOY = Options(sizes=("toy",), batches=(1, 2), lengths=(4, 40), window=4, recompute=4, dtype="float32", rounds=2)

DEFAULTS = {
    "sizes": (("0.4M",), ("16M", "206M")),
    "batches": ((1, 16), (1, 64)),
    "lengths": ((10, 100, 300, 1000, 3000, 10_000), (10, 400, 3200, 25_600)),
    "recompute": (100, 400),
    "dtype": ("float32", "bfloat16"),
}

AIMS = {"single": 2.0, "nxai": 3.0}
"""How many times faster than these arms a chunk is to be on a CPU, with one episode."""

FLAT = (0.9, 1.1)
"""Between these the time after the longest episode is to be, divided by that after the shortest."""


def run(options: Options, tell: Tell) -> Report:
    """Check the arms, time them in turn, and compare them within each round.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds, states and memory in MiB.

    Errors:
        ArgumentError: a number is not positive, no such size, or no such device.
    """
    from functools import partial

    import torch

    from holdfast.benches.action.measure import Plan, measure
    from holdfast.benches.action.settings import filled
    from holdfast.benches.action.subjects import Case, steps

    options = filled(options, DEFAULTS)
    before = torch.get_num_threads()
    torch.manual_seed(0)
    cases = []
    for size in options.sizes or ():
        for batch in options.batches or ():
            case = Case(size, batch, str(options.device), str(options.dtype))
            lengths = tuple(sorted(options.lengths or ()))
            make = partial(steps, case, lengths, window=options.window, recompute=options.recompute or 1)
            cases.append((case, "step", make))
    plan = Plan(options.rounds, options.budget, reference="chunk", unit="timesteps", graphs=True)
    try:
        if options.device == "cpu":
            torch.set_num_threads(1)
        rows, failures, left_out = measure(cases, plan, tell)
    finally:
        torch.set_num_threads(before)
    headline, number = summary(rows, options.device == "cpu")
    return Report(asdict(options) | {"left_out": left_out}, rows, headline, number, failures)


def summary(rows: Sequence[Row], aims: bool) -> tuple[str, float | None]:
    """Crossover with the transformer for each size and batch, and what was aimed at.

    Arguments:
        rows: all of them.
        aims: whether aims are told.

    Returns:
        The words, and the time of a chunk divided by that of the peer's step: NX-AI's, or the transformer's after the
        longest episode.
    """
    from holdfast.benches.action.measure import groups, of

    words: list[str] = []
    number = None
    for alike in groups(rows, "size", "batch", "launch"):
        first = alike[0]
        launch = ", as CUDA graphs" if first["launch"] == "graph" else ""
        title = f"{first['size']}, batch {first['batch']}{launch}"
        peers = of(alike, arm="nxai") or sorted(of(alike, arm="kv-cache"), key=lambda row: row["timesteps"])
        if number is None and peers:
            number = 1 / peers[-1]["to_chunk"]
        words.append(f"{title}: {crossover(of(alike, arm='kv-cache'))}")
        chunks = of(alike, arm="chunk")
        if aims and len(chunks) == 2:
            flat = 1 / chunks[0]["to_chunk"]
            text = f"after {chunks[1]['timesteps']} timesteps a step takes {flat:.2f} of that after"
            words.append(f"{text} {chunks[0]['timesteps']}{'' if FLAT[0] <= flat <= FLAT[1] else ', missed'}")
        for arm, aim in AIMS.items() if aims and first["batch"] == 1 else ():
            for row in of(alike, arm=arm):
                missed = "" if row["to_chunk"] >= aim else f", below {aim:g}"
                words.append(f"a chunk is {row['to_chunk']:.3g} x as fast as {arm}{missed}")
    return "; ".join(words) or "no time was measured", number


def crossover(rows: Sequence[Row]) -> str:
    """From how many timesteps on the transformer's step takes longer than a chunk, on the line between two lengths."""
    lengths = sorted((row["timesteps"], row["to_chunk"]) for row in rows)
    faster = [place for place, (_, ratio) in enumerate(lengths) if ratio <= 1]
    if not lengths:
        return "no transformer fits"
    if not faster:
        return f"the transformer is slower from {lengths[0][0]} timesteps on"
    last = faster[-1]
    if last == len(lengths) - 1:
        return f"the transformer is faster up to {lengths[-1][0]} timesteps"
    (low, before), (high, after) = lengths[last : last + 2]
    crossing = low + (high - low) * (1 - before) / (after - before)
    digits = 10 ** max(0, math.floor(math.log10(max(crossing, 1))) - 1)
    return f"the transformer is faster until {round(crossing / digits) * digits:g} timesteps"
