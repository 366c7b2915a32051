"""The demonstration's account: it balances only where every served reading is stored once."""

from hil.account import Account, account


def of(
    numbers: list[int], served: int, kills_ms: list[int] | None = None, others: int | None = None
) -> Account:
    """An account of ``numbers``, number n read at 1000 n ms."""
    stored = [(float(number), 1000 * number) for number in numbers]
    flow = len(numbers) if others is None else others
    return account("gw-1", served, stored, kills_ms or [], {"flow": flow})


def test_every_number_once_balances() -> None:
    done = of([5, 1, 2, 3, 4], served=5)
    assert done.balanced
    assert done.stored == 5


def test_a_missing_number_is_a_loss() -> None:
    done = of([1, 2, 4, 5], served=5)
    assert (done.lost, done.balanced) == ((3,), False)


def test_the_last_number_is_accounted_for_too() -> None:
    assert of([1, 2], served=3).lost == (3,)


def test_a_kill_explains_one_missing_number_beside_it() -> None:
    done = of([1, 2, 4, 5], served=5, kills_ms=[3100])
    assert done.balanced
    assert done.cut_short == (3,)
    assert of([1, 2, 5], served=5, kills_ms=[3100]).lost == (4,)


def test_a_kill_elsewhere_explains_nothing() -> None:
    assert of([1, 2, 4, 5, 6, 7], served=7, kills_ms=[6500]).lost == (3,)


def test_a_doubled_number_never_balances() -> None:
    done = of([1, 2, 2], served=2, kills_ms=[1, 2, 3])
    assert (done.doubled, done.balanced) == ((2,), False)


def test_another_metric_with_fewer_values_never_balances() -> None:
    assert of([1, 2], served=2, others=1).uneven == ("flow",)
