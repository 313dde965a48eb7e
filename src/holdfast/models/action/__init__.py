"""Policies that are trained offline on trajectories of many domains, and act at a fixed cost per step."""

from holdfast.models.action.batch import Batch, BatchSource
from holdfast.models.action.checkpoint import load_model, save_model
from holdfast.models.action.config import ActionConfig, published_config
from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.domain import Continuous, Discrete, Domain, Image, Vector
from holdfast.models.action.mamba import MambaConfig
from holdfast.models.action.model import ActionModel
from holdfast.models.action.tensor_file import CheckpointError

__all__ = [
    "ActionConfig",
    "ActionModel",
    "Batch",
    "BatchSource",
    "CheckpointError",
    "Continuous",
    "Discrete",
    "Domain",
    "Image",
    "MambaConfig",
    "Vector",
    "Vocabulary",
    "load_model",
    "published_config",
    "save_model",
]
