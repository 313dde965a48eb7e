"""A server that sends whatever bytes it is told to, as slowly as it is told to: what no honest endpoint does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def chat(content: Any, *, finish_reason: str = "stop", usage: Any = None, **message: Any) -> bytes:
    """The body of a chat completion."""
    body: dict[str, Any] = {
        "choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason}]
    }
    if usage is not None:
        body["usage"] = usage
    return json.dumps(body).encode()


class HostileServer:
    """The server, in a thread; use it as a context.

    Arguments:
        answer: from the number of a request, its path, headers and body to a status and a body.
        pause_s: pause after each byte of an answer.
    """

    def __init__(
        self, answer: Callable[[int, str, dict[str, str], dict[str, Any]], tuple[int, bytes]], *, pause_s: float = 0.0
    ) -> None:
        self.requests = 0
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    number = server.requests
                    server.requests += 1
                    server.paths.append(self.path)
                    server.headers.append(headers)
                status, body = answer(number, self.path, headers, json.loads(raw))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    if not pause_s:
                        self.wfile.write(body)
                        return
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(pause_s)
                except OSError:  # nobody waits for it
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> HostileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
