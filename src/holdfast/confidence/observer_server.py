"""An observer behind a real HTTP server, to try everything on before an endpoint is paid for.

The observer is a simulated one, or any other responder: a model in process then answers as one behind an endpoint. The
server speaks the chat protocol with log-probabilities and the systemone protocol, sees nothing but the text of a
request, and makes the mistakes of real servers where it is told to. A prompt that hides the earlier answer is put
together anew from question, order, template, accuracy and the adviser's letter; one that differs in a byte is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.confidence.latitude import cities, degrees, latitude_questions
from holdfast.confidence.questions import LETTERS, Question
from holdfast.confidence.responders.interface import Answer, Ask, Responder
from holdfast.confidence.responders.simulated import BOTH_FORMS
from holdfast.confidence.templates import ReadPrompt, Template, read_prompt, second_prompt
from holdfast.errors import ArgumentError, require
from holdfast.llm import Message

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MASS = 0.98
"""Share of probability on the labels of an observer that knows no other words; the rest is put on such."""

WITH_SPACE = 0.1
"""Share of a label's probability that goes to the token with a space before it."""

OTHER_WORDS = (
    "The",
    "I",
    "**",
    "Answer",
    "Option",
    "My",
    "Based",
    "Let",
    "To",
    "It",
    "Both",
    "We",
    "In",
    "This",
    "From",
)
"""Tokens that are not labels, each half as likely as the one before."""

FIELDS = {"model", "messages", "temperature", "max_tokens", "logprobs", "top_logprobs"}
"""Of a chat request. Anything else could carry what the model must not know."""

