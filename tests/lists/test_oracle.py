import array
import asyncio
import threading
from functools import partial

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.lists.errors import BadAnswer, OutOfBudget
from holdfast.lists.oracle import Oracle


class Counting:
    """A function that notes what it is shown."""

    def __init__(self, function):
        self.function, self.shown = function, []

    def __call__(self, xs):
        self.shown.append(xs if isinstance(xs, str) else list(xs))
        return self.function(xs)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([2, 1], [2, 1]),
        ((2, 1), [2, 1]),
        (np.array([2, 1]), [2, 1]),
        (array.array("l", [2, 1]), [2, 1]),
        ([], []),
    ],
)
def test_answers_that_are_lists(answer, expected):
    found = Oracle(lambda xs: answer)([1, 2])
    assert found == expected
    assert type(found) is list


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (None, "returned NoneType instead of a list"),
        (5, "returned int instead of a list"),
        ((x for x in [1]), "returned generator instead of a list"),
        (iter([1]), "returned list_iterator instead of a list"),
        ({1}, "returned set instead of a list"),
        ({1: 2}, "returned dict instead of a list"),
        ("2 1", "returned the text '2 1' instead of a list"),
        (b"21", "returned bytes instead of a list"),
        (np.float64(1.0), "returned float64 instead of a list"),
        (np.array(1), "returned ndarray instead of a list"),
    ],
)
def test_answers_that_are_none(answer, what):
    with pytest.raises(BadAnswer) as caught:
        Oracle(lambda xs: answer)([1, 2])
    assert caught.value.query == [1, 2]
    assert str(caught.value) == f"the function was asked for [1, 2] and {what}"


def test_text_is_shown_as_text():
    oracle = Oracle(Counting(lambda text: text[::-1]))
    assert oracle("abc") == list("cba")
    assert oracle(list("abc")) == list("cba")
    assert oracle.function.shown == ["abc", ["a", "b", "c"]]
    assert Oracle(list)("abc") == list("abc")


def test_a_function_may_change_its_argument():
    def takes_all(xs):
        found = sorted(xs)
        xs.clear()
        return found

    query = [2, 1]
    oracle = Oracle(takes_all)
    assert oracle(query) == oracle(query) == [1, 2]
    assert query == [2, 1]


def test_nobody_can_change_what_is_kept():
    kept = [1]
    oracle = Oracle(lambda xs: kept)
    oracle([1]).append(7)
    kept.append(8)
    assert oracle([1]) == [1]


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("socket"), StopIteration(), RecursionError("deep")])
@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_what_a_function_raises(error, timeout_s):
    def fails(xs):
        raise error

    with pytest.raises(BadAnswer) as caught:
        Oracle(fails, timeout_s=timeout_s)([1])
    assert caught.value.problem == f"raised {type(error).__name__}: {error}"
    assert caught.value.__cause__ is error


