"""Study: is the median of noisy data with outliers a better estimate of the centre than the mean?

    holdfast run examples/study.py

or `python examples/study.py`, which does the same without the command line.
"""

from dataclasses import dataclass

import numpy as np

from holdfast.lab import Claim, Config, Figure, Study, Trial, paired_difference


@dataclass(frozen=True, kw_only=True)
class Outliers(Config):
    """Settings; every field is a flag of the command line.

    Arguments:
        samples: numbers in a data set.
        share: share of them that are outliers.
    """

    samples: int = 200
    share: float = 0.05


def trials(config):
    """Two arms for each seed. They share the seed, so they see the same data."""
    return [Trial(seed, config, {"estimate": name}) for seed in config.seed_range for name in ("mean", "median")]


def run(trial):
    """One data set whose centre is zero, one estimate of it."""
    rng = np.random.default_rng(trial.seed)
    data = rng.normal(size=trial.config.samples)
    data[rng.random(trial.config.samples) < trial.config.share] += 20
    estimate = np.median(data) if trial.labels["estimate"] == "median" else np.mean(data)
    return {"error": abs(estimate)}


def smaller_error(results):
    """Paired over seeds: median minus mean, below zero."""
    errors = (results.by_seed("error", estimate=name) for name in ("median", "mean"))
    return paired_difference(*errors, alternative="less")


def draw(results, axes):
    """Errors by seed, one line an estimate."""
    for name in results.levels("estimate"):
        errors = results.by_seed("error", estimate=name)
        axes.plot(list(errors), list(errors.values()), "o-", label=name)
    axes.set(xlabel="seed", ylabel="error")
    axes.legend()
    return results.records


study = Study(
    name="outliers",
    question="Does the median bear outliers better than the mean?",
    scales={"quick": Outliers(seeds=8)},
    trials=trials,
    run=run,
    claims=[Claim("smaller-error", "The median is nearer to the centre than the mean.", smaller_error)],
    figures=[Figure("errors", "Distance from the centre, seed by seed.", draw)],
)

if __name__ == "__main__":
    import tempfile

    from holdfast.lab.engines import LocalEngine
    from holdfast.lab.run import Job
    from holdfast.lab.run import run as run_jobs
    from holdfast.lab.store import Store

    with tempfile.TemporaryDirectory() as folder:
        (finished,) = run_jobs([Job.of(study, "quick")], Store(folder), LocalEngine(workers=2))
    for verdict in finished.verdicts:
        found = verdict.evidence
        print(f"{verdict.claim}: {verdict.status}, {found.effect:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
