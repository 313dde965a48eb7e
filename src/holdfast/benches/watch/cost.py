"""What the callback that watches a training adds to it, beside the same training without."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
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
    budget: float = 120.0
    """Seconds for each trainer after which no further round begins, once there are three."""


TOY = Options(every=(1, 2), batch=2, width=16, rounds=1)

AIM = 0.05
"""What the callback may take of a training with its default settings."""


def run(options: Options, tell: Tell) -> Report:
    """Time trainings of as many steps as the largest number, all from the same weights, in turn.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; its ratio is that of the largest number. A training that ends with other weights than the one
        without a callback is a failure.

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
            made: dict[int, list[Training]] = {every: [] for every in (0, *options.every)}

            def call(every: int) -> None:
                made[every].append(train(steps, every or None, batch=options.batch, width=options.width))  # noqa: B023

            interleaved(
                {str(every): Arm(partial(call, every)) for every in made},
                _called,
                rounds=options.rounds,
                warmup=1,
                budget_s=options.budget,
                shuffled=True,
            )
            for row in rows_of(subject, {every: trainings[1:] for every, trainings in made.items()}):
                rows.append(row)
                tell(row)
            reference = made[0][0].weights
            failures += [
                f"{subject}, every {every}: the training ends with other weights"
                for every, trainings in made.items()
                if any(training.weights != reference for training in trainings)
            ]
    finally:
        torch.set_num_threads(threads)
    words, number = summary(rows, options)
    return Report(asdict(options) | {"steps": steps}, tuple(rows), words, number, tuple(failures))


def _called(call: Callable[[], object]) -> float:
    """A training tells its time itself."""
    call()
    return 0.0


def rows_of(subject: str, trainings: Mapping[int, Sequence[Training]]) -> list[Row]:
    """A row for each arm, with ratios taken within a round.

    Arguments:
        subject: the trainer.
        trainings: of each arm by its number, 0 without the callback.
    """
    from holdfast.benches.harness.timing import ratio

    typical = {every: [step_ms(training.ms, every) for training in made] for every, made in trainings.items()}
    totals = {every: [sum(training.ms) for training in made] for every, made in trainings.items()}
    rows: list[Row] = []
    for every, made in trainings.items():
        to_without = ratio(typical[every], typical[0])
        told = [cost for training in made for cost in training.told]
        rows.append(
            {
                "subject": subject,
                "arm": f"every {every}" if every else "without",
                "ms_per_step": statistics.median(typical[every]),
                "to_without": to_without.median,
                "low": to_without.low,
                "high": to_without.high,
                "of_totals": ratio(totals[every], totals[0]).median,
                "told": statistics.median(told) if told else None,
                "rounds": len(made),
            }
        )
    return rows


def step_ms(times: Sequence[float], every: int) -> float:
    """What a step takes on average, where those that are measured at, and the others, each take their median.

    A sum would be that of what else the machine did.

    Arguments:
        times: of all steps from the first one on.
        every: the number of which the steps are that are measured at; 0: none is.
    """
    if not every:
        return statistics.median(times)
    measured = times[every - 1 :: every]
    others = [ms for place, ms in enumerate(times, 1) if place % every]
    share = 1 / every
    return share * statistics.median(measured) + ((1 - share) * statistics.median(others) if others else 0.0)


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
