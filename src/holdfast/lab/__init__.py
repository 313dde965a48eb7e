"""The lab: runs studies in parallel, stores what they measure, judges their claims and writes the report."""

from holdfast.lab.combined import all_of, within
from holdfast.lab.loading import depends_on
from holdfast.lab.results import Failure, Results
from holdfast.lab.study import Figure, Paper, Part, Study
from holdfast.lab.trial import Config, Outcome, Record, RunResult, Scalar, Trial
from holdfast.lab.verdict import (
    Claim,
    Evidence,
    Status,
    Verdict,
    equivalent,
    exact,
    mean_of,
    paired_difference,
    unusable,
)

__all__ = [
    "Claim",
    "Config",
    "Evidence",
    "Failure",
    "Figure",
    "Outcome",
    "Paper",
    "Part",
    "Record",
    "Results",
    "RunResult",
    "Scalar",
    "Status",
    "Study",
    "Trial",
    "Verdict",
    "all_of",
    "depends_on",
    "equivalent",
    "exact",
    "mean_of",
    "paired_difference",
    "unusable",
    "within",
]
