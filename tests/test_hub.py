"""A name that no folder has is asked of the hub only where there is a network."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from holdfast import hub
from holdfast.errors import ArgumentError
from holdfast.probes.load_model import load_model


@pytest.fixture(autouse=True)
def _unproxied(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    hub._known.cache_clear()
    yield
    hub._known.cache_clear()


def test_without_a_network_no_request_is_made(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def unknown(host: str, *rest: object, **further: object) -> list[object]:
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert hub.offline("some/model") == {"local_files_only": True}
    with pytest.raises(ArgumentError, match=r"^TARGET: expected .* transformers model, got no/such-model"):
        load_model("no/such-model", None, 8)
    assert len(asked) <= 2, "nothing is tried again and again"


def test_with_a_network_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *rest, **further: [])
    assert hub.offline("some/model") == {}


def test_behind_a_proxy_the_proxy_knows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy"})
    assert hub.offline("some/model") == {}
