"""Makes the report: one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.lab.results import Results
from holdfast.lab.study import Study
from holdfast.lab.verdict import Verdict


@dataclass(frozen=True)
class Section:
    """One study in the report.

    Arguments:
        study: the study.
        scale: the scale it was run at.
        config: its configuration.
        results: what its trials measured, failures included.
        verdicts: one for each claim.
        environments: the distinct machines and versions it ran on.
        command: the command line that reproduces it.
    """

    study: Study[Any]
    scale: str
    config: Any
    results: Results
    verdicts: Sequence[Verdict]
    environments: Sequence[Mapping[str, Any]]
    command: str
