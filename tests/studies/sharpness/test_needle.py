"""Part `needle`: the table in closed form, and claims on a table made by hand."""

from __future__ import annotations

import pytest
import torch

from holdfast.lab import Outcome, Results, Status, Trial
from holdfast.lab.trial import as_outcome
from holdfast.nn import FitError
from holdfast.studies.sharpness.needle import NeedleConfig, part
from holdfast.studies.sharpness.study import study
from tests.studies.sharpness.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, judged, results_of


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "needle")


def test_a_trial_twice_is_the_same(results: Results) -> None:
    assert_repeats(part, *results.outcomes[0])


NEEDLE = {
    # margin, n: softmax, published, log n, SSMax 0.43
    (5.0, 64): (0.7020, 0.9977, 0.9663, 0.9918),
    (5.0, 256): (0.3679, 0.9985, 0.9886, 0.9983),
    (5.0, 1024): (0.1267, 0.1267, 0.9962, 0.9997),
    (8.0, 4096): (0.4213, 0.9985, None, None),
    (8.0, 16384): (0.1539, 0.1539, None, None),
    (12.0, 131072): (0.5539, 0.5597, None, None),
}


def test_needle_table() -> None:
    results = Results(TOY, [(trial := Trial(0, NeedleConfig()), as_outcome(part.run(trial)))])
    for (margin, n), masses in NEEDLE.items():
        for arm, expected in zip(("plain", "published", "log-n", "ssmax"), masses, strict=True):
            (row,) = results.where(arm=arm, margin=margin, n=n)
            if expected is not None:
                assert row["winner"] == pytest.approx(expected, abs=5.1e-5)
    for row in results.where(arm="plain"):
        logits = torch.zeros(int(row["n"]), dtype=torch.float64)  # type: ignore[arg-type]
        logits[0] = row["margin"]  # type: ignore[call-overload]
        p = logits.softmax(0)
        assert row["winner"] == pytest.approx(p[0].item(), rel=1e-12)
        assert row["entropy"] == pytest.approx(torch.special.entr(p).sum().item(), rel=1e-9)


def needle(mass: dict[tuple[str, int], float]) -> Results:
    rows = [{"arm": arm, "n": n, "margin": 5.0, "winner": value} for (arm, n), value in mass.items()]
    return Results(TOY, [(Trial(0, TOY.needle, {"part": "needle"}), Outcome(rows))])


def test_claims_on_needles() -> None:
    good = {("plain", 1024): 0.1, ("published", 1024): 0.1, ("refit", 1024): 0.95, ("published", 256): 0.995}
    bad = good | {("published", 1024): 0.1 + 1e-9, ("refit", 1024): 0.89, ("published", 256): 0.5}
    for mass, status in ((good, "supported"), (bad, "contradicted")):
        found = judged(study, needle(mass))
        assert {str(found[name].status) for name in ("needle-256", "needle-cliff", "needle-refit")} == {status}


def test_a_refused_fit_is_recorded_and_no_claim_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FitError("bins", "too few")

    monkeypatch.setattr("holdfast.nn.fit_temperature", refuse)
    without = results_of(study, TOY, "needle")
    assert len(without.where(fit="refused")) == 1
    assert not without.where(arm="refit")
    verdicts = judged(study, without)
    assert verdicts["needle-refit"].status is Status.INCONCLUSIVE
    assert "too few" in verdicts["needle-refit"].reason
    assert verdicts["needle-cliff"].status is Status.SUPPORTED


def test_figures(results: Results) -> None:
    assert_drawn(part.figures, results)
