"""Part `parity`: what is asked, what the arms are, and what the claims decide."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.lab import Config, Outcome, Results, Status
from holdfast.lab.trial import as_outcome
from holdfast.lab.verdict import judge
from holdfast.nn import MLSTM, SLSTM
from holdfast.studies.action import parity
from holdfast.studies.action.parity import ParityConfig
from tests.studies.tools import assert_drawn, assert_repeats


@dataclass(frozen=True, kw_only=True)
class ToyConfig(Config):
    """A study with this part alone."""

    parity: ParityConfig = field(default_factory=ParityConfig)

    @property
    def long_range(self) -> range:
        return self.seed_range


TOY = ToyConfig(
    seeds=2,
    first_seed=3,
    parity=ParityConfig(longest=6, lengths=(4, 8), tests=32, dim=8, steps=3, batch=4, curve_every=2),
)


@pytest.fixture(scope="module")
def results() -> Results:
    trials = list(parity.part.labelled_trials(TOY))
    return Results(TOY, [(trial, as_outcome(parity.part.run(trial))) for trial in trials])


def test_what_is_measured(results: Results) -> None:
    rows = results.where(part="parity")
    assert {(row["seed"], row["arm"], row["length"]) for row in rows} == {
        (seed, arm, length) for seed in (3, 4) for arm in parity.ARMS for length in (4, 8)
    }
    trial, outcome = results.outcomes[0]
    assert [row["step"] for row in outcome.curves["parity"]] == [2, 3]
    assert_repeats(parity.part, trial, outcome)
    assert_drawn(parity.part.figures, results)


class Oracle(nn.Module):
    """Instead of blocks: knows the parity, or its opposite."""

    def __init__(self, opposite: int) -> None:
        super().__init__()
        self.opposite = opposite

    def forward(self, bits):
        return nn.functional.one_hot((bits.cumsum(1) + self.opposite) % 2, 2).float(), None


@pytest.mark.parametrize(("opposite", "expected"), [(0, 1.0), (1, 0.0)])
def test_what_is_right(opposite: int, expected: float) -> None:
    net = nn.ModuleDict({"embedding": nn.Identity(), "blocks": Oracle(opposite), "head": nn.Identity()})
    assert parity._accuracy(net, TOY.parity, 0, 9) == expected


def test_lengths_of_training_are_all_that_were_asked_for() -> None:
    lengths = {parity._strings(TOY.parity, 0, step).shape[1] for step in range(100)}
    assert lengths == {3, 4, 5, 6}


@pytest.mark.parametrize(
    ("arm", "kinds"),
    [("slstm", (SLSTM, SLSTM)), ("both", (MLSTM, SLSTM)), ("mlstm", (MLSTM, MLSTM)), ("unmixed", (SLSTM, SLSTM))],
)
def test_arms_have_the_blocks_that_they_are_called_by(arm: str, kinds: tuple[type, ...]) -> None:
    net = parity._network(TOY.parity, arm, 0)
    mixers = [block.mixer for block in net["blocks"].blocks]
    assert tuple(type(mixer) for mixer in mixers) == kinds
    loss = parity._logits(net, torch.tensor([[0, 1, 1]])).square().sum()
    loss.backward()
    for mixer in mixers:
        if isinstance(mixer, SLSTM):
            moves = mixer.recurrent.grad is not None and bool(mixer.recurrent.grad.any())
            assert moves == (arm != "unmixed")


def test_other_arms_are_refused() -> None:
    with pytest.raises(ArgumentError, match="arms: expected some of slstm, both, mlstm, unmixed"):
        ParityConfig(arms=("lstm",))


def test_a_small_network_learns_short_strings() -> None:
    config = ParityConfig(arms=("slstm",), longest=6, lengths=(6,), tests=64, dim=16, steps=200, curve_every=200)
    (trial,) = parity.part.labelled_trials(ToyConfig(seeds=1, parity=config))
    assert as_outcome(parity.part.run(trial)).records[0]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("tracking", "not_tracking", "status"),
    [(0.99, 0.5, Status.SUPPORTED), (0.8, 0.75, Status.CONTRADICTED)],
)
def test_claims_decide(tracking: float, not_tracking: float, status: Status) -> None:
    config = ToyConfig(seeds=3)
    accuracy = {"slstm": tracking, "both": tracking, "mlstm": not_tracking, "unmixed": not_tracking}
    outcomes = []
    for trial in parity.part.labelled_trials(config):
        shift = 0.001 * trial.seeds[0]
        value = accuracy[str(trial.labels["arm"])] + shift
        outcomes.append((trial, Outcome([{"length": n, "accuracy": value} for n in config.parity.lengths])))
    results = Results(config, outcomes)
    verdicts = judge(parity.CLAIMS, [claim.test(results) for claim in parity.CLAIMS])
    assert {verdict.status for verdict in verdicts} == {status}
