"""Requests through a client object of the caller's, such as `openai.OpenAI()`."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.llm.address import Secrets
from holdfast.llm.background import in_thread
from holdfast.llm.errors import EndpointError
from holdfast.llm.transport import Reply


class ClientTransport:
    """Requests through an object that has `chat.completions.create`, as the clients of OpenAI and of others do.

    Arguments:
        client: the object; its `create` may be a coroutine function. Its attempts are turned off where it has
            `with_options`, for attempts are counted here.
        shown: how errors name it.
        secrets: what errors must not show.
    """

    def __init__(self, client: Any, shown: str, secrets: Secrets) -> None:
        with contextlib.suppress(Exception):
            client = client.with_options(max_retries=0)
        self._create: Callable[..., Any] = client.chat.completions.create
        self._shown, self._secrets = shown, secrets

    async def send(self, body: Mapping[str, Any]) -> Reply:
        try:
            answer = await in_thread(lambda: self._create(**body))
            if inspect.isawaitable(answer):
                answer = await answer
            return Reply(200, json.dumps(_plain(answer), default=_plain))
        except Exception as error:
            return self._refusal(error)

    async def close(self) -> None:
        """The client is the caller's, and stays open."""

    def _refusal(self, error: Exception) -> Reply:
        """What a client raised: a refusal of the server as the reply that it was, anything else as an error."""
        words = self._secrets.hide(f"{type(error).__name__}: {error}")
        status = getattr(error, "status_code", None)
        response = getattr(error, "response", None)
        if isinstance(status, int):
            headers = getattr(response, "headers", None) or {}
            text = getattr(response, "text", None)
            plain = {str(name).lower(): str(value) for name, value in dict(headers).items()}
            return Reply(status, text if isinstance(text, str) and text else words, plain)
        passing = any(word in type(error).__name__ for word in ("Timeout", "Connect", "Connection"))
        raise EndpointError(f"no answer from {self._shown}: {words}", passing) from None


def _plain(answer: Any) -> Any:
    """An answer, or a part of one, as dicts and lists."""
    for name in ("model_dump", "to_dict", "dict"):
        convert = getattr(answer, name, None)
        if callable(convert) and not isinstance(answer, type):
            return convert()
    if isinstance(answer, Mapping):
        return dict(answer)
    return answer if isinstance(answer, str | int | float | list | None) else vars(answer)
