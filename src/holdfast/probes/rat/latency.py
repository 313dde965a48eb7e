"""How long one more token takes, against the length of the text before it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.probes.context_length import position_limit
from holdfast.probes.rat.cache import checked_lengths, prefill
from holdfast.probes.rat.reading import Progress, check_tokens, device_of, left_as_found, untold
from holdfast.probes.rounds import interval, line, medians_drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUNDS = 21
"""Steps at each length."""

LEAST_ROUNDS = 7
"""Steps at each length however long they take: fewer have no interval worth its name."""

SECONDS = 10.0
"""After this time no round begins that need not."""

FIT = 0.25
"""Share of a median by which the line may miss it: beyond, times follow no line, and nothing is predicted from it."""


@dataclass(frozen=True)
class DecodeLatency:
    """What `decode_latency` found, for one sequence: a step takes a + bT milliseconds after T tokens.

    Intervals are of 95 %, from a bootstrap over rounds.

    Arguments:
        lengths: tokens before the first step.
        medians: milliseconds of a step at each length.
        rounds: steps at each length.
        fixed: a, the least-squares fit to the medians; predicted for an empty text.
        fixed_interval: of a.
        per_token: b, in milliseconds for each token before.
        per_token_interval: of b.
        doubles: tokens at which a step takes twice as long as a; inf where b is not above zero.
        doubles_interval: of that.
    """

    lengths: tuple[int, ...]
    medians: tuple[float, ...]
    rounds: int
    fixed: float
    fixed_interval: tuple[float, float]
    per_token: float
    per_token_interval: tuple[float, float]
    doubles: float
    doubles_interval: tuple[float, float]

    @property
    def linear(self) -> bool:
        """Whether the medians lie near the line. They need not: kernels and threads change with the length."""
        pairs = zip(self.lengths, self.medians, strict=True)
        return all(abs(self.fixed + self.per_token * n - median) <= FIT * median for n, median in pairs)

    @property
    def grows(self) -> bool:
        """Whether times follow a line whose slope is told from zero: it is positive, and so is all of its interval."""
        return self.linear and self.per_token_interval[0] > 0 and self.fixed > 0

    def plot(self, ax: Axes) -> None:
        """Draw milliseconds of a step against the length, and the line.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        ax.plot(self.lengths, self.medians, "o", markersize=4, color="C0", label="median")
        ends = (0, self.lengths[-1])
        ax.plot(ends, [self.fixed + self.per_token * n for n in ends], color="C0", linewidth=1, label="straight line")
        ax.set_ylim(0, 1.2 * max(self.medians))
        ax.set_xlabel("tokens before")
        ax.set_ylabel("ms")
        ax.set_title("one more token")
        ax.legend()


def decode_latency(
    model: nn.Module,
    tokens: Int[Tensor, "texts time"],
    *,
    lengths: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    progress: Progress = untold,
) -> DecodeLatency:
    """Time single steps of generation after texts of several lengths, a step at each in turn.

    What else the machine does then falls on all lengths alike. One round more goes before, and is not counted.

    Arguments:
        model: a causal language model of transformers.
        tokens: texts; the first one is read.
        lengths: of the text before; `None`: an eighth, a quarter, a half and all of it.
        rounds: steps at each length, at least 7; where they take longer than 10 seconds, 7 to as many as fit.
        progress: told of each round.

    Errors:
        ArgumentError: the model returns no cache, or an argument does not fit.
    """
    check_tokens(model, tokens, 2)
    count_of("rounds", rounds, least=LEAST_ROUNDS)
    limit = position_limit(model)
    steps = rounds + 1
    if lengths is None and limit is not None and tokens.shape[1] + steps > limit:
        tokens = tokens[:, : limit - steps]
        if tokens.shape[1] < 2:
            raise ArgumentError("model", f"one that can read more than {steps + 1} tokens", f"a table of {limit}")
    ascending = checked_lengths(model, tokens, lengths)
    if limit is not None and ascending[-1] + steps > limit:
        raise ArgumentError("lengths", f"at most {limit - steps}, for {steps} steps behind", ascending[-1])
    device = device_of(model)
    with left_as_found(model):
        states = [_State(*prefill(model, tokens[:1, :length]), tokens[:1, -1:].to(device)) for length in ascending]
        begun, times = time.perf_counter(), list[list[float]]()
        for done in range(steps):
            progress("latency", done, steps)
            times.append([state.step(model, device) for state in states])
            if len(times) > LEAST_ROUNDS and time.perf_counter() - begun > SECONDS:
                break
        progress("latency", steps, steps)
    return fitted(ascending, 1e3 * np.array(times[1:]))


def fitted(lengths: Sequence[int], times: np.ndarray) -> DecodeLatency:
    """Fit a + bT to the medians of rounds, with intervals from rounds drawn anew.

    Arguments:
        lengths: T of each column.
        times: milliseconds, a row for each round.
    """
    medians = np.median(times, axis=0)
    fixed, slope = line(lengths, medians)
    fixed_drawn, slope_drawn = line(lengths, medians_drawn(times))
    return DecodeLatency(
        lengths=tuple(lengths),
        medians=tuple(medians.tolist()),
        rounds=len(times),
        fixed=float(fixed),
        fixed_interval=interval(fixed_drawn),
        per_token=float(slope),
        per_token_interval=interval(slope_drawn),
        doubles=float(_doubles(fixed, slope)),
        doubles_interval=interval(_doubles(fixed_drawn, slope_drawn)),
    )


def _doubles(fixed: Any, slope: Any) -> Any:
    """a / b; inf where the line does not rise."""
    rises = np.asarray(slope) > 0
    return np.where(rises, np.maximum(fixed, 0) / np.where(rises, slope, 1), math.inf)


class _State:
    """A text that has been read, and goes on by a token a step."""

    def __init__(self, name: str, cache: Any, token: Tensor) -> None:
        self.name, self.cache, self.token = name, cache, token

    def step(self, model: nn.Module, device: torch.device) -> float:
        """Read one more token; the seconds that it took."""
        _wait(device)
        begun = time.perf_counter()
        output = model(input_ids=self.token, use_cache=True, **{self.name: self.cache})
        _wait(device)
        taken = time.perf_counter() - begun
        self.cache = getattr(output, self.name)
        return taken


def _wait(device: torch.device) -> None:
    """Let an accelerator finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
