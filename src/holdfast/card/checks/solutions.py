"""What a network loses where it is pruned, and whether its output says what its features know."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.card.checks.check import Check, picture
from holdfast.card.checks.plasticity import by_matrix
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holdfast.probes.plasticity.run_weights import MatrixChange, RunWeights
    from holdfast.probes.solutions import Fingerprint

NAME = "solutions"
QUESTION = "Does it break when half of its weights are removed, or know more than it says?"
ROWS = 1000
"""Examples, at most."""
PARTS = 10
"""Of the examples, over which what pruning costs and leaves is averaged."""
FEWEST = 100
"""Examples below which nothing is told of it."""
HALF = 0.5
"""Of the weights, that are removed."""
COST = 0.02
"""Accuracy that this may cost."""
HIDDEN = 0.1
"""Accuracy that features may have above the output."""
SURE = 0.95
NAMES = 6
"""Classes, with fewer of which too few orders of their names are there for a test."""
DEALS = 1000
"""Orders of the classes' names that are tried."""

PAGE = "systems/solutions"
PROPAGATE = Remedy(
    "train it with power-propagation, which makes weights that can be removed later",
    """\
from holdfast.optim import apply_masks_, magnitude_masks, power_adamw

optimizer = power_adamw(model, lr=1e-3)  # in the place of your optimiser, for the whole training
# when it is trained:
apply_masks_(model, magnitude_masks(model, 0.1))""",
    PAGE,
)
REFIT = Remedy(
    "train its output layer alone for a few hundred steps, on data of all classes",
    """\
for name, parameter in model.named_parameters():
    parameter.requires_grad_(name.startswith("{head}"))  # the output layer alone""",
    PAGE,
)
MORE = Remedy("give more examples, so that a loss of 2% of accuracy can be told from chance", page=PAGE)


@dataclass(frozen=True)
class Pruned:
    """What pruning costs, by part of the examples.

    Arguments:
        at_half: accuracy lost with half of the weights, of each part.
        left: accuracy that is left, mean over all fractions, of each part.
    """

    at_half: tuple[float, ...]
    left: tuple[float, ...]

    def bounds(self) -> tuple[float, float]:
        """95 % interval of the cost at one half, by Student."""
        from scipy import stats

        error = statistics.stdev(self.at_half) / math.sqrt(len(self.at_half))
        reach = float(stats.t.ppf((1 + SURE) / 2, len(self.at_half) - 1)) * error
        mean = statistics.mean(self.at_half)
        return mean - reach, mean + reach


def unfit(target: Target, settings: CheckSettings) -> str:
    """Networks with data; and checkpoints of one run."""
    if target.kind is Kind.RUN:
        return ""
    if target.kind is not Kind.NETWORK:
        return "it is no network of your own"
    return "" if settings.data is not None else "needs --data, examples with their classes"


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Take the network's fingerprint, and prune it part by part of the examples."""
    checkpoints: Sequence[Path] = target.parts.get("checkpoints", ())
    if settings.data is None or (target.kind is Kind.RUN and "factory" not in target.parts):
        return _by_weights(checkpoints)
    from holdfast.probes.plasticity.files import gather
    from holdfast.probes.solutions import SolutionSettings, probe_solution

    model = copy.deepcopy(target.subject).to(settings.device)
    inputs, targets = gather(settings.data(), ROWS)
    report = probe_solution(
        model,
        (inputs, targets),
        settings=SolutionSettings(examples=ROWS, sharpness=False, seed=settings.seed),
    )
    zeros = _zeros(model)
    commonest, margin = _by_chance(targets)
    rows = report.representation.rows
    certainty = f"{rows} examples"
    pruned: Pruned | None = None
    remedy: Remedy | None = None
    if report.accuracy <= commonest + margin or not _has_learnt(target, model, (inputs, targets), settings.seed):
        outcome = Outcome.NOT_TOLD
        sentence = (
            f"It is not seen to have learnt anything about these examples that it could lose: it is right on "
            f"{report.accuracy:.0%} of them, as an untrained one may be, and always naming the commonest class on "
            f"{commonest:.0%}."
        )
        remedy = Remedy(
            "check it with the weights that it has learnt, and examples of what it was trained for", page=PAGE
        )
    elif rows < FEWEST:
        outcome, remedy = Outcome.NOT_TOLD, MORE
        sentence = f"{rows} examples are too few to tell a loss of {COST:.0%} of accuracy: it takes at least {FEWEST}."
    else:
        pruned = _pruned(model, _some(inputs, targets, settings.seed))
        low, high = pruned.bounds()
        lost = f"{low:.1%} to {high:.1%} of accuracy (95 % interval)"
        certainty += f" in {PARTS} parts; without half of its weights it loses {lost}"
        outcome, sentence, remedy = _answer(model, report, (low, high))
    if zeros >= 0.005:
        sentence += f" {zeros:.0%} of its weights are zero."
    return Finding(
        NAME,
        QUESTION,
        outcome,
        sentence,
        certainty,
        remedy,
        _measures(report, pruned, zeros, settings.seed),
        report.to_dict(),
        picture(report, NAME, "Accuracy with the largest weights alone", "share of the weights that is kept"),
    )


