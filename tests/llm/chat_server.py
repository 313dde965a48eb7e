"""A local server that speaks the OpenAI chat protocol and sorts what it is shown, with the mistakes that models make.

It reads nothing but the request, as a real one would: the items are found in the prompt, and the answer is a text. What
goes wrong is drawn from the seed and the request, and not from the time or the order of requests. By itself:

    python tests/llm/chat_server.py --port 8077
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-stub-1234567890"


@dataclass(frozen=True)
class Reply:
    """One HTTP response.

    Arguments:
        content: text of the model's message; ignored where `body` is given.
        status: of HTTP.
        headers: beside the usual ones.
        body: the whole body, for a server that breaks the protocol; an empty one hangs up without a word.
        finish_reason: `"length"`: the answer was cut off.
        usage: whether tokens are counted.
        delay_s: time that the answer takes.
    """

    content: str | list[dict[str, Any]] | None = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    finish_reason: str = "stop"
    usage: bool = True
    delay_s: float = 0.0


@dataclass(frozen=True)
class Faults:
    """How often requests go wrong, and answers are malformed: probabilities, each of a request.

    Every fault strikes the first request of a kind and spares its repetition, except as long as `stubborn` times.
    """

    busy: float = 0.0
    broken: float = 0.0
    garbled: float = 0.0
    dropped: float = 0.0
    prose: float = 0.0
    fenced: float = 0.0
    missing: float = 0.0
    repeated: float = 0.0
    outside: float = 0.0
    truncated: float = 0.0
    stubborn: int = 1


ALL_FAULTS = Faults(
    busy=0.05,
    broken=0.03,
    garbled=0.02,
    dropped=0.02,
    prose=0.15,
    fenced=0.15,
    missing=0.03,
    repeated=0.03,
    outside=0.03,
    truncated=0.03,
)


class ChatServer:
    """The server, on a free port of this machine, in a thread; use it as a context.

    Arguments:
        seed: of all that goes wrong.
        wrong: chance that the order of a pair is wrong. Once wrong, it is so in every answer.
        compares: windows are sorted by a sort that believes each comparison; otherwise by how many of the others each
            item beats, so that a wrong pair does little harm in a large window.
        faults: what else goes wrong.
        script: replies that are given first, in this order, whatever is asked; or a function from the body of a
            request to a reply.
        delay_s: time that each answer takes.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        wrong: float = 0.0,
        compares: bool = False,
        faults: Faults | None = None,
        script: list[Reply] | Callable[[dict[str, Any]], Reply] | None = None,
        delay_s: float = 0.0,
        port: int = 0,
    ) -> None:
        self.seed, self.wrong, self.compares, self.faults, self.delay_s = seed, wrong, compares, faults, delay_s
        self.script = list(script) if isinstance(script, list) else script
        self.bodies: list[dict[str, Any]] = []
        """Requests, as they came in."""
        self.statuses: list[int] = []
        """What they were answered with; 0 for a connection that was dropped."""
        self.at_once = 0
        """Most requests that were under way together."""
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._now = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def requests(self) -> int:
        return len(self.bodies)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def chance(self, *names: object) -> float:
        """A number between 0 and 1 that depends on the seed and on names alone."""
        digest = hashlib.sha256(json.dumps([self.seed, *names], default=str).encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def before(self, left: Any, right: Any) -> bool:
        """What the model believes of a pair."""
        low, high = sorted((left, right))
        return (left < right) != (self.chance("pair", low, high) < self.wrong)

    def order(self, items: list[Any]) -> list[int]:
        """Places of the items in the order that the model gives them; equal ones stay as they are."""
        places = list(range(len(items)))
        if self.compares:

            def compare(left: int, right: int) -> int:
                if items[left] == items[right]:
                    return 0
                return -1 if self.before(items[left], items[right]) else 1

            return sorted(places, key=functools.cmp_to_key(compare))
        wins = [sum(item != other and self.before(item, other) for other in items) for item in items]
        return sorted(places, key=lambda place: (-wins[place], self.chance("tie", items[place])))

    def reply(self, body: dict[str, Any]) -> Reply:
        """The answer to a request, faults and all."""
        with self._lock:
            self.bodies.append(body)
            if isinstance(self.script, list) and self.script:
                return self.script.pop(0)
            name = json.dumps(body, sort_keys=True)
            self._seen[name] += 1
            times = self._seen[name]
        if callable(self.script):
            return self.script(body)
        if not isinstance(body.get("model"), str) or not body.get("messages"):
            return Reply(status=400, body=b'{"error": {"message": "model and messages are required"}}')
        items = items_of(body)
        if items is None:
            return Reply("I see no items.", delay_s=self.delay_s)
        numbers = [place + 1 for place in self.order(items)]
        if "revers" in body["messages"][0]["content"].split("\n")[0].lower():
            numbers = list(range(len(items), 0, -1))
        faults = self.faults
        # A message that complains about a malformed answer is a request of another name, and is spared as well.
        if faults is None or times > faults.stubborn or len(body["messages"]) > 2 * faults.stubborn:
            return Reply(json.dumps(numbers), delay_s=self.delay_s)
        return self._spoiled(numbers, faults, name)

    def _spoiled(self, numbers: list[int], faults: Faults, name: str) -> Reply:
        def strikes(fault: str) -> bool:
            return self.chance(fault, name) < getattr(faults, fault)

        if strikes("busy"):
            return Reply(status=429, headers={"Retry-After": "0"}, body=b'{"error": {"message": "slow down"}}')
        if strikes("broken"):
            return Reply(status=500, body=b"internal error")
        if strikes("garbled"):
            return Reply(body=b'{"choices": [{"mess')
        if strikes("dropped"):
            return Reply(body=b"")
        victim = int(self.chance("victim", name) * len(numbers))
        text, finish_reason = numbers, "stop"
        if strikes("missing"):
            text = numbers[:victim] + numbers[victim + 1 :]
        elif strikes("repeated"):
            text = [*numbers, numbers[victim]]
        elif strikes("outside"):
            text = [*numbers[:-1], len(numbers) + 1]
        content = json.dumps(text)
        if strikes("truncated"):
            content, finish_reason = content[: max(1, len(content) // 2)], "length"
        if strikes("fenced"):
            content = f"```json\n{content}\n```"
        if strikes("prose"):
            content = f"Sure! I compared [the items] one by one.\n\n{content}\n\nLet me know if you need more."
        return Reply(content, finish_reason=finish_reason, delay_s=self.delay_s)

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer goes out in two writes, the second of which would wait for the first to be acknowledged.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with server._lock:
                    server._now += 1
                    server.at_once = max(server.at_once, server._now)
                try:
                    self._answer(raw)
                finally:
                    with server._lock:
                        server._now -= 1

            def _answer(self, raw: bytes) -> None:
                if self.path != "/v1/chat/completions":
                    reply, body = Reply(status=404, body=b'{"error": {"message": "no such path"}}'), {}
                elif self.headers.get("Authorization") != f"Bearer {KEY}":
                    got = self.headers.get("Authorization", "")
                    message = json.dumps({"error": {"message": f"Incorrect API key provided: {got}"}})
                    reply, body = Reply(status=401, body=message.encode()), {}
                else:
                    body = json.loads(raw)
                    reply = server.reply(body)
                time.sleep(reply.delay_s)
                with server._lock:
                    server.statuses.append(0 if reply.body == b"" else reply.status)
                if reply.body == b"":
                    self.close_connection = True
                    return
                payload = server._payload(body, reply) if reply.body is None else reply.body
                self.send_response(reply.status)
                headers = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **reply.headers}
                for header, value in headers.items():
                    self.send_header(header, value)
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _payload(self, body: dict[str, Any], reply: Reply) -> bytes:
        """A chat completion. A token is about four characters."""
        prompt = sum(len(message["content"]) for message in body["messages"]) // 4 + 3 * len(body["messages"])
        completion = len(json.dumps(reply.content)) // 4 + 1
        answer: dict[str, Any] = {
            "id": "chatcmpl-stub",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": reply.content},
                    "finish_reason": reply.finish_reason,
                }
            ],
        }
        if reply.usage:
            answer["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }
            with self._lock:
                self.prompt_tokens += prompt
                self.completion_tokens += completion
        return json.dumps(answer).encode()


def items_of(body: dict[str, Any]) -> list[Any] | None:
    """The numbered items of a request's first message, read as JSON."""
    found = re.findall(r"^(\d+)\. (.*)$", body["messages"][0]["content"], flags=re.MULTILINE)
    if not found or [int(number) for number, _ in found] != list(range(1, len(found) + 1)):
        return None
    return [json.loads(text) for _, text in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8077)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wrong", type=float, default=0.01)
    parser.add_argument("--faults", action="store_true")
    options = parser.parse_args()
    faults = ALL_FAULTS if options.faults else None
    with ChatServer(seed=options.seed, wrong=options.wrong, faults=faults, port=options.port) as server:
        print(f"{server.base_url}  key {KEY}")
        threading.Event().wait()


if __name__ == "__main__":
    main()
