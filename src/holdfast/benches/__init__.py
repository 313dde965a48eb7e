"""Speed, memory and accuracy beside a named peer in the same run: one room a system, all of them in one registry.

`holdfast bench` runs one of them; `python -m holdfast.benches` runs all that a device serves, unattended.
"""

from holdfast.benches.harness.report import Report
from holdfast.benches.registry import BENCHES, Bench

__all__ = ["BENCHES", "Bench", "Report"]