def _answer(model: nn.Module, report: Fingerprint, cost: tuple[float, float]) -> tuple[Outcome, str, Remedy | None]:
    """The worse of both failures first."""
    at_half = next(kept.accuracy for kept in report.kept if kept.fraction == HALF)
    falls = f"accuracy goes from {report.accuracy:.1%} to {at_half:.1%}"
    known, said = report.linear_probe.probe, report.linear_probe.output
    error = math.sqrt((known * (1 - known) + said * (1 - said)) / (report.representation.rows / 2))
    if known - said - HIDDEN > 1.96 * error:
        return (
            Outcome.FAILS,
            f"It knows more than it says: from its last layer {known:.0%} of unseen examples can be told right, but "
            f"its output is right on {said:.0%}.",
            Remedy(REFIT.text, REFIT.code.format(head=_head(model)), PAGE),
        )
    if cost[0] > COST:
        return (
            Outcome.FAILS,
            f"It breaks when half of its weights are removed: {falls}.",
            PROPAGATE,
        )
    if cost[1] <= COST:
        fewer = "" if report.needed >= HALF else f"; even {report.needed:.0%} of them keep it within {COST:.0%}"
        return Outcome.HOLDS, f"Half of its weights can be removed: {falls}{fewer}.", None
    return Outcome.NOT_TOLD, f"Whether half of its weights can be removed is not told: {falls}.", MORE


def _by_chance(targets: Tensor) -> tuple[float, float]:
    """Share of the commonest class, and by how much a guess may be above it."""
    counted = targets[targets >= 0].flatten()
    share = float(counted.bincount().max()) / len(counted)
    rows = min(ROWS, len(counted))
    return share, 2 * math.sqrt(share * (1 - share) / rows)


def _has_learnt(target: Target, model: nn.Module, examples: tuple[Any, Tensor], seed: int) -> bool:
    """Whether it names classes right more often than it would with the names of its outputs dealt out anew.

    A network that has learnt nothing often answers alike to all examples of a class. So it may be right on many of them
    at once, while each of its outputs might as well stand for any other class: an exact test by permutations. Few
    classes have too few of them: then one whose function draws other weights at each call counts as untrained.
    """
    import torch

    from holdfast.probes.plasticity.activations import call
    from holdfast.probes.plasticity.learning_speed import moved, tensor_of
    from holdfast.probes.report import evaluating, random_state_kept
    from holdfast.probes.solutions.continual import rows

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with random_state_kept(), evaluating(model), torch.no_grad():
        output, wanted = rows(tensor_of(call(model, moved(examples[0], device))), examples[1])
        if output.shape[1] < NAMES:
            made = "code" in target.parts and "checkpoints" not in target.parts
            another = target.parts["factory"]().state_dict() if made else {}
            ours = model.state_dict()
            return all(torch.equal(ours[name].cpu(), tensor.cpu()) for name, tensor in another.items())
    guesses, wanted = output.argmax(1).cpu(), wanted.cpu()
    generator = torch.Generator().manual_seed(seed)
    right = (guesses == wanted).sum()
    dealt = [torch.randperm(output.shape[1], generator=generator)[guesses] for _ in range(DEALS)]
    as_good = sum(bool((others == wanted).sum() >= right) for others in dealt)
    return (1 + as_good) / (1 + DEALS) <= 1 - SURE


