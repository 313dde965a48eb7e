"""A server at an address of this machine."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from holdfast.errors import ArgumentError, require
from holdfast.serving.server import Server

LEAVE_S = 2
"""Seconds that requests under way have to end once the server is told to stop."""

SHORTEST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_token(host: str, token: str, variable: str) -> str:
    """A token that suits an address. It is shown nowhere.

    Arguments:
        host: address to listen at.
        token: what requests must bring; empty: nothing.
        variable: of the environment, which the token comes from.

    Errors:
        ArgumentError: other machines can reach the address, and there is no token, or it cannot be one.
    """
    if not token:
        if not is_loopback(host):
            raise ArgumentError(
                "host", "127.0.0.1 or localhost where requests need no token", f"{host}, and no {variable}"
            )
        return token
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise ArgumentError(variable, f"at least {SHORTEST_TOKEN} ASCII characters without spaces", "another token")
    return token


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens, and its address.

    Arguments:
        host: address to listen at.
        port: port to listen at; 0: a free one.

    Errors:
        ArgumentError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Asyncio turns Nagle's algorithm off, which holds the second part of an answer back, only if the protocol is named.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except socket.gaierror as error:
            raise ArgumentError("host", "an address of this machine", f"{host} ({error.strerror})") from None
        except OverflowError:
            raise ArgumentError("port", "a number up to 65535", port) from None
        except OSError as error:
            raise ArgumentError("port", "one that is free here", f"{port} ({error.strerror})") from None
        listener.listen(1024)
        name = f"[{host}]" if ":" in host else host
        yield listener, f"http://{name}:{listener.getsockname()[1]}"


def serve(server: Server, listener: socket.socket) -> None:
    """Serve until a signal ends it, which is raised again then.

    Errors:
        MissingExtraError: uvicorn is not installed.
    """
    _runner(server).run(sockets=[listener])


@contextmanager
def serving(server: Server, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in a thread for as long as the block lasts; gives the address.

    Arguments:
        server: what is served.
        host: address to listen at.
        port: port to listen at; 0: a free one.

    Errors:
        ArgumentError: the address cannot be used.
        MissingExtraError: uvicorn is not installed.
    """
    with listening(host, port) as (listener, address):
        runner = _runner(server)
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield address
        finally:
            runner.should_exit = True
            thread.join(5 * LEAVE_S)


def _runner(server: Server) -> Any:
    uvicorn = require("uvicorn", "serving")
    config = uvicorn.Config(
        server.app,
        lifespan="on",
        log_level="error",
        access_log=False,
        # A connection outlives its session: to open one again would take longer than a step.
        timeout_keep_alive=int(server.config.ttl_s) + 1,
        timeout_graceful_shutdown=LEAVE_S,
    )
    return uvicorn.Server(config)
