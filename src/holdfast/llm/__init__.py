"""Language models behind an endpoint: requests that are tried again, counted, and kept within a budget. No PyTorch."""

from holdfast.llm.answer_file import AnswerFile
from holdfast.llm.async_endpoint import AsyncEndpoint
from holdfast.llm.completion import Completion, TokenLogprobs
from holdfast.llm.endpoint import Endpoint, Line
from holdfast.llm.errors import BudgetSpent, EndpointError
from holdfast.llm.settings import EndpointOptions, EndpointSettings, Message
from holdfast.llm.usage import Usage

__all__ = [
    "AnswerFile",
    "AsyncEndpoint",
    "BudgetSpent",
    "Completion",
    "Endpoint",
    "EndpointError",
    "EndpointOptions",
    "EndpointSettings",
    "Line",
    "Message",
    "TokenLogprobs",
    "Usage",
]
