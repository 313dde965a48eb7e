"""`holdfast probe`: measure a failure on a model of one's own. One file a probe."""

from __future__ import annotations

import os
from collections.abc import Sequence

from holdfast.cli.parsing import PATIENT, Commands, choose
from holdfast.cli.probes import action, confidence, lists, macros, plasticity, rat, sharpness, solutions

PROBES: Commands = {
    "control-latency": (action.ControlLatencyProbe, action.run_control_latency),
    "copycat": (action.CopycatProbe, action.run_copycat),
    "confidence": (confidence.ConfidenceProbe, confidence.run),
    "lists": (lists.ListsProbe, lists.run),
    "macros": (macros.MacrosProbe, macros.run),
    "plasticity": (plasticity.PlasticityProbe, plasticity.run),
    "rat": (rat.RATProbe, rat.run),
    "sharpness": (sharpness.SharpnessProbe, sharpness.run),
    "solutions": (solutions.SolutionsProbe, solutions.run),
}


TIMED = ("control-latency", "rat")
"""Probes that report times, which are to be those of the user's own programs."""


def probe(words: Sequence[str]) -> int:
    """Carry out `holdfast probe`."""
    if words and words[0] not in TIMED:
        os.environ.setdefault(*PATIENT)
    return choose("probe", "probe", "Measure a failure on your own model. Probes", PROBES, words)
