"""The demonstration's account: it balances only where every served reading is stored once."""

from use_cases.water_network.demo.account import account


def test_every_number_once_balances() -> None:
    done = account("gw-1", 5, [5.0, 1.0, 2.0, 3.0, 4.0], kills=0)
    assert done.balanced
    assert done.stored == 5


def test_a_missing_number_is_a_loss() -> None:
    done = account("gw-1", 5, [1.0, 2.0, 4.0, 5.0], kills=0)
    assert (done.missing, done.lost, done.balanced) == ((3,), 1, False)


def test_a_kill_explains_one_missing_number_and_no_more() -> None:
    assert account("gw-1", 5, [1.0, 2.0, 4.0, 5.0], kills=1).balanced
    assert account("gw-1", 5, [1.0, 2.0, 5.0], kills=1).lost == 1


def test_a_doubled_number_never_balances() -> None:
    done = account("gw-1", 2, [1.0, 2.0, 2.0], kills=3)
    assert (done.doubled, done.balanced) == ((2,), False)
