"""The contiguous mark and what is ahead of it, against plain sets of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.telemetry.sequence import MAX_RANGES, Flow, Range

ranges = st.tuples(st.integers(1, 40), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def numbers(parts: list[Range]) -> set[int]:
    return {number for first, last in parts for number in range(first, last + 1)}


def committed(flow: Flow) -> set[int]:
    return set(range(1, flow.contiguous + 1)) | numbers(flow.ahead)


@given(st.lists(ranges, max_size=30))
def test_a_flow_is_the_set_of_what_was_committed(parts: list[Range]) -> None:
    flow, model = Flow(), set[int]()
    for first, last in parts:
        assert numbers(flow.missing(first, last)) == set(range(first, last + 1)) - model
        flow.commit(first, last)
        model |= set(range(first, last + 1))
        assert committed(flow) == model
        assert flow.contiguous == next(n for n in range(100) if n + 1 not in model)


@given(st.lists(ranges, max_size=30))
def test_what_is_ahead_stays_sorted_and_apart(parts: list[Range]) -> None:
    flow = Flow()
    for first, last in parts:
        flow.commit(first, last)
    edges = [flow.contiguous, *(edge for part in flow.ahead for edge in part)]
    assert edges == sorted(edges)
    assert all(low > high + 1 for (_, high), (low, _) in zip(flow.ahead, flow.ahead[1:], strict=False))
    assert not flow.ahead or flow.ahead[0][0] > flow.contiguous + 1


def test_a_device_that_numbers_at_random_is_bounded() -> None:
    flow = Flow()
    for number in range(MAX_RANGES):
        assert flow.has_room(10 + 2 * number)
        flow.commit(10 + 2 * number, 10 + 2 * number)
    assert not flow.has_room(5000)
    assert flow.has_room(1)


def test_a_gap_of_nearly_everything_costs_one_range() -> None:
    flow = Flow()
    flow.commit(2, 2**53)
    assert flow.ahead == [(2, 2**53)]
    flow.commit(1, 1)
    assert (flow.contiguous, flow.ahead) == (2**53, [])
