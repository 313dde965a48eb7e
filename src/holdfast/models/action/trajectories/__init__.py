"""Trajectories that policies are trained on: checked, read and written, reported on, and drawn in batches."""

from holdfast.models.action.trajectories.episode_files import read_episode_files, write_episode_files
from holdfast.models.action.trajectories.lerobot import read_lerobot, write_lerobot
from holdfast.models.action.trajectories.minari_dataset import read_minari, write_minari
from holdfast.models.action.trajectories.place import read_trajectories
from holdfast.models.action.trajectories.report import DataReport, DomainReport, report_on
from holdfast.models.action.trajectories.sampling import Sampling, TrajectorySource
from holdfast.models.action.trajectories.trajectory import Trajectories, Trajectory

__all__ = [
    "DataReport",
    "DomainReport",
    "Sampling",
    "Trajectories",
    "Trajectory",
    "TrajectorySource",
    "read_episode_files",
    "read_lerobot",
    "read_minari",
    "read_trajectories",
    "report_on",
    "write_episode_files",
    "write_lerobot",
    "write_minari",
]
