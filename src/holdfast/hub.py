"""Whether the model hub can be asked: without a network each question to it would take half a minute of retries."""

from __future__ import annotations

import socket
import urllib.request
from functools import cache
from typing import Any
from urllib.parse import urlsplit


def offline(target: str) -> dict[str, Any]:
    """Options of `from_pretrained` for a name: only what is on this machine, where the hub's own name is not known.

    Arguments:
        target: a folder, or an id on the hub.
    """
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname or ""
    return {} if _known(host) else {"local_files_only": True}


@cache
def _known(host: str) -> bool:
    """Whether the host has an address; behind a proxy that is the proxy's to know."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
