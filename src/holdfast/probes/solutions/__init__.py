"""Which solution an optimiser has found: its fingerprint, what it keeps of earlier tasks, and how two compare."""

from holdfast.probes.solutions.comparison import SolutionComparison, compare_solutions, read_fingerprints
from holdfast.probes.solutions.continual import (
    Arm,
    ContinualEvaluation,
    ContinualRun,
    ContinualTask,
    sweeps,
    train_paired,
)
from holdfast.probes.solutions.curvature import Sharpness, largest_eigenvalue, sharpness
from holdfast.probes.solutions.direction import DirectionSwap
from holdfast.probes.solutions.metrics import (
    class_cosines,
    class_means,
    column_drift,
    delta_participation,
    hoyer,
    mean_off_diagonal,
    nc0,
    near_zero,
    participation_ratio,
    ridge_probe,
    treves_rolls,
    unit_overlap,
)
from holdfast.probes.solutions.probe import SolutionSettings, probe_solution
from holdfast.probes.solutions.pruning import Kept, pruning_curve
from holdfast.probes.solutions.report import Fingerprint
from holdfast.probes.solutions.retention import (
    PairedDifference,
    RateResult,
    Retention,
    compare_matched,
    compare_runs,
    matched_retention,
    paired_difference,
    retention,
)

__all__ = [
    "Arm",
    "ContinualEvaluation",
    "ContinualRun",
    "ContinualTask",
    "DirectionSwap",
    "Fingerprint",
    "Kept",
    "PairedDifference",
    "RateResult",
    "Retention",
    "Sharpness",
    "SolutionComparison",
    "SolutionSettings",
    "class_cosines",
    "class_means",
    "column_drift",
    "compare_matched",
    "compare_runs",
    "compare_solutions",
    "delta_participation",
    "hoyer",
    "largest_eigenvalue",
    "matched_retention",
    "mean_off_diagonal",
    "nc0",
    "near_zero",
    "paired_difference",
    "participation_ratio",
    "probe_solution",
    "pruning_curve",
    "read_fingerprints",
    "retention",
    "ridge_probe",
    "sharpness",
    "sweeps",
    "train_paired",
    "treves_rolls",
    "unit_overlap",
]
