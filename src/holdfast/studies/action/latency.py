"""Part `latency`: how long a step of control takes, by the number of timesteps before it.

A step is three tokens, which the backbone reads against what it keeps. Weights are random, and so is what attention
keeps: neither changes the time. A trial times all backbones at all lengths in turns in one process, on a CPU by process
time with one thread: its seeds are repetitions, and only ratios are judged. Encoders and head are left out; they cost
every backbone the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

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
from holdfast.studies.action.paper import OURS, SECOND_HAND
from holdfast.studies.action.streams import INPUTS, WEIGHTS
from holdfast.studies.clocks import cannot, clock_of, least_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn

    from holdfast.lab import Record

ARMS = {
    "xlstm10": "xLSTM[1:0]",
    "xlstm11": "xLSTM[1:1]",
    "cache": "transformer, keys and values kept",
    "recompute": "transformer, a window computed again",
}
"""Arms, and how figures call them."""

TOKENS = 3
"""Of a timestep."""


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """What is timed.

    Arguments:
        device: where; on CUDA in bfloat16.
        dim: width of all backbones.
        heads: of xLSTM; attention has twice as many.
        layers: of the transformer; xLSTM has twice as many, which have about as many weights.
        contexts: timesteps before the one that is timed, ascending.
        batches: environments side by side, ascending.
        window: timesteps that are computed again at every step by the transformer that keeps nothing.
        memory: bytes that keys and values may take; longer contexts are left out.
        rounds: of which the least time counts.
    """

    device: str = "cpu"
    dim: int = 128
    heads: int = 4
    layers: int = 2
    contexts: tuple[int, ...] = (10, 50, 200, 800, 3200, 12800)
    batches: tuple[int, ...] = (1, 16)
    window: int = 50
    memory: int = 1 << 28
    rounds: int = 9


def trials(config: Any) -> Iterator[Trial[LatencyConfig]]:
    """One trial a repetition and number of environments.

    Arguments:
        config: the study's configuration.
    """
    settings: LatencyConfig = config.latency
    for seed in config.seed_range:
        for batch in settings.batches:
            gpu = 1.0 if settings.device.startswith("cuda") else 0.0
            yield Trial(seed, settings, {"batch": batch}, cost=8.0 + batch, gpu=gpu)


def run(trial: Trial[LatencyConfig]) -> Outcome:
    """Time all backbones after all contexts.

    Records: for each `arm` and `context` the `ms` of a step and the `bytes` that are kept between steps, of all
    environments together. What the device has no memory for is left out.
    """
    import torch

    config, seed, batch = trial.config, trial.seeds[0], int(str(trial.labels["batch"]))
    torch.set_num_threads(1)
    nets = {arm: _network(arm, config, seed) for arm in ("xlstm10", "xlstm11", "cache")}
    nets["recompute"] = nets["cache"]
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    kept: dict[tuple[str, int], int] = {}
    for number, context in enumerate(config.contexts):
        for arm, net in nets.items():
            try:
                call, size = _step(arm, net, config, batch, context, seed)
            except RuntimeError as error:
                if not cannot(error):
                    raise
                continue
            if size <= config.memory:
                calls[arm, context], kept[arm, context] = call, size
        progress.report(0.5 * (number + 1) / len(config.contexts))
    with torch.no_grad():
        seconds = least_seconds(calls, clock_of(config.device), rounds=config.rounds)
    return Outcome(
        [
            {"arm": arm, "context": context, "ms": 1000 * taken, "bytes": kept[arm, context]}
            for (arm, context), taken in seconds.items()
        ]
    )


def _network(arm: str, config: LatencyConfig, seed: int) -> nn.Module:
    import torch

    from holdfast.nn import XLSTM, Backbone, BackboneConfig, XLSTMConfig

    torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator_for(seed, WEIGHTS))))
    net: nn.Module
    if arm == "cache":
        shape = BackboneConfig(mixers=("attention",) * config.layers, dim=config.dim, heads=2 * config.heads)
        net = Backbone(shape)
    else:
        layers = 2 * config.layers
        at = tuple(range(1, layers, 2)) if arm == "xlstm11" else ()
        net = XLSTM(XLSTMConfig(dim=config.dim, layers=layers, heads=config.heads, slstm_at=at))
    dtype = torch.bfloat16 if config.device.startswith("cuda") else torch.float32
    return net.to(config.device, dtype).eval()


def _step(
    arm: str, net: Any, config: LatencyConfig, batch: int, context: int, seed: int
) -> tuple[Callable[[], object], int]:
    """A step of control after so many timesteps, and the bytes that are kept for it."""
    import torch

    from holdfast.studies.caches import again, filled

    weight = next(net.parameters())
    generator = generator_for(seed, INPUTS, context, device=config.device)

    def inputs(timesteps: int) -> torch.Tensor:
        shape = (batch, timesteps * TOKENS, config.dim)
        return torch.randn(shape, generator=generator, device=weight.device).to(weight.dtype)

    if arm == "recompute":
        window = inputs(min(config.window, context + 1))
        return (lambda: net(window)), window.nbytes
    step = inputs(1)
    if arm == "cache":
        room = TOKENS * (context + 1)
        width = weight.element_size() * 2 * config.dim * config.layers
        if batch * room * width > config.memory:
            return (lambda: None), batch * room * width
        state = filled(net.init_state(batch, limit=room), TOKENS * context)
        return (lambda: net(step, again(state))), state.nbytes
    state = net.init_state(batch)
    with torch.no_grad():
        for begin in range(0, context, 100):
            _, state = net(inputs(min(100, context - begin)), state)
    return (lambda: net(step, state)), state.nbytes


def _ms(results: Results, arm: str, context: int, batch: int) -> Values:
    return results.by_seed("ms", part="latency", arm=arm, context=context, batch=batch)


def _ratio(results: Results, first: tuple[str, int], second: tuple[str, int], batch: int) -> Values:
    """Time of one arm after a context by that of another."""
    return Values.of(lambda a, b: a / b, *(_ms(results, arm, context, batch) for arm, context in (first, second)))


def _flat(results: Results) -> Evidence:
    config: LatencyConfig = results.config.latency
    ends = [("xlstm10", config.contexts[place]) for place in (-1, 0)]
    return within(_ratio(results, ends[0], ends[1], config.batches[0]), 0.9, 1.1, "longest / shortest context")


def _grows(results: Results) -> Evidence:
    config: LatencyConfig = results.config.latency
    far, near = config.contexts[-1], config.contexts[-1] // 16
    return mean_of(
        _ratio(results, ("cache", far), ("cache", near), config.batches[0]), threshold=4.0, name=f"{far} / {near}"
    )


def _faster(results: Results) -> Evidence:
    config: LatencyConfig = results.config.latency
    far = config.contexts[-1]
    return mean_of(
        _ratio(results, ("cache", far), ("xlstm10", far), config.batches[0]), threshold=2.0, name="transformer / xLSTM"
    )


def _slower(results: Results) -> Evidence:
    config: LatencyConfig = results.config.latency
    values = _ratio(results, ("cache", 50), ("xlstm10", 50), config.batches[0])
    return mean_of(values, threshold=1.0, alternative="less", name="transformer / xLSTM at 50 timesteps")


def _crossing(results: Results) -> Evidence:
    """Where the lines cross at the two numbers of environments, on a log scale."""
    config: LatencyConfig = results.config.latency
    few, many = (crossovers(results, batch) for batch in (config.batches[0], config.batches[-1]))
    values = Values.of(lambda a, b: a / b, many, few)
    return mean_of(values, threshold=1.0, alternative="less", name="crossover of many environments / of one")


def _constant(results: Results) -> Evidence:
    """Bytes of xLSTM after the longest context by those after the shortest one."""
    config: LatencyConfig = results.config.latency
    sizes = (
        results.by_seed("bytes", part="latency", arm="xlstm10", context=context, batch=config.batches[0])
        for context in (config.contexts[-1], config.contexts[0])
    )
    ratios = Values.of(lambda a, b: a / b, *sizes)
    if not ratios:
        return unusable(ratios.missing or "nothing was counted")
    ratio = max(ratios.values(), key=lambda value: abs(value - 1))
    return exact(holds=ratio == 1.0, effect=ratio, n=len(ratios), test="counted bytes", failed=ratios.failed)


def crossovers(results: Results, batch: int) -> Values:
    """Timesteps from which on xLSTM[1:0] is faster than the transformer that keeps keys and values, by seed.

    Between contexts on a log-log line; a seed at which one of them is faster everywhere has the end of the range.
    """
    contexts: tuple[int, ...] = results.config.latency.contexts
    by_context = {
        context: values
        for context in contexts
        if (values := _ratio(results, ("cache", context), ("xlstm10", context), batch))
    }
    if not by_context:
        return _ms(results, "xlstm10", contexts[0], batch)
    places = list(by_context)
    return Values.of(lambda *ratios: _crossover(places, ratios), *by_context.values())


def _crossover(contexts: list[int], ratios: tuple[float, ...]) -> float:
    slower = [place for place, ratio in enumerate(ratios) if ratio < 1]
    if not slower:
        return float(contexts[0])
    if slower[-1] == len(ratios) - 1:
        return float(contexts[-1])
    (near, low), (far, high) = ((contexts[place], ratios[place]) for place in (slower[-1], slower[-1] + 1))
    share = -math.log(low) / (math.log(high) - math.log(low))
    return float(near * (far / near) ** share)


CLAIMS = (
    Claim(
        "latency-flat",
        "A step of xLSTM[1:0] takes as long after the longest context (12,800 timesteps; on a GPU 25,600) as after 10 "
        "(ratio from 0.9 to 1.1).",
        _flat,
        paper="constant in the length of the context (abstract)",
        family="latency",
        headline=True,
        plain="a step of a recurrent policy takes as long after a long episode as after a short one",
        figure="latency-one",
        scale="laptop",
    ),
    Claim(
        "latency-grows",
        "A step of a transformer with the same number of weights, which keeps keys and values, takes more than 4 times "
        "as long after the longest context as after a sixteenth of it.",
        _grows,
        paper=f"linear in the length of the context ({SECOND_HAND})",
        family="latency",
        scale="laptop",
    ),
    Claim(
        "latency-faster",
        "After the longest context a transformer's step takes more than twice as long as a step of xLSTM[1:0].",
        _faster,
        paper=f"about 10 times at 25,600 timesteps, 206M, one environment, A100 ({SECOND_HAND})",
        family="latency",
        headline=True,
        plain="a transformer's step takes more than twice as long after a long episode",
        figure="latency-one",
        scale="laptop",
    ),
    Claim(
        "latency-short",
        "After 50 timesteps it takes less time than a step of xLSTM[1:0].",
        _slower,
        paper=f"comparable there, break-even about 800 timesteps at 206M ({SECOND_HAND})",
        family="latency",
        scale="laptop",
    ),
    Claim(
        "latency-batch",
        "With many environments side by side xLSTM[1:0] overtakes it after fewer timesteps than with one.",
        _crossing,
        paper=OURS,
        family="latency",
        scale="laptop",
    ),
    Claim(
        "latency-bytes",
        "What xLSTM[1:0] keeps has as many bytes after the longest context as after 10 timesteps.",
        _constant,
        paper="constant (abstract)",
        family="exact",
    ),
)


def draw_latency(batch: int, results: Results, axes: Axes) -> list[Record]:
    """Time of a step by the timesteps before it, and where xLSTM begins to be faster.

    Arguments:
        batch: place of the number of environments among those that were timed.
        results: of the study.
        axes: to draw on.
    """
    config: LatencyConfig = results.config.latency
    count = config.batches[batch]
    rows: list[Record] = []
    for place, (arm, label) in enumerate(ARMS.items()):
        values = {context: list(_ms(results, arm, context, count).values()) for context in config.contexts}
        style: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.6, "color": f"C{place}"}
        points = draw_over_seeds(axes, values, dots=True, label=label, **style)
        for context, mean, low, high, seeds in points:
            sizes = results.by_seed("bytes", part="latency", arm=arm, context=context, batch=count)
            rows.append(
                {
                    "arm": arm,
                    "environments": count,
                    "context": context,
                    "ms": mean,
                    "low": low,
                    "high": high,
                    "bytes kept": next(iter(sizes.values())),
                    "seeds": seeds,
                }
            )
    if rows:
        crossing = crossovers(results, count)
        middle = math.exp(sum(map(math.log, crossing.values())) / len(crossing)) if crossing else math.nan
        if config.contexts[0] < middle < config.contexts[-1]:
            label = f"xLSTM[1:0] faster from {middle:.0f} timesteps on"
            axes.axvline(middle, color=GREY, linewidth=0.8, linestyle="--", label=label)
        axes.set_yscale("log")
    size_axis(axes, config.contexts if rows else (), "timesteps before")
    axes.set_ylabel("milliseconds a step")
    legend(axes)
    return rows


part = Part(
    "latency",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "latency-one",
            "Time of a step of control with one environment, by the timesteps before it. Lines are means over "
            "repetitions, dots repetitions.",
            partial(draw_latency, 0),
        ),
        Figure(
            "latency-many",
            "The same with many environments side by side (16; on a GPU 128). What had no room is left out.",
            partial(draw_latency, -1),
        ),
    ),
)
