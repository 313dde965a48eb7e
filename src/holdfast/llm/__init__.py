"""Language models behind an endpoint: requests that are tried again, counted, and kept within a budget. No PyTorch."""

from holdfast.llm.answer_file import AnswerFile
from holdfast.llm.completion import Completion
from holdfast.llm.endpoint import Endpoint, EndpointOptions, Line, Message, Usage
from holdfast.llm.errors import BudgetSpent, EndpointError

__all__ = [
    "AnswerFile",
    "BudgetSpent",
    "Completion",
    "Endpoint",
    "EndpointError",
    "EndpointOptions",
    "Line",
    "Message",
    "Usage",
]
