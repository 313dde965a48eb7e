"""Claims of the part `traces`."""

from __future__ import annotations

from collections.abc import Sequence
from operator import sub

from holdfast.lab import Claim, Evidence, Results, paired_difference
from holdfast.lab.results import Values
from holdfast.studies.sharpness.traces.means import beyond_training, tasks_of

LONG = "bubble_sort"
"""The task whose texts are longest: they grow with the cube of the size."""


def beats_plain(results: Results, arm: str = "adaptive") -> Evidence:
    """Is an arm more accurate than plain softmax beyond the sizes trained on?

    Arguments:
        results: with records of this part.
        arm: one of `ARMS`.

    Returns:
        Evidence on the difference in accuracy, paired over seeds. For each seed it is a mean over tasks, and for each
        task over all sizes beyond its training.
    """
    tasks = tasks_of(results)
    return paired_difference(
        beyond_training(results, "accuracy", arm, tasks),
        beyond_training(results, "accuracy", "plain", tasks),
        names=(f"{arm} beyond the training sizes", "plain beyond the training sizes"),
    )


def gains_less_on_long_traces(results: Results, arm: str = "adaptive") -> Evidence:
    """Is what an arm gains over plain softmax beyond the training sizes smaller on bubble sort than elsewhere?

    Arguments:
        results: as for `beats_plain`.
        arm: likewise.

    Returns:
        Evidence on bubble sort's gain in accuracy minus the mean gain on the other tasks, paired over seeds.
    """

    def gain(tasks: Sequence[str]) -> Values:
        treatment, control = (beyond_training(results, "accuracy", name, tasks) for name in (arm, "plain"))
        return Values.of(sub, treatment, control)

    return paired_difference(
        gain([LONG]),
        gain(tasks_of(results, but=LONG)),
        alternative="less",
        names=(f"the gain on {LONG}", "the gain on the other tasks"),
    )


def inactive_on_long_traces(results: Results, arm: str = "adaptive") -> Evidence:
    """Are more attention rows beyond the published law's reach, 5.9445 nats, on bubble sort than elsewhere?

    Arguments:
        results: as for `beats_plain`.
        arm: likewise.

    Returns:
        Evidence on bubble sort's share of such rows beyond the training sizes minus the mean share on the other tasks,
        paired over seeds.
    """
    return paired_difference(
        beyond_training(results, "inactive_share", arm, [LONG]),
        beyond_training(results, "inactive_share", arm, tasks_of(results, but=LONG)),
        names=(f"{arm} on {LONG}", f"{arm} on the other tasks"),
    )


CLAIMS = (
    Claim(
        "traces-adaptive",
        "Beyond the sizes trained on, language models trained with the published law write algorithms out more "
        "accurately than those trained with softmax (difference > 0).",
        beats_plain,
        paper="most of 30 algorithms are better with Gemma 2B on CLRS-Text (figure only)",
        family="language models",
        headline=True,
        plain="adaptive temperature helps language models on inputs longer than those trained on",
        figure="traces",
        scale="gpu",
    ),
    Claim(
        "traces-long",
        "The law gains less on bubble sort, whose traces are long, than on the other tasks.",
        gains_less_on_long_traces,
        paper="bubble sort is a named exception",
        family="language models",
        scale="gpu",
    ),
    Claim(
        "traces-inactive",
        "On bubble sort more attention rows are beyond the law's reach than on the other tasks.",
        inactive_on_long_traces,
        paper="suspected as the reason for the exceptions",
        family="language models",
        scale="gpu",
    ),
)
