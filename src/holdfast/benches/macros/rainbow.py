"""Updates of Rainbow beside those of a plain twin, and what the similarity penalty and learning the similarity add."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, cast

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    from holdfast.benches.harness.timing import Arm
    from holdfast.rl.macro_actions import Decisions
    from holdfast.rl.rainbow.agent import Rainbow
    from holdfast.rl.rainbow.replay import Replay

UPDATES = 10
"""Updates that are timed as one: a period of learning the similarity."""
ETA = 0.1


@dataclass(frozen=True)
class Options:
    """Updates of Rainbow on MinAtar's network, for several numbers of actions."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run, on a CPU on one thread: cpu, cuda, or auto, which is cuda where there is one."""
    actions: tuple[int, ...] = (6, 64)
    """Numbers of actions, a table each. The twin has the first."""
    hidden: int = 128
    """Width of the hidden layers."""
    batch: int = 32
    """Transitions of an update."""
    transitions: int = 20_000
    """That are in the replay, which has room for 100,000."""
    rounds: int = 20
    """Timed rounds at most, of ten updates an arm."""
    budget: float = 60.0
    """Seconds after which no further round of a number of actions begins, once there are three."""


TOY = Options(actions=(3,), hidden=8, batch=4, transitions=200, rounds=1)

AIMS = {"twin": (1.4, "least"), "penalty": (1.08, "most"), "meta every 10": (1.2, "most")}
"""Of the first number of actions: how many times as fast as the twin, and how many times the time of the base agent."""
AIMS_OF_JVP = {6: 1.2, 64: 1.05}
"""How many times as fast forward mode is to be as two backward passes, by number of actions."""
TWINS = {
    "twin": (False, False, False),
    "twin, vectorised loops": (True, False, False),
    "twin, factorised noise": (False, True, False),
    "twin, fused Adam": (False, False, True),
}
"""Arms, and whether each has loops, noise and Adam as ours has them."""


