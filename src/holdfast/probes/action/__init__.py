"""What a policy costs at each step of control, and whether it is led to copy its last action."""

from holdfast.probes.action.control_latency import probe_control_latency
from holdfast.probes.action.copycat import probe_copycat
from holdfast.probes.action.copycat_report import CopycatReport, Rollouts
from holdfast.probes.action.latency_report import ControlLatencyReport, Crossover, StepTimes

__all__ = [
    "ControlLatencyReport",
    "CopycatReport",
    "Crossover",
    "Rollouts",
    "StepTimes",
    "probe_control_latency",
    "probe_copycat",
]
