"""Work on examples by several threads."""

import threading

import pytest

from datasets import threads


def test_results_are_in_the_order_of_the_items():
    ended = threading.Event()

    def first_ends_last(item):
        if item == 0 and threads.THREADS > 1:
            assert ended.wait(60)
        ended.set()
        return item * item

    count = 3 * threads.THREADS
    assert list(threads.in_order(first_ends_last, range(count))) == [n * n for n in range(count)]
    assert list(threads.in_order(str, [])) == []


def test_no_more_items_are_taken_than_needed():
    taken = iter(range(1000))
    done = threads.in_order(str, taken)
    assert next(done) == "0"
    assert next(taken) == threads.THREADS + 1


def test_an_error_comes_in_its_place_and_ends_the_work():
    done = threads.in_order(lambda item: 1 // item, [1, 0, 1])
    assert next(done) == 1
    with pytest.raises(ZeroDivisionError):
        next(done)
    assert list(done) == []


def test_an_error_of_the_items_is_raised():
    def items():
        yield 1
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        list(threads.in_order(str, items()))
