"""Engines compute trials somewhere else: in processes of this machine, or on a Ray cluster."""

from holdfast.lab.engines.engine import Engine, EngineError, Event, Failed, Finished, Progress, Task
from holdfast.lab.engines.local import LocalEngine
from holdfast.lab.engines.ray import RayEngine

__all__ = [
    "Engine",
    "EngineError",
    "Event",
    "Failed",
    "Finished",
    "LocalEngine",
    "Progress",
    "RayEngine",
    "Task",
]
