"""Who answers prompts: one interface for models in process, models behind an endpoint, and simulated observers.

`holdfast.confidence.responders.huggingface.HuggingFaceResponder` is imported from its file, as it loads PyTorch.
"""

from holdfast.confidence.responders.chat import ChatResponder
from holdfast.confidence.responders.interface import NOT_FINITE, Answer, Ask, Backend, Responder
from holdfast.confidence.responders.sampled import SampledResponder
from holdfast.confidence.responders.simulated import SimulatedResponder, simulated_questions
from holdfast.confidence.responders.systemone import SystemOneResponder

__all__ = [
    "NOT_FINITE",
    "Answer",
    "Ask",
    "Backend",
    "ChatResponder",
    "Responder",
    "SampledResponder",
    "SimulatedResponder",
    "SystemOneResponder",
    "simulated_questions",
]