def test_an_interrupt_is_no_answer():
    def interrupted(xs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Oracle(interrupted)([1])
    with pytest.raises(KeyboardInterrupt):
        Oracle(interrupted, timeout_s=5)([1])


def test_a_function_that_never_returns():
    stop = threading.Event()
    with pytest.raises(BadAnswer, match=r"asked for \[1\] and did not return within 0.05 s"):
        Oracle(lambda xs: stop.wait(), timeout_s=0.05)([1])
    stop.set()


def test_a_coroutine_that_never_returns():
    async def sleeps(xs):
        await asyncio.sleep(60)

    with pytest.raises(BadAnswer, match=r"did not return within 0.05 s"):
        Oracle(sleeps, timeout_s=0.05)([1])


def test_a_coroutine_that_never_gives_way():
    stop = threading.Event()

    async def blocks(xs):
        stop.wait()
        return xs

    with pytest.raises(BadAnswer, match=r"did not return within 0.1 s"):
        Oracle(blocks, timeout_s=0.05)([1])
    stop.set()


def test_nothing_is_asked_twice():
    oracle = Oracle(Counting(sorted))
    assert oracle.ask([[2, 1], [3], [2, 1]]) == [[1, 2], [3], [1, 2]]
    assert oracle.ask([[3], [2, 1], []]) == [[3], [1, 2], []]
    assert oracle.function.shown == [[2, 1], [3], []]
    assert (oracle.queries, oracle.longest, oracle.elements, oracle.calls) == (3, 2, 3, 3)


def test_equal_lists_of_different_types_are_different():
    oracle = Oracle(Counting(lambda xs: xs))
    answers = oracle.ask([[1], [True], [1.0], (1,)])
    assert [type(answer[0]) for answer in answers] == [int, bool, float, int]
    assert oracle.queries == 3


def test_lists_that_cannot_be_hashed_are_asked_each_time():
    oracle = Oracle(Counting(lambda xs: xs[::-1]))
    assert oracle.ask([[[1], [2]], [[1], [2]]]) == [[[2], [1]]] * 2
    assert oracle([{"a": 1}]) == [{"a": 1}]
    assert oracle.queries == 3
    assert oracle.cache == {}


def test_a_fresh_question_is_asked_again_and_changes_nothing():
    numbers = iter(range(9))
    oracle = Oracle(lambda xs: [next(numbers)])
    assert oracle([5]) == [0]
    assert oracle.ask([[5]], fresh=True) == [[1]]
    assert oracle([5]) == [0]
    assert oracle.queries == 2


def test_a_cache_outlives_its_oracle():
    cache = {}
    Oracle(sorted, cache=cache)([2, 1])

    def fails(xs):
        raise AssertionError

    assert Oracle(fails, cache=cache)([2, 1]) == [1, 2]


def test_what_was_answered_before_an_error_is_kept_and_counted():
    def fails_on_three(xs):
        if len(xs) == 3:
            raise ValueError("no")
        return xs

    oracle = Oracle(Counting(fails_on_three))
    with pytest.raises(BadAnswer):
        oracle.ask([[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]])
    assert oracle.queries == len(oracle.function.shown) == 3
    assert oracle.longest == 3
    assert oracle([1, 2]) == [1, 2]
    assert len(oracle.function.shown) == 3


def test_the_capacity_is_kept():
    oracle = Oracle(Counting(sorted), capacity=2)
    with pytest.raises(ArgumentError, match="query: expected at most 2 elements, got 3"):
        oracle.ask([[1], [1, 2, 3]])
    assert oracle.function.shown == []


def test_the_budget_is_kept():
    oracle = Oracle(Counting(sorted), max_queries=3)
    oracle.ask([[1], [2]])
    with pytest.raises(OutOfBudget, match="3 are allowed, at least 4 are needed") as caught:
        oracle.ask([[1], [3], [4]])
    assert (caught.value.budget, caught.value.needed) == (3, 4)
    assert oracle.ask([[1], [3]]) == [[1], [3]]
    assert oracle.queries == 3


def test_many_at_once():
    oracle = Oracle(Counting(lambda lists: [sorted(xs) for xs in lists]), batched=True)
    assert oracle.ask([[2, 1], [3], [2, 1]]) == [[1, 2], [3], [1, 2]]
    assert oracle.function.shown == [[[2, 1], [3]]]
    assert (oracle.queries, oracle.calls) == (2, 1)
    assert oracle.ask([]) == []
    assert oracle.calls == 1
    assert Oracle(lambda lists: np.array(lists), batched=True).ask([[1, 2], [3, 4]]) == [[1, 2], [3, 4]]
    assert Oracle(tuple, batched=True).ask([[1], [3, 4]]) == [[1], [3, 4]]


def test_a_batch_may_be_changed():
    def pops(lists):
        found = []
        while lists:
            found.append(lists.pop(0))
        for xs in found:
            xs.reverse()
        return found

    queries = [[1, 2], [3]]
    assert Oracle(pops, batched=True).ask(queries) == [[2, 1], [3]]
    assert queries == [[1, 2], [3]]


def failing_generator(lists):
    yield [1]
    raise ValueError("late")


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda lists: None, "returned NoneType for a batch of lists"),
        (lambda lists: "ab", "returned str for a batch of lists"),
        (lambda lists: (xs for xs in lists), "returned generator for a batch of lists"),
        (failing_generator, "returned generator for a batch of lists"),
        (lambda lists: lists[:1], "returned 1 answers to a batch of 2 lists"),
        (lambda lists: ["ab", [3]], "returned the text 'ab' instead of a list"),
        (lambda lists: [1, 2], "returned int instead of a list"),
        (lambda lists: 1 / 0, "raised ZeroDivisionError: division by zero"),
    ],
)
def test_batches_gone_wrong(function, what):
    with pytest.raises(BadAnswer) as caught:
        Oracle(function, batched=True).ask([[1, 2], [3]])
    assert caught.value.problem == what


class Server:
    """An object with a coroutine for a call; notes how many calls are under way together."""

    def __init__(self):
        self.now = self.most = 0

    async def __call__(self, xs):
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        return sorted(xs)


def test_coroutines_run_together_but_not_too_many():
    server = Server()
    oracle = Oracle(server, concurrency=3)
    queries = [[n, 0] for n in range(1, 11)]
    assert oracle.ask(queries) == [[0, n] for n in range(1, 11)]
    assert server.most == 3
    assert oracle.queries == oracle.calls == 10


def test_coroutines_of_every_kind_work_inside_a_running_loop():
    async def sort(xs, reverse=False):
        return sorted(xs, reverse=reverse)

    async def sort_all(lists):
        return [sorted(xs) for xs in lists]

    async def notebook():
        assert Oracle(sort)([2, 1]) == [1, 2]
        assert Oracle(partial(sort, reverse=True))([1, 2]) == [2, 1]
        assert Oracle(sort_all, batched=True).ask([[2, 1], [3]]) == [[1, 2], [3]]
        assert Oracle(Server())([2, 1]) == [1, 2]
        assert Oracle(sorted, timeout_s=5)([2, 1]) == [1, 2]

    asyncio.run(notebook())


def test_a_function_that_gives_something_to_await():
    async def sort(xs):
        return sorted(xs)

    assert Oracle(lambda xs: sort(xs))([2, 1]) == [1, 2]