Reply = tuple[int, dict[str, Any], dict[str, str]]
"""Status, body and headers."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong: probabilities, each of a request, drawn anew at every repetition, and switches.

    Arguments:
        busy: answered with 429, and a wait of 0 seconds.
        broken: answered with 500 or 503.
        dropped: the connection is closed without an answer.
        slow: answered after `slow_s`.
        slow_s: seconds.
        no_logprobs: answered without log-probabilities.
        refusal: of a prompt, however often it is asked: the model refuses.
        top: most tokens that are listed, whatever is asked for.
        extra_tokens: the answer goes on after the label, whatever is asked for.
        lower_case: labels are written in small letters.
        placeholders: log-probabilities are all -9999.
        zeros: log-probabilities are all 0.
        swapped_after: requests after which another version of the model answers; 0: never.
        seed: of what is drawn.
    """

    busy: float = 0.0
    broken: float = 0.0
    dropped: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    no_logprobs: float = 0.0
    refusal: float = 0.0
    top: int = 20
    extra_tokens: bool = False
    lower_case: bool = False
    placeholders: bool = False
    zeros: bool = False
    swapped_after: int = 0
    seed: int = 0

    def strikes(self, fault: str, name: str, time: int = 0) -> bool:
        """Whether a fault strikes a request at its n-th time."""
        digest = hashlib.sha256(f"{self.seed} {fault} {time} {name}".encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64 < float(getattr(self, fault))


@dataclass
class Seen:
    """What a server was asked.

    Arguments:
        statuses: answers by status of HTTP; 0: the connection was closed.
        repeated: requests that were asked again after they had been answered.
        most_at_once: most requests that were here together without an answer.
        hidden: prompts that hid the earlier answer, and held nothing else of stage 1.
        leaks: what was refused since it could carry something of stage 1, in words.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    repeated: int = 0
    most_at_once: int = 0
    hidden: int = 0
    leaks: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """All of them."""
        return self.statuses.total()


class ObserverServer:
    """The server: `app` is an ASGI application, and `seen` what it was asked.

    Arguments:
        responder: who answers.
        faults: what goes wrong.
        key: which every request must bring; empty: none.
        templates: wordings of the prompts that are answered.
        mass: what probabilities of labels are multiplied with. 1 for a responder that gives other words some of its
            probability itself, as language models do: the tokens listed then have its own.

    Errors:
        MissingExtraError: starlette is not installed.
    """

    def __init__(
        self,
        responder: Responder,
        faults: Faults | None = None,
        key: str = "",
        *,
        templates: Sequence[Template] = BOTH_FORMS,
        mass: float = MASS,
    ) -> None:
        require("starlette", "serving")
        if not 0 < mass <= 1:
            raise ArgumentError("mass", "a share above 0 and up to 1", mass)
        self.seen = Seen()
        self._responder, self._faults, self._key = responder, faults or Faults(), key
        self._templates, self._mass = templates, mass
        self._times: Counter[str] = Counter()
        self._answered: set[str] = set()
        self._under_way = 0

    @property
    def app(self) -> Starlette:
        """The application."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/systemone", self._systemone, methods=["POST"]),
            ]
        )

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, self._completion)

    async def _systemone(self, request: Request) -> Response:
        return await self._answer(request, self._probabilities)

    async def _answer(self, request: Request, answer: Any) -> Response:
        """One request, faults of the transport and all."""
        self._under_way += 1
        self.seen.most_at_once = max(self.seen.most_at_once, self._under_way)
        try:
            raw = await request.body()
            # An answer is computed at one go: requests that are here already are to be counted before.
            await asyncio.sleep(0)
            name = hashlib.sha256(request.url.path.encode() + raw).hexdigest()
            self._times[name] += 1
            status, body, headers = self._fault(name) or self._reply(request, raw, name, answer)
            if self._faults.strikes("slow", name, self._times[name]):
                await asyncio.sleep(self._faults.slow_s)
        finally:
            self._under_way -= 1
        self.seen.statuses[status] += 1
        if status == 200:
            self.seen.repeated += name in self._answered
            self._answered.add(name)
        return _sent(status, body, headers)

    def _fault(self, name: str) -> Reply | None:
        """A fault of the transport, if one strikes."""
        time = self._times[name]
        if self._faults.strikes("busy", name, time):
            return 429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}
        if self._faults.strikes("broken", name, time):
            return (500, 503)[time % 2], {"error": {"message": "out of order"}}, {}
        if self._faults.strikes("dropped", name, time):
            return 0, {}, {}
        return None

    def _reply(self, request: Request, raw: bytes, name: str, answer: Any) -> Reply:
        if self._key and request.headers.get("authorization") != f"Bearer {self._key}":
            return 401, {"error": {"message": "wrong key"}}, {}
        try:
            body = json.loads(raw)
            if not isinstance(body, dict):
                raise ValueError("not an object")
            return 200, answer(body, name), {}
        except ArgumentError as error:
            return 400, {"error": {"message": str(error)}}, {}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return 422, {"detail": [{"loc": ["body"], "msg": f"{type(error).__name__}: {error}"}]}, {}

    def _completion(self, body: Mapping[str, Any], name: str) -> dict[str, Any]:
        """A chat completion."""
        faults = self._faults
        odd = sorted(set(body) - FIELDS)
        if odd:
            raise self._leak(f"fields {', '.join(odd)}")
        answer, labels = self._read(body["messages"])
        tokens = _tokens(answer, labels, self._mass)[: min(int(body.get("top_logprobs", 0)), faults.top)]
        if faults.lower_case:
            tokens = [(token.lower(), value) for token, value in tokens]
        made_up = -9999.0 if faults.placeholders else 0.0
        if faults.placeholders or faults.zeros:
            tokens = [(token, made_up) for token, _ in tokens]
        best = labels[answer.scores.index(max(answer.scores))]
        written = [(best.lower() if faults.lower_case else best, 0.0)]
        written += [(")", -0.01), (" because", -0.5)] if faults.extra_tokens else []
        message: dict[str, Any] = {"role": "assistant", "content": "".join(token for token, _ in written)}
        if faults.strikes("refusal", name):
            message = {"role": "assistant", "content": None, "refusal": "I would rather not say."}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        time = self._times[name]
        listed = message["content"] is not None and not faults.strikes("no_logprobs", name, time)
        if body.get("logprobs") and listed:
            choice["logprobs"] = {
                "content": [
                    {"token": token, "logprob": tokens[0][1] if place == 0 and tokens else value}
                    | {"top_logprobs": [{"token": word, "logprob": at} for word, at in tokens] if place == 0 else []}
                    for place, (token, value) in enumerate(written)
                ]
            }
        text = json.dumps(body["messages"])
        return {
            "id": f"observer-{name[:12]}",
            "object": "chat.completion",
            "created": 0,
            "model": str(body["model"]),
            "system_fingerprint": self._version(),
            "choices": [choice],
            "usage": _usage(len(text), len(written), "prompt_tokens", "completion_tokens"),
        }

    def _probabilities(self, body: Mapping[str, Any], name: str) -> dict[str, Any]:
        """A systemone answer."""
        state = body["state"]
        odd = sorted(set(body) - {"model", "state", "questions"})
        if odd:
            raise self._leak(f"fields {', '.join(odd)}")
        answer, labels = self._read([{"role": "user", "content": state}])
        shares = {label: math.exp(score) for label, score in zip(labels, answer.scores, strict=True)}
        total = sum(shares.values())
        answers: dict[str, Any] = {}
        for asked, question in body["questions"].items():
            options = list(question["criteria"])
            if question["type"] != "choice" or len(options) != len(shares):
                raise ValueError(f"{asked}: a choice between the options of the state")
            probabilities = dict(zip(options, (share / total for share in shares.values()), strict=True))
            best = max(probabilities, key=probabilities.__getitem__)
            confidence = (probabilities[best] - 1 / len(options)) / (1 - 1 / len(options))
            answers[asked] = {
                "type": "choice",
                "choice": best,
                "confidence": confidence,
                "probabilities": probabilities,
            }
            if self._faults.strikes("refusal", name):
                answers[asked] = {"type": "refusal"}
        return {
            "model": str(body["model"]),
            "answers": answers,
            "usage": _usage(len(state), 0, "input_tokens", "output_tokens"),
        }

    def _read(self, messages: Sequence[Message]) -> tuple[Answer, str]:
        """What the observer says, and the labels, once the prompt is seen to hold nothing that it must not."""
        problem = hidden_leak(messages, self._templates)
        if problem is not None:
            if problem:
                raise self._leak(problem)
            self.seen.hidden += 1
        known = _known(messages, self._templates)
        if known is None:
            raise ArgumentError("messages", "a prompt of one of the templates", json.dumps(list(messages))[:300])
        options = known[0].options
        labels = LETTERS[: len(options)]
        (answer,) = self._responder.answer([Ask("", tuple(messages), tuple(labels), options)])
        if answer.problem:
            raise ValueError(f"no reading: {answer.problem}")
        return answer, labels

    def _leak(self, problem: str) -> ArgumentError:
        self.seen.leaks.append(problem)
        return ArgumentError("request", "nothing that could carry the first answer", problem)

    def _version(self) -> str:
        swapped = 0 < self._faults.swapped_after <= self.seen.requests
        return f"observer-{2 if swapped else 1}"


