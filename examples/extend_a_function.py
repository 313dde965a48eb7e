"""Lists: a function that is right on short lists only, checked, extended to long ones, and found from an example."""

from holdfast.lists import NotExtendable, check_filter_equivariance, extrapolate, synthesize

CAPACITY = 6
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]


def short_sort(xs):
    """Stands for a network, or a language model with a small window."""
    if len(xs) > CAPACITY:
        raise RuntimeError(f"{len(xs)} elements are too many for me")
    return sorted(xs)


def rotate(xs):
    """Right at every length, but it does not follow the rule."""
    return xs[1:] + xs[:1]


if __name__ == "__main__":
    print(check_filter_equivariance(short_sort, max_length=CAPACITY, exhaustive=(3, 4)))
    found = extrapolate(short_sort, CAPACITY).explain(WORDS)
    print(*found.output)
    print(f"{found.queries} questions, the longest of {found.longest} words")
    try:
        extrapolate(rotate, CAPACITY)(list(range(20)))
    except NotExtendable as error:
        print(error)
    print(synthesize([(["a", "b"], ["a", "a", "b", "b", "b", "a"])]).best.code)