def _some(inputs: Any, targets: Tensor, seed: int) -> tuple[Any, Tensor]:
    """At most so many examples, in an order that has nothing to do with that of the data."""
    import torch

    from holdfast.probes.plasticity.learning_speed import select

    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))[:ROWS]
    return select(inputs, order), targets[order]


def _pruned(model: nn.Module, examples: tuple[Any, Tensor]) -> Pruned:
    """Accuracy with the largest weights alone, part by part."""
    import torch

    from holdfast.probes.plasticity.learning_speed import moved, select
    from holdfast.probes.solutions.pruning import pruning_curve

    inputs, targets = examples
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    weights, head = _weights(model), f"{_head(model)}.weight"
    at_half, left = [], []
    for places in torch.arange(len(targets)).tensor_split(PARTS):
        part = moved(select(inputs, places), device), targets[places].to(device)
        by_fraction = {kept.fraction: kept.accuracy for kept in pruning_curve(model, *part, weights, head)}
        at_half.append(by_fraction.pop(1.0) - by_fraction[HALF])
        left.append(statistics.mean(by_fraction.values()))
    return Pruned(tuple(at_half), tuple(left))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of layers that are pruned, by name: all but those of embeddings."""
    from torch import nn

    from holdfast.optim.rewarming.layers import layers_of

    return {
        layer.name: layer.parameter
        for layer in layers_of(model)
        if layer.role == "weight" and not isinstance(layer.module, nn.Embedding | nn.EmbeddingBag)
    }


def _head(model: nn.Module) -> str:
    from holdfast.probes.solutions.features import head_of

    head = head_of(model)
    return next((name for name, module in model.named_modules() if module is head), "")


def _zeros(model: nn.Module) -> float:
    """Share of the weights that are exactly zero."""
    weights = _weights(model).values()
    return sum(int((weight == 0).sum()) for weight in weights) / max(1, sum(weight.numel() for weight in weights))


def _measures(report: Fingerprint, pruned: Pruned | None, zeros: float, seed: int) -> tuple[Measure, ...]:
    """A network that is right by chance has nothing to lose: of it only the zeros are a figure."""
    found = [Measure("zero weights", "share of the weights that are exactly zero", zeros)]
    if pruned is not None:
        # What is left, and not what is lost: who is pruned already has paid, and would lose less.
        error = statistics.stdev(pruned.left) / math.sqrt(PARTS)
        found.append(
            Measure(
                "accuracy when pruned",
                "accuracy with 50 to 1 % of the weights kept, mean",
                statistics.mean(pruned.left),
                error,
                PARTS - 1,
                better="higher",
                units=f"parts of {report.provenance.data}, seed {seed}",
                values=pruned.left,
            )
        )
    return tuple(found)


def _by_weights(checkpoints: Sequence[Path]) -> Finding:
    """What ranks alone tell, said as that."""
    from holdfast.probes.plasticity.run_weights import probe_run_weights

    report = probe_run_weights(checkpoints)
    text = "to find out, check again with the function that makes the network, and its data"
    return Finding(
        NAME,
        QUESTION,
        Outcome.NOT_TOLD,
        _of_ranks(report),
        f"the weights of {len(checkpoints)} checkpoints alone; no network was run",
        Remedy(text, "holdfast check FILE.py:make_network --checkpoint LAST --data FILE.py:data", PAGE),
        by_matrix(
            report,
            "rank change",
            "change of the number of directions that weight matrices use, since the first checkpoint (logarithm)",
            _rank_change,
        ),
        report.to_dict(),
    )


def _of_ranks(report: RunWeights) -> str:
    zero = f" {report.zeros[1]:.0%} of the weights are zero." if report.zeros[1] >= 0.005 else ""
    if math.isnan(report.rank_change):
        return f"Not told by weights alone, and its matrices are too large to tell their rank.{zero}"
    return (
        f"Not told by weights alone. From {report.checkpoints[0]} to {report.checkpoints[-1]} the number of directions "
        f"that its weight matrices use (their stable rank) came to {report.rank_change:.2f} times what it was.{zero}"
    )


def _rank_change(change: MatrixChange) -> float:
    return change.rank_change


CHECK = Check(NAME, QUESTION, 5.0, unfit, probe, "it cannot spare half of its weights, or knows more than it says")
