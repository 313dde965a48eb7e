"""The stub server of these tests."""

from __future__ import annotations

import itertools

from tests.llm.chat_server import ChatServer


def test_the_stub_is_the_same_for_a_seed_and_wrong_about_one_pair_in_a_hundred():
    servers = [ChatServer(seed=seed, wrong=0.01) for seed in (1, 1, 2)]
    pairs = list(itertools.combinations(range(150), 2))
    wrong = [{pair for pair in pairs if not server.before(*pair)} for server in servers]
    for server in servers:
        server._http.server_close()
    assert wrong[0] == wrong[1] != wrong[2]
    assert all(0.006 < len(which) / len(pairs) < 0.014 for which in wrong)
    assert servers[0].order(list(range(20))) == servers[1].order(list(range(20)))