@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_a_coroutine_that_raises(timeout_s):
    async def fails(xs):
        raise TimeoutError("socket")

    with pytest.raises(BadAnswer) as caught:
        Oracle(fails, timeout_s=timeout_s)([1])
    assert caught.value.problem == "raised TimeoutError: socket"


def small_batches_only(lists):
    if len(lists) > 3:
        raise MemoryError("too many")
    return [sorted(xs) for xs in lists]


def test_a_batch_that_fails_is_asked_in_parts_and_counted_once():
    oracle = Oracle(small_batches_only, batched=True, max_queries=10)
    queries = [[number, 0] for number in range(1, 11)]
    assert oracle.ask(queries) == [[0, number] for number in range(1, 11)]
    assert (oracle.queries, oracle.elements) == (10, 20)
    assert oracle.calls > 4
    assert oracle.ask(queries) == [[0, number] for number in range(1, 11)]


def test_the_list_that_spoils_a_batch_is_named_and_the_others_are_kept():
    def f(lists):
        if [6, 0] in lists:
            raise ValueError("six")
        return [sorted(xs) for xs in lists]

    queries = [[number, 0] for number in range(1, 11)]
    oracle = Oracle(f, batched=True)
    with pytest.raises(BadAnswer, match=r"asked for \[6, 0\] and raised ValueError: six"):
        oracle.ask(queries)
    assert oracle.queries == 10
    assert len(oracle.cache) == 5, "what stands before it"
    answers = Oracle(f, batched=True).attempt(queries)
    assert [isinstance(answer, BadAnswer) for answer in answers] == [number == 6 for number in range(1, 11)]


def test_a_malformed_answer_in_a_batch_leaves_the_others():
    oracle = Oracle(lambda lists: [xs if len(xs) < 3 else None for xs in lists], batched=True)
    good, bad = oracle.attempt([[1, 2], [1, 2, 3]])
    assert good == [1, 2]
    assert bad.problem == "returned NoneType instead of a list"
    assert (oracle.queries, oracle.calls) == (2, 1)


def test_coroutines_that_were_answered_are_kept_when_one_fails():
    async def f(xs):
        if xs == [3]:
            raise ValueError("three")
        return xs

    oracle = Oracle(f)
    with pytest.raises(BadAnswer, match=r"asked for \[3\]"):
        oracle.ask([[1], [2], [3], [4]])
    assert len(oracle.cache) == 3


def test_fresh_questions_are_each_asked_and_told_apart_where_answers_are_kept():
    class Keeping:
        def __init__(self):
            self.asked = []

        def __call__(self, lists):
            self.asked += [(tuple(xs), 0) for xs in lists]
            return lists

        def independent(self, lists, numbers):
            self.asked += [(tuple(xs), number) for xs, number in zip(lists, numbers, strict=True)]
            return lists

    f = Keeping()
    oracle = Oracle(f, batched=True)
    oracle.ask([[1], [1], [2]])
    oracle.ask([[1], [1], [2]], fresh=[True, True, False])
    oracle.ask([[1]], fresh=True)
    assert f.asked == [((1,), 0), ((2,), 0), ((1,), 1), ((1,), 2), ((1,), 3)]
    assert oracle.queries == 5


def test_eight_threads_lose_no_count_and_pass_no_budget():
    oracle = Oracle(sorted, max_queries=400)
    queries = [[number, 0] for number in range(1, 401)]

    def work(start):
        oracle.ask(queries[start::8])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (oracle.queries, oracle.calls, oracle.elements) == (400, 400, 800)
    with pytest.raises(OutOfBudget):
        oracle.ask([[401, 0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 3}, "concurrency: expected none but for a coroutine function of one list, got 3"),
        ({"timeout_s": "5"}, "timeout_s: expected a positive number of seconds, got 5"),
        ({"batched": "yes"}, "batched: expected True or False, got str"),
        ({"key": 5}, "key: expected a function of elements, or None, got 5"),
        ({"capacity": 0}, "capacity: expected at least 1, got 0"),
        ({"max_queries": 0}, "max_queries: expected at least 1, got 0"),
        ({"concurrency": 0}, "concurrency: expected at least 1, got 0"),
        ({"timeout_s": 0}, "timeout_s: expected a positive number of seconds, got 0"),
        ({"timeout_s": float("nan")}, "timeout_s: expected a positive number of seconds, got nan"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(ArgumentError) as caught:
        Oracle(sorted, **options)
    assert str(caught.value) == message


def test_what_cannot_be_called():
    with pytest.raises(ArgumentError, match=r"^function: expected a function of lists, got \[1\]$"):
        Oracle([1])


@pytest.mark.parametrize("timeout_s", [1e20, float("inf")])
def test_a_limit_that_no_clock_holds_is_none(timeout_s):
    assert Oracle(sorted, timeout_s=timeout_s)([2, 1]) == [1, 2]


@pytest.mark.parametrize("query", [None, 5, (x for x in [1])])
def test_what_is_no_list_is_named(query):
    with pytest.raises(ArgumentError, match="query: expected a list, tuple or text"):
        Oracle(sorted).ask([query])
