"""What the callback that watches a training adds to it, beside the same training without."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    from holdfast.benches.watch.trainings import Training


@dataclass(frozen=True)
class Options:
    """A small transformer in the Trainer of Hugging Face and a small network in Lightning, watched and not.

    All run on one thread of a CPU; its time counts.
    """

    every: tuple[int, ...] = (10, 100)
    """The callback measures at every step of such a number."""
    batch: int = 32
    """Rows of a batch; 16 are measured."""
    width: int = 64
    """Of the transformer; the other network has a quarter as many channels."""
    rounds: int = 15
    """Timed rounds at most."""
    budget_s: float = 120.0
    """Seconds for each trainer after which no further round begins, once there are three."""


TOY = Options(every=(1, 2), batch=2, width=16, rounds=1)

AIM = 0.05
"""What the callback may take of a training with its default settings."""

WITHOUT = "without"


def run(options: Options, tell: Tell) -> Report:
    """Time trainings of as many steps as the largest number, all from the same weights, in turn.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; the time of a training is that from the beginning of its first step to the end of its last one. A
        training that ends with other weights than the one without a callback is a failure.

    Errors:
        ArgumentError: a number is not positive, or no step is asked for.
    """
    import torch

    from holdfast.benches.harness.timing import Arm, interleaved
    from holdfast.benches.watch.trainings import huggingface, lightning
    from holdfast.errors import ArgumentError, count_of

    for name in ("batch", "width", "rounds"):
        count_of(name, getattr(options, name), 4 if name == "width" else 1)
    if not options.every:
        raise ArgumentError("every", "one number or more", "none")
    steps = max(count_of("every", every, 1) for every in options.every)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[Row] = []
    failures: list[str] = []
    try:
        for subject, train in (("Trainer", huggingface), ("Lightning", lightning)):
            made: dict[str, list[Training]] = {}

            def arm(every: int | None, name: str) -> Arm:
                def call() -> None:
                    made.setdefault(name, []).append(  # noqa: B023
                        train(steps, every, batch=options.batch, width=options.width)  # noqa: B023
                    )

                return Arm(call)

            arms = {WITHOUT: arm(None, WITHOUT)}
            arms |= {f"every {every}": arm(every, f"every {every}") for every in options.every}
            interleaved(arms, _called, rounds=options.rounds, warmup=1, budget_s=options.budget_s, shuffled=True)
            for row in rows_of(subject, steps, {name: trainings[1:] for name, trainings in made.items()}):
                rows.append(row)
                tell(row)
            reference = made[WITHOUT][0].weights
            failures += [
                f"{subject}, {name}: the training ends with other weights"
                for name, trainings in made.items()
                if not all(training.weights == reference for training in trainings)
            ]
    finally:
        torch.set_num_threads(threads)
    words, number = summary(rows, options)
    return Report(asdict(options) | {"steps": steps}, tuple(rows), words, number, tuple(failures))


def _called(call: Callable[[], object]) -> float:
    """A training tells its time itself."""
    call()
    return 0.0


def rows_of(subject: str, steps: int, trainings: Mapping[str, Sequence[Training]]) -> list[Row]:
    """A row for each arm, with ratios taken within a round."""
    from holdfast.benches.harness.timing import ratio

    times = {name: [training.ms for training in of_arm] for name, of_arm in trainings.items()}
    rows: list[Row] = []
    for name, of_arm in trainings.items():
        to_without = ratio(times[name], times[WITHOUT])
        told = [cost for training in of_arm for cost in training.told]
        rows.append(
            {
                "subject": subject,
                "arm": name,
                "ms_per_step": statistics.median(times[name]) / steps,
                "to_without": to_without.median,
                "low": to_without.low,
                "high": to_without.high,
                "told": statistics.median(told) if told else None,
                "rounds": len(of_arm),
            }
        )
    return rows


def summary(rows: Sequence[Row], options: Options) -> tuple[str, float | None]:
    """The result in a phrase, and what the callback takes at the largest number, where it takes most."""
    words, most = [], None
    for every in options.every:
        costs = {row["subject"]: row["to_without"] - 1 for row in rows if row["arm"] == f"every {every}"}
        worst = max(costs.values())
        judged = f" (aim {AIM:.0%}{', missed' if worst > AIM else ''})" if every == max(options.every) else ""
        listed = ", ".join(f"{cost:.1%} in {subject}" for subject, cost in costs.items())
        words.append(f"every {every} steps {listed}{judged}")
        most = 1 + worst if every == max(options.every) else most
    return "; ".join(words), most
