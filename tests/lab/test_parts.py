"""A study of several parts, from its declaration to its verdicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ArgumentError
from holdfast.lab import Claim, Config, Figure, Outcome, Part, Record, Results, Status, Study, Trial, exact, unusable
from holdfast.lab.engines import LocalEngine
from holdfast.lab.locate import find
from holdfast.lab.run import Job, forecast, run
from holdfast.lab.store import Store
from holdfast.lab.trial import as_outcome


def trials_of_growth(config: Config) -> list[Trial[Config]]:
    return [Trial(seed, config, {"arm": arm}) for seed in config.seed_range for arm in ("old", "new")]


def run_growth(trial: Trial[Config]) -> Record:
    return {"size": 2 * trial.seeds[0]}


def trials_of_decay(config: Config) -> list[Trial[Config]]:
    return [Trial(config.first_seed, config)]


def run_decay(trial: Trial[Config]) -> Record:
    return {"size": -1}


def both_parts_are_seen(results: Results) -> Any:
    sizes = {part: [row["size"] for row in results.where(part=part)] for part in results.levels("part")}
    return exact(holds=sizes == {"decay": [-1], "growth": [0, 0, 2, 2]}, effect=0.0, n=1, test="sizes")


def nothing(results: Results) -> Any:
    return unusable("no")


def claims(count: int, **options: Any) -> list[Claim]:
    return [Claim(f"claim-{i}", "text", nothing, **options) for i in range(count)]


GROWTH = Part("growth", trials_of_growth, run_growth, claims=[Claim("both", "Both run.", both_parts_are_seen)])
DECAY = Part("decay", trials_of_decay, run_decay, figures=[Figure("sizes", "Sizes.", lambda results, axes: [])])
SCALES = {"quick": Config(seeds=2), "gpu": Config(seeds=3)}


def study(**changes: Any) -> Study[Config]:
    return Study("toy", "?", SCALES, **{"parts": [GROWTH, DECAY], **changes})


def test_each_trial_is_computed_by_its_part_and_bears_its_name(tmp_path: Path) -> None:
    [result] = run([Job.of(study(), "quick")], Store(tmp_path), LocalEngine(2))
    [verdict] = result.verdicts
    assert verdict.status is Status.SUPPORTED
    assert [record["part"] for record in result.results.records] == ["growth"] * 4 + ["decay"]
    assert result.computed == 5
    [again] = run([Job.of(study(), "quick")], Store(tmp_path), LocalEngine(1))
    assert again.computed == 0


def test_the_part_is_in_the_identity_of_a_trial(tmp_path: Path) -> None:
    renamed = study(parts=[GROWTH, replace(DECAY, name="rot")])
    run([Job.of(study(), "quick")], Store(tmp_path), LocalEngine(1))
    [result] = run([Job.of(renamed, "quick")], Store(tmp_path), LocalEngine(1))
    assert result.computed == 1


def test_a_study_gathers_what_its_parts_have() -> None:
    assert [claim.name for claim in study().claims] == ["both"]
    assert [figure.name for figure in study().figures] == ["sizes"]
    assert [trial.labels["part"] for trial in study().trials(SCALES["quick"])] == ["growth"] * 4 + ["decay"]
    assert [study().run(trial)["size"] for trial in study().trials(Config(seeds=1))] == [0, 0, -1]


def test_the_short_form_is_one_part() -> None:
    short = Study("toy", "?", SCALES, trials_of_decay, run_decay, claims(1))
    assert short == Study("toy", "?", SCALES, parts=[Part("main", trials_of_decay, run_decay, claims(1))])
    assert replace(short, name="other").parts == short.parts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": []}, r"^Study: expected parts, or trials and run of one part, got neither"),
        ({"trials": trials_of_decay, "run": run_decay}, r"^Study\.parts: expected parts, or trials, .* got both"),
        ({"parts": [DECAY, GROWTH, DECAY]}, r"^Study\.parts: expected unique names, got 'decay' more than once"),
        (
            {"parts": [replace(DECAY, claims=claims(2)), replace(GROWTH, claims=claims(1))]},
            r"^Study\.claims: expected unique names, got 'claim-0' more than once",
        ),
        (
            {"parts": [replace(DECAY, claims=claims(7, headline=True))]},
            r"^Study\.claims: expected at most 6 headline claims, got claim-0, ",
        ),
        (
            {"parts": [replace(DECAY, claims=claims(1, scale="paper"))]},
            r"^scale of claim 'claim-0': expected a scale that the study reaches \(quick, gpu\), got paper",
        ),
    ],
)
def test_malformed_studies(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        study(**changes)


def test_a_label_or_column_of_its_own_for_the_part_is_refused() -> None:
    labelled = replace(GROWTH, trials=lambda config: [Trial(0, config, {"part": "growth"})])
    with pytest.raises(ArgumentError, match=r"^trials of growth: expected labels without 'part', which the lab adds"):
        list(study(parts=[labelled]).trials(SCALES["quick"]))
    with pytest.raises(ArgumentError, match=r"^a record: expected no column 'part', which the lab adds"):
        as_outcome({"size": 1, "part": "growth"})
    with pytest.raises(ArgumentError, match=r"^curve 'loss': expected no column 'part'"):
        as_outcome(Outcome([{"size": 1}], {"loss": [{"part": "growth"}]}))


def test_malformed_parts_and_claims() -> None:
    with pytest.raises(ArgumentError, match=r"^Part\.name: expected lower-case letters.* got Growth"):
        replace(GROWTH, name="Growth")
    with pytest.raises(ArgumentError, match=r"^Claim\.scale: expected one of quick, laptop, gpu, paper, got huge"):
        Claim("a", "text", nothing, scale="huge")


def test_six_headline_claims_are_not_too_many() -> None:
    assert len(study(parts=[replace(DECAY, claims=claims(6, headline=True))]).claims) == 6


@pytest.mark.parametrize(("scale", "judged"), [("quick", False), ("gpu", True)])
def test_a_claim_is_judged_from_its_scale_on(tmp_path: Path, scale: str, judged: bool) -> None:
    """The study has no scale `laptop`: the next larger one is named instead."""
    large = Claim("large", "text", lambda results: exact(holds=True, effect=1.0, n=1, test="x"), scale="laptop")
    [result] = run([Job.of(study(parts=[replace(DECAY, claims=[large])]), scale)], Store(tmp_path), LocalEngine(1))
    [verdict] = result.verdicts
    assert verdict.status is (Status.SUPPORTED if judged else Status.INCONCLUSIVE)
    assert verdict.reason == ("" if judged else "this scale is too small to judge it; scale='gpu' can")
    assert verdict.evidence.needs == ("" if judged else "gpu")


def test_a_configuration_that_workers_cannot_load_is_refused(tmp_path: Path) -> None:
    """Its class stands in the file that gathers the parts, which no worker loads."""
    (tmp_path / "growth_part.py").write_text(
        "from holdfast.lab import Part, Trial\n"
        "def trials(config): return [Trial(s, config) for s in config.seed_range]\n"
        "def run(trial): return {'v': 1.0}\n"
        "PART = Part('growth', trials, run)\n",
        encoding="utf-8",
    )
    (tmp_path / "gathers.py").write_text(
        "from dataclasses import dataclass\nimport growth_part\nfrom holdfast.lab import Config, Study\n"
        "@dataclass(frozen=True)\nclass Own(Config):\n    pass\n"
        "study = Study('gathers', '?', {'quick': Own()}, parts=[growth_part.PART])\n",
        encoding="utf-8",
    )
    study = find(str(tmp_path / "gathers.py"))
    with pytest.raises(ArgumentError, match="trials of growth: expected a configuration of a class in the part's own"):
        forecast([Job.of(study, "quick")], Store(tmp_path / "s"))