def latitude_answers() -> dict[str, str]:
    """Right options of the questions about all cities that come with Holdfast, by the text of the question."""
    sample = latitude_questions(1)[0]
    asked = sample.id.rpartition(": ")[0]
    return {
        sample.text.replace(asked, f"{city.name}, {city.country}"): degrees(round(city.latitude, 1))
        for city in cities()
    }


def hidden_leak(messages: Sequence[Message], templates: Sequence[Template]) -> str | None:
    """What a prompt that hides the earlier answer holds beside question, order, accuracy and the adviser's letter.

    It is put together anew from these alone.

    Returns:
        Words about what differs; empty: nothing does; `None`: it is no such prompt.
    """
    known = _known(messages, templates)
    if known is None or known[0].display != "hidden":
        return None
    prompt, template = known
    pure = second_prompt(
        Question("", prompt.text, prompt.options),
        range(len(prompt.options)),
        template,
        "hidden",
        displayed=None,
        advised=prompt.advised,
        accuracy=prompt.accuracy,
    )
    return "" if pure == list(messages) else f"a hidden prompt with more than it may hold: {json.dumps(messages)}"


def _known(messages: Sequence[Message], templates: Sequence[Template]) -> tuple[ReadPrompt, Template] | None:
    """What a prompt says, and in which wording; `None`: in none of them."""
    for template in templates:
        prompt = read_prompt(messages, template)
        if prompt is not None:
            return prompt, template
    return None


def _tokens(answer: Answer, labels: str, mass: float) -> list[tuple[str, float]]:
    """Likeliest tokens at the place of the answer, from the likeliest; a label of which only a bound is known lacks.

    What labels leave is spread over other words.
    """
    unseen = [math.exp(answer.scores[place]) for place in answer.missing]
    if unseen:
        # A label that is missing has its share beside what is listed, as large as that of the last token: with the
        # labels alone both fit into 1.
        mass = 1 / (1 + min(unseen))
    scores = [score + math.log(mass) for score in answer.scores]
    tokens = [
        (space + labels[place], score + math.log(share))
        for place, score in enumerate(scores)
        if place not in answer.missing
        for space, share in (("", 1 - WITH_SPACE), (" ", WITH_SPACE))
    ]
    if unseen:
        bound = math.log(mass * min(unseen))
        tokens = [(token, value) for token, value in tokens if value > bound] + [("...", bound)]
    else:
        left = 1 - math.fsum(map(math.exp, scores))
        for word in OTHER_WORDS if left > 0 else ():
            left /= 2
            tokens.append((word, math.log(left)))
    return sorted(tokens, key=lambda token: -token[1])


def _usage(characters: int, completion: int, *names: str) -> dict[str, int]:
    prompt = characters // 4
    return {names[0]: prompt, names[1]: completion, "total_tokens": prompt + completion}


def _sent(status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    from starlette.responses import JSONResponse

    if status:
        return JSONResponse(body, status, dict(headers))

    class HangUp(JSONResponse):
        """Promises more than it sends, so that the server closes the connection."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99")]})
            await send({"type": "http.response.body", "body": b""})

    return HangUp({})


@contextmanager
def serving(server: ObserverServer, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in a thread for as long as the block lasts; gives the address up to `/v1`.

    Arguments:
        server: what is served.
        host: address to listen at.
        port: port to listen at; 0: a free one.

    Errors:
        ArgumentError: the port cannot be used.
        MissingExtraError: uvicorn is not installed.
    """
    uvicorn = require("uvicorn", "serving")
    # Asyncio turns Nagle's algorithm off, which holds the second part of an answer back, only if the protocol is named.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ArgumentError("port", "one that is free", f"{port} ({error})") from None
        listening.listen(1024)
        config = uvicorn.Config(server.app, lifespan="off", log_level="critical", access_log=False)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{listening.getsockname()[1]}/v1"
        finally:
            running.should_exit = running.force_exit = True
            thread.join(10)
