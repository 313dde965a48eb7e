"""Other remedies for a loss of plasticity, to compare with: one file a method, each as a part of a torch optimiser."""

from holdfast.optim.baselines.continual_backprop import ContinualBackprop
from holdfast.optim.baselines.grokfast import Grokfast
from holdfast.optim.baselines.hare_tortoise import HareTortoise
from holdfast.optim.baselines.l2_init import L2Init
from holdfast.optim.baselines.moments import reset_moments
from holdfast.optim.baselines.redo import ReDo
from holdfast.optim.baselines.shrink_perturb import shrink_and_perturb_
from holdfast.optim.baselines.spectral import SpectralRegularization

__all__ = [
    "ContinualBackprop",
    "Grokfast",
    "HareTortoise",
    "L2Init",
    "ReDo",
    "SpectralRegularization",
    "reset_moments",
    "shrink_and_perturb_",
]