def run(options: Options, tell: Tell) -> Report:
    """Time all arms in turn, ten updates each.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; milliseconds of an update, on a CPU of the processor.

    Errors:
        ArgumentError: a size is not positive, or there is no such device.
    """
    import torch

    from holdfast.benches.harness.timing import interleaved, on_gpu
    from holdfast.benches.rat.measure import processor_time
    from holdfast.benches.sharpness.arms import device_of
    from holdfast.errors import count_of

    device = device_of(options.device)
    options = replace(options, device="cuda" if device == "cuda" else "cpu")
    for name in ("hidden", "batch", "transitions", "rounds"):
        count_of(name, getattr(options, name), 1)
    for number in options.actions:
        count_of("actions", number, 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[Row] = []
    try:
        for number in options.actions:
            times = interleaved(
                arms_of(options, number, twins=number == options.actions[0]),
                on_gpu if device == "cuda" else processor_time,
                rounds=options.rounds,
                budget_s=options.budget,
                warmup=1,
                shuffled=True,
            )
            for row in rows_of(times, number):
                tell(row)
                rows.append(row)
    finally:
        torch.set_num_threads(threads)
    words, ratio = summary(rows, aims=options.hidden == Options.hidden and device == "cpu")
    return Report(asdict(options), tuple(rows), words, ratio)


def arms_of(options: Options, number: int, *, twins: bool) -> dict[str, Arm]:
    """The arms for a number of actions, all on one replay.

    Arguments:
        options: the settings.
        number: of actions.
        twins: whether the twin is one of them.
    """
    from holdfast.benches.harness.timing import Arm
    from holdfast.benches.macros.peers import tianshou_update
    from holdfast.benches.macros.twin import Ours, Twin

    masp: dict[str, dict[str, Any]] = {
        "base": {},
        "penalty": {"eta": ETA},
        "meta every 10": {"eta": ETA, "meta": True, "meta_every": UPDATES},
        "meta, forward mode": {"eta": ETA, "meta": True, "meta_every": 1, "method": "jvp"},
        "meta, two backward passes": {"eta": ETA, "meta": True, "meta_every": 1, "method": "double_backward"},
    }
    agents = {name: agent_of(options, number, settings) for name, settings in masp.items()}
    base = agents["base"]
    filled = replay_of(options, number)

    def updates(update: Callable[[], object]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(UPDATES):
                update()

        return call

    calls = {name: updates(partial(agent.update, filled, 0.5)) for name, agent in agents.items()}
    if twins:
        for name, ours in TWINS.items():
            twin = Twin(base.network, filled, base.settings, Ours(*ours))
            calls[name] = updates(partial(twin.update, 0.5))
        theirs = tianshou_update(base.settings, number, options.transitions) if options.device == "cpu" else None
        if theirs is not None:
            calls["tianshou"] = updates(theirs)
    return {name: Arm(call) for name, call in calls.items()}


def agent_of(options: Options, number: int, masp: Mapping[str, Any]) -> Rainbow:
    """Rainbow on MinAtar's network.

    Arguments:
        options: the settings.
        number: of actions.
        masp: settings of the penalty.
    """
    from holdfast.rl.macros import Macros
    from holdfast.rl.rainbow.agent import Rainbow
    from holdfast.rl.rainbow.settings import MASP, MINATAR

    settings = replace(MINATAR, hidden=options.hidden, batch=options.batch, masp=MASP(**masp))
    return Rainbow((10, 10, 4), Macros(number), settings, device=options.device)


def replay_of(options: Options, number: int) -> Replay:
    """A replay of random boards.

    Arguments:
        options: the settings.
        number: of actions.
    """
    import numpy as np

    from holdfast.rl.rainbow.replay import Replay
    from holdfast.rl.rainbow.settings import MINATAR

    rng = np.random.default_rng(0)
    replay = Replay(max(MINATAR.capacity, options.transitions), 1)
    seen = rng.random((options.transitions + 1, 1, 10, 10, 4)) < 0.1
    for place in range(options.transitions):
        decisions = SimpleNamespace(  # as `Decisions`, whose file needs gymnasium
            made=np.array([True]),
            reward=(rng.random(1) < 0.1).astype(np.float64),
            discount=np.array([0.99]),
            executed=np.array([1]),
            terminated=rng.random(1) < 0.02,
            truncated=np.array([False]),
            observation=seen[place + 1],
        )
        replay.add(seen[place], rng.integers(number, size=1), cast("Decisions", decisions))
    return replay


def rows_of(times: Mapping[str, Sequence[float]], number: int) -> list[Row]:
    """Rows by arm: times of an update, and what they are of those of the base agent in the same round.

    Arguments:
        times: milliseconds of ten updates of each arm by round.
        number: of actions.
    """
    from holdfast.benches.harness.timing import ratio

    rows: list[Row] = []
    for name, taken in times.items():
        to_base = ratio(taken, times["base"])
        row: dict[str, Any] = {"actions": number, "arm": name, "ms": statistics.median(taken) / UPDATES}
        row |= {"to_base": to_base.median, "low": to_base.low, "high": to_base.high}
        if name in TWINS:
            row["twin_to_it"] = ratio(times["twin"], taken).median
        if name == "meta, two backward passes":
            row["to_forward_mode"] = ratio(taken, times["meta, forward mode"]).median
        rows.append({**row, "updates_per_s": 1e3 * UPDATES / statistics.median(taken), "rounds": len(taken)})
    return rows


def summary(rows: Sequence[Row], *, aims: bool) -> tuple[str, float | None]:
    """The result in a phrase, and the time of an update divided by the twin's.

    Arguments:
        rows: all of them.
        aims: whether the setting is the one that aims are set for.
    """
    if not rows:
        return "no time was measured", None
    first = rows[0]["actions"]
    by_arm = {row["arm"]: row for row in rows if row["actions"] == first}
    speed_up, words = by_arm["twin"]["to_base"], []
    words.append(f"{speed_up:.2f} x the updates a second of a plain twin{_judged('twin', speed_up, aims)}")
    shares = [f"{name.partition(', ')[2]} {by_arm[name]['twin_to_it']:.2f} x" for name in TWINS if name != "twin"]
    words.append(f"of which alone: {', '.join(shares)}")
    if "tianshou" in by_arm:
        words.append(f"{by_arm['tianshou']['to_base']:.2f} x those of Tianshou")
    for name in ("penalty", "meta every 10"):
        took = by_arm[name]["to_base"]
        words.append(f"{name} takes {took:.2f} x the time{_judged(name, took, aims)}")
    for row in rows:
        if "to_forward_mode" in row:
            gain, aim = row["to_forward_mode"], AIMS_OF_JVP.get(row["actions"])
            judged = f" (aim {aim:g}{', missed' if gain < aim else ''})" if aims and aim else ""
            words.append(f"forward mode {gain:.2f} x as fast as two backward passes, {row['actions']} actions{judged}")
    return "; ".join(words), 1 / speed_up


def _judged(name: str, value: float, aims: bool) -> str:
    if not aims:
        return ""
    aim, side = AIMS[name]
    missed = value < aim if side == "least" else value > aim
    return f" (aim {aim:g}{', missed' if missed else ''})"
