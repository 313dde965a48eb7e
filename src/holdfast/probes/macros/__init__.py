"""Whether macro-actions overload a learner: how many different actions its logged Q values know."""

from holdfast.probes.macros.groups import Choice, choose_groups
from holdfast.probes.macros.logged import LoggedValues, ask_function, logged_values, read_csv, read_npz
from holdfast.probes.macros.probe import MacrosSettings, probe_macros, similarity_of
from holdfast.probes.macros.report import ActionGroup, Coverage, MacrosReport, Rule

__all__ = [
    "ActionGroup",
    "Choice",
    "Coverage",
    "LoggedValues",
    "MacrosReport",
    "MacrosSettings",
    "Rule",
    "ask_function",
    "choose_groups",
    "logged_values",
    "probe_macros",
    "read_csv",
    "read_npz",
    "similarity_of",
]
