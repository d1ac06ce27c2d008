"""Who is wrong too often waits; who is right is never counted."""

from __future__ import annotations

from gateway.attempts import REMEMBERED, Attempts


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_so_many_failures_are_looked_at_and_then_one_at_a_time() -> None:
    clock = Clock()
    attempts = Attempts(3, 60, clock=clock)
    for _ in range(3):
        assert attempts.wait(["a"]) == 0
        attempts.failed(["a"])
    assert attempts.wait(["a"]) == 20
    assert attempts.wait(["b"]) == 0, "somebody else"
    clock.now += 19.9
    assert attempts.wait(["a"]) > 0
    clock.now += 0.2
    assert attempts.wait(["a"]) == 0
    attempts.failed(["a"])
    assert 19 < attempts.wait(["a"]) <= 20
    clock.now += 60
    assert attempts.wait(["a"]) == 0


def test_whoever_is_stopped_for_one_reason_is_stopped() -> None:
    attempts = Attempts(1, 10, clock=Clock())
    attempts.failed(["address"])
    assert attempts.wait(["unit", "address"]) == 10
    assert attempts.wait([]) == 0


def test_only_so_many_are_remembered() -> None:
    attempts = Attempts(1, 10, clock=Clock())
    for number in range(REMEMBERED + 10):
        attempts.failed([str(number)])
    assert attempts.wait(["0"]) == 0
    assert attempts.wait([str(REMEMBERED)]) == 10
