"""Requests a second that the client to language models sends, beside the bare HTTP library.

Both ask a uvicorn server on this machine that does nothing. `client` is all of it: the key, attempts, the rate limit,
the budget, reading of answers, and a file that keeps them. `bare` sends the same bodies and parses the answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

KEY = "HOLDFAST_BENCH_KEY"
MESSAGES = [
    {
        "role": "user",
        "content": "Which city lies further north?\nA) Oslo, Norway\nB) Rome, Italy\n\nReply with the letter only.",
    }
]
FIELDS: dict[str, Any] = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}


@dataclass(frozen=True)
class Options:
    """Requests a second that the client to language models sends, beside the bare HTTP library."""

    concurrency: tuple[int, ...] = (8, 16, 64)
    """Requests that are under way together."""
    requests: int = 2000
    """Requests in each round."""
    rounds: int = 3
    """Timed rounds, of which the best counts: what else the machine does only takes away."""


TOY = Options(concurrency=(4,), requests=20, rounds=1)


def run(options: Options, tell: Tell) -> Report:
    """Time both in turn.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; requests a second of the wall clock, and of the client's processor time.

    Errors:
        ArgumentError: a number is not positive.
        MissingExtraError: aiohttp, tenacity or uvicorn is not installed.
    """
    from holdfast.errors import count_of, require

    for module, extra in (("aiohttp", "llm"), ("tenacity", "llm"), ("uvicorn", "serving")):
        require(module, extra)
    count_of("rounds", options.rounds, 1)
    requests = count_of("requests", options.requests, 1)
    rows: list[Row] = []
    with _server() as base_url, tempfile.TemporaryDirectory() as folder:
        for concurrency in options.concurrency:
            count_of("concurrency", concurrency, 1)
            arms = {
                "bare": partial(_bare, base_url, concurrency),
                "client": partial(_client, folder, base_url, concurrency),
            }
            best = dict.fromkeys(arms, (0.0, 0.0))
            for turn in range(-1, options.rounds):
                for name, arm in arms.items():
                    rates = _rates(arm, requests if turn >= 0 else min(requests, 100))
                    best[name] = max(best[name], rates) if turn >= 0 else best[name]
            for name, (wall, processor) in best.items():
                row = {"concurrency": concurrency, "arm": name, "per_second": wall, "per_cpu_second": processor}
                rows.append(row)
                tell(row)
    client = [row for row in rows if row["arm"] == "client"]
    phrase = ", ".join(f"{row['per_second']:.0f} requests/s at concurrency {row['concurrency']}" for row in client)
    bare = rows[rows.index(client[-1]) - 1]
    return Report(asdict(options), tuple(rows), phrase, client[-1]["per_cpu_second"] / bare["per_cpu_second"])


def _rates(arm: Callable[[int], None], count: int) -> tuple[float, float]:
    """Requests a second by the wall clock, and by this process's own processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    arm(count)
    return count / (time.perf_counter() - wall), count / (time.process_time() - processor)


def _client(folder: str, base_url: str, concurrency: int, count: int) -> None:
    from holdfast.llm import AnswerFile, AsyncEndpoint, Completion, Endpoint

    os.environ[KEY] = "sk-no-op-0123456789"
    model = Endpoint(
        "no-op",
        base_url=base_url,
        api_key_env=KEY,
        concurrency=concurrency,
        requests_per_minute=60e6,
        max_requests=count,
        max_cost=1e9,
        price=(1.0, 1.0),
        deadline_s=600.0,
    )

    async def ask(line: AsyncEndpoint, number: int) -> Completion:
        return await line.complete(MESSAGES, **FIELDS)

    with AnswerFile(Path(folder) / f"{time.monotonic_ns()}.jsonl").writer() as write:
        for number, completion in model.each(ask, range(count)):
            tokens = [list(pair) for pair in completion.logprobs[0].top]
            write({"key": f"{number:064}", "answer": {"text": completion.text, "tokens": tokens}})
    assert model.usage.requests == count


def _bare(base_url: str, concurrency: int, count: int) -> None:
    asyncio.run(_post(base_url, concurrency, count))


async def _post(base_url: str, concurrency: int, count: int) -> None:
    import aiohttp

    body: dict[str, Any] = {"model": "no-op", "messages": MESSAGES, "temperature": 0.0, **FIELDS}
    numbers = iter(range(count))

    async def work(session: aiohttp.ClientSession) -> None:
        for _ in numbers:
            async with session.post(f"{base_url}/chat/completions", data=json.dumps(body).encode()) as response:
                json.loads(await response.read())

    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-no-op-0123456789"}
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        await asyncio.gather(*(work(session) for _ in range(concurrency)))


@contextmanager
def _server() -> Iterator[str]:
    """The server, in a process of its own; gives its address."""
    command = [sys.executable, "-m", "holdfast.benches.llm.no_op_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.stdin.close()
            process.wait(10)
