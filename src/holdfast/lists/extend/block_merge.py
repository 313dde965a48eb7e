"""Block merge: the list in chunks as long as the function may be shown, merged two by two with whole windows of it.

A function that may be shown `capacity` elements at once tells more in one answer than the order of two. Block merge
cuts the list into chunks, asks for each, and merges the answers two by two, with one query for every `capacity / 2`
tokens or so.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np

from holdfast.lists.errors import Cycle, NotExtendable
from holdfast.lists.extend.labels import in_values
from holdfast.lists.extend.pairs import Labels
from holdfast.lists.extend.positional import OrderedAnswers, glue_occurrences
from holdfast.lists.extend.sublists import Merge, Plan, Sublists, labels_of, merge_all, tokens_of
from holdfast.lists.tokens import Token


def block_merge(sublists: Sublists) -> Plan:
    """Chunks of as many elements as the function may be shown, merged two by two; all merges of a level in step.

    Each query of a merge shows the function the next tokens of both runs. What its answer says holds until one side's
    tokens are used up, for everything else of that side comes later. With duplicates a chunk holds all copies of its
    values.

    Arguments:
        sublists: the list, with a capacity of at least 2.

    Errors:
        ArgumentError: two values have more copies together than the capacity, and were to be compared.
        NotExtendable: an answer orders two tokens otherwise than an earlier one, or a value that was left out of one
            answer makes a difference to another.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md: about
    (2n/c) log2(n/c) + n/c queries for n elements and capacity c.
    """
    chunks = list(sublists.packed(dict.fromkeys(sublists.labels.tolist()), sublists.room))
    answers = yield [sublists.of(chunk) for chunk in chunks]
    yield from _ask_for_left_out(chunks, answers, sublists)
    runs = [tokens_of(answer) for answer in answers]
    return labels_of((yield from merge_all(runs, lambda left, right: _merge_blocks(left, right, sublists))))


def merge_both_orders(sublists: Sublists) -> Plan:
    """The answer to a list with duplicates, in mode positional, from two block merges of its distinct values.

    In that mode the order of two elements hangs on their values and on which stands first. The answer to the distinct
    values in their order of appearance settles it for every two values one way round, that to the same values turned
    round settles the other.

    Arguments:
        sublists: the list, with a capacity of at least 2.

    Errors:
        Cycle, NotExtendable: no list fits the answers.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md: twice the queries of block merge on
    the distinct values.
    """
    labels = sublists.labels
    first = np.array(list(dict.fromkeys(labels.tolist())), dtype=np.int64)
    merges = [block_merge(replace(sublists, labels=values)) for values in (first, first[::-1])]
    answers = yield from _side_by_side(merges)
    try:
        return glue_occurrences(labels, OrderedAnswers(first, answers[0], answers[1]))
    except (Cycle, NotExtendable) as error:
        raise in_values(error, sublists.show) from None


def _side_by_side(plans: list[Plan]) -> Generator[list[Labels], list[Labels], list[Labels]]:
    """Several plans together: in each round the lists that all of them ask for."""
    results: dict[int, Labels] = {}
    waiting: dict[int, list[Labels]] = {}

    def move(number: int, answers: list[Labels] | None) -> None:
        waiting.pop(number, None)
        try:
            plan = plans[number]
            waiting[number] = next(plan) if answers is None else plan.send(answers)
        except StopIteration as stop:
            results[number] = stop.value

    for number in range(len(plans)):
        move(number, None)
    while waiting:
        asked = list(waiting.items())
        answers = iter((yield [query for _, queries in asked for query in queries]))
        for number, queries in asked:
            move(number, [next(answers) for _ in queries])
    return [results[number] for number in range(len(plans))]


def _ask_for_left_out(chunks: list[list[int]], answers: list[Labels], sublists: Sublists) -> Merge:
    """Ask once more, beside values of another chunk, for the values that a chunk's answer left out.

    No merge would ask for them again, and one odd value could take its neighbours with it unseen.
    """
    queries: list[Labels] = []
    wanted: list[Labels] = []
    for number, (chunk, answer) in enumerate(zip(chunks, answers, strict=True)):
        left_out = [value for value in chunk if value not in set(answer.tolist())]
        others = [other for other in answers[number + 1 :] + answers[:number] if len(other)]
        if not left_out or not others:
            continue
        for group in sublists.packed(left_out, sublists.room // 2):
            room = sublists.room - sum(sublists.counts[value] for value in group)
            beside = next(sublists.packed(dict.fromkeys(others[0].tolist()), room))
            if sum(sublists.counts[value] for value in beside) <= room:
                queries.append(sublists.of([*group, *beside]))
                wanted.append(others[0][np.isin(others[0], beside)])
    if not queries:
        return []
    for query, want, got in zip(queries, wanted, (yield queries), strict=True):
        if not np.array_equal(want, got):
            rule = "a value that is left out of one answer makes no difference to another"
            raise NotExtendable(rule, *(sublists.show(labels) for labels in (query, want, got)))
    return []


def _merge_blocks(left: list[Token], right: list[Token], sublists: Sublists) -> Merge:
    merged: list[Token] = []
    i = j = 0
    while i < len(left) and j < len(right):
        i_end, j_end, values = _windows(left, i, right, j, sublists)
        query = sublists.of(values)
        [answer] = yield [query]
        tokens = tokens_of(answer)
        windows = left[i:i_end], right[j:j_end]
        for window in windows:
            inside = set(window)
            again = [token for token in tokens if token in inside]
            if again != window:
                rule = "an answer orders the copies of its values as earlier answers do"
                want, got = (sublists.show(labels_of(order)) for order in (window, again))
                raise NotExtendable(rule, sublists.show(query), want, got)
        new = set(windows[0]), set(windows[1])
        for token in tokens:
            if i == i_end or j == j_end:
                break
            if token in new[0]:
                i += 1
            elif token in new[1]:
                j += 1
            else:
                continue
            merged.append(token)
    return merged + left[i:] + right[j:]


def block_merge_with_errors(sublists: Sublists) -> Generator[list[Labels], list[Labels | None], Labels]:
    """Block merge that goes on where answers contradict each other: the later one is believed for the time being.

    It yields lists to ask for and is sent their answers (`None`: there was none), as all engines are. In
    the last round it asks for windows of the result, each of which overlaps half of the next, so that every two
    neighbours are seen among other values once more. Let all the answers vote, and glue the votes with `guess`: most
    pairs were never together, and those that count are neighbours. A list whose answer cannot be used is asked for in
    parts.

    Arguments:
        sublists: the list, with a capacity of at least 2.

    Returns:
        The merged list, as it was before the last round.

    Errors:
        ArgumentError: two values have more copies together than the capacity, and were to be compared.

    Source: the amalgamation of arXiv 2507.08796, with up to 2n/c queries for the last round.
    """
    plan = _merge_in_parts(sublists)
    queries = next(plan)
    nothing = np.zeros(0, dtype=np.int64)
    while True:
        answers = yield queries
        try:
            queries = plan.send([nothing if answer is None else answer for answer in answers])
        except StopIteration as stop:
            merged: list[Token] = stop.value
            break
    windows = []
    start = end = 0
    while end < len(merged):
        end, _, values = _window(merged, start, sublists.room, sublists)
        windows.append(sublists.of(values))
        start += max((end - start) // 2, 1)
    if len(windows) > 1:
        yield windows
    return labels_of(merged)


def _merge_in_parts(sublists: Sublists) -> Merge:
    chunks = list(sublists.packed(dict.fromkeys(sublists.labels.tolist()), sublists.room))
    runs: list[list[Token]] = []
    while chunks:
        answers = yield [sublists.of(chunk) for chunk in chunks]
        again = []
        for chunk, answer in zip(chunks, answers, strict=True):
            if len(answer) and np.isin(answer, chunk).all():
                runs.append(tokens_of(answer))
            elif len(chunk) > 1:
                again += [chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :]]
        chunks = again
    return (yield from merge_all(runs, lambda left, right: _merge_windows(left, right, sublists)))


def _merge_windows(left: list[Token], right: list[Token], sublists: Sublists) -> Merge:
    merged: list[Token] = []
    room = sublists.room
    while left and right:
        i, j, values = _windows(left, 0, right, 0, replace(sublists, capacity=room))
        [answer] = yield [sublists.of(values)]
        ours, theirs = set(left[:i]), set(right[:j])
        order = [token for token in tokens_of(answer) if token in ours or token in theirs]
        if len(order) != i + j or not np.isin(answer, list(values)).all():
            least = sublists.counts[left[0][0]] + sublists.counts[right[0][0]]
            if room > least:
                room = max(room // 2, least)
                continue
            order = left[:i] + right[:j]
        room = sublists.room
        while ours and theirs:
            token = order.pop(0)
            ours.discard(token)
            theirs.discard(token)
            merged.append(token)
        left = [token for token in order if token in ours] + left[i:]
        right = [token for token in order if token in theirs] + right[j:]
    return merged + left + right


def _windows(
    left: list[Token], i: int, right: list[Token], j: int, sublists: Sublists
) -> tuple[int, int, dict[int, None]]:
    """Where the next tokens of two runs end that can be shown together, and their values."""
    capacity = sublists.room
    first, second = (sublists.counts[run[at][0]] for run, at in ((left, i), (right, j)))
    if first + second > capacity:
        raise sublists.too_long((left[i][0], right[j][0]))
    i_end, shown, values = _window(left, i, max(first, min(capacity // 2, capacity - second)), sublists)
    j_end, also_shown, also = _window(right, j, capacity - shown, sublists)
    if j_end == len(right):
        i_end, _, values = _window(left, i, capacity - also_shown, sublists)
    return i_end, j_end, values | also


def _window(run: list[Token], start: int, budget: int, sublists: Sublists) -> tuple[int, int, dict[int, None]]:
    """Where a run's next tokens end whose values fit in a budget of elements, how many these are, and the values."""
    values: dict[int, None] = {}
    shown = 0
    for end in range(start, len(run)):
        value = run[end][0]
        if value not in values:
            if shown + sublists.counts[value] > budget:
                return end, shown, values
            shown += sublists.counts[value]
            values[value] = None
    return len(run), shown, values
