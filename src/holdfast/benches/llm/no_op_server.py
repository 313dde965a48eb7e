"""A chat server that gives one answer to whatever it is asked, so that what a client costs can be seen.

By itself: `python -m holdfast.benches.llm.no_op_server` prints its port, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

LIKELIEST = 20
"""Tokens that the answer lists, as many as most services list at most."""


def answer() -> bytes:
    """A chat completion of one token with log-probabilities."""
    top = [
        {"token": chr(ord("A") + place), "logprob": -0.1 - place, "bytes": [65 + place]} for place in range(LIKELIEST)
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "A"},
        "finish_reason": "stop",
        "logprobs": {"content": [{**top[0], "top_logprobs": top}]},
    }
    usage = {"prompt_tokens": 90, "completion_tokens": 1, "total_tokens": 91}
    whole = {"id": "no-op", "object": "chat.completion", "created": 0, "model": "no-op", "choices": [choice]}
    return json.dumps({**whole, "usage": usage}).encode()


ANSWER = answer()


async def application(
    scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Read a request, and answer."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


async def serve() -> None:
    """Serve on a free port of this machine until the standard input ends."""
    import uvicorn

    # Asyncio turns Nagle's algorithm off, which holds the second part of an answer back, only if the protocol is named.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1024)
        print(listening.getsockname()[1], flush=True)
        server = uvicorn.Server(uvicorn.Config(application, lifespan="off", log_level="error", access_log=False))
        asyncio.get_running_loop().add_reader(sys.stdin, lambda: setattr(server, "should_exit", True))
        await server.serve(sockets=[listening])


if __name__ == "__main__":
    asyncio.run(serve())
