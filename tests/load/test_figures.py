"""The benchmark's arithmetic: what it says of numbers that are known."""

from __future__ import annotations

import pytest

from tests.load.figures import ACCEPTED, END_TO_END, VISIBLE_P99, Flow, best, holds, percentile, spread
from tests.load.generator import whole_answer
from tests.load.processes import spent
from tests.load.workload import CLASSES, check_ins, rendered, stand_in, units


def flow(**known: float) -> Flow:
    return Flow(
        accepted=int(known.get("accepted", 1000)), refused=0, accept_seconds=known.get("accept", 2.0),
        drained_seconds=known.get("drained", 4.0), backlog=int(known.get("backlog", 500)),
        cpu_seconds={"gateway": 0.1, "postgres": 0.4, "generator": 0.5, "watcher": 0.2},
    )  # fmt: skip


def test_the_99th_percentile_of_a_hundred_is_the_99th_smallest() -> None:
    samples = [float(number) for number in range(100, 0, -1)]
    assert percentile(samples, 0.99) == 99
    assert percentile(samples, 0.50) == 50


def test_the_percentile_of_one_sample_is_that_sample() -> None:
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_a_spread_is_told_in_milliseconds() -> None:
    found = spread([0.001, 0.002, 0.003])
    assert (found.count, found.p50, found.p99, found.worst) == (3, 2, 3, 3)


def test_a_backlog_counts_with_the_time_it_took_to_work_off() -> None:
    assert flow().accepted_rate == 500
    assert flow().end_to_end_rate == 250


def test_cpu_is_told_per_check_in() -> None:
    assert flow().cpu_microseconds() == pytest.approx(
        {"gateway": 100, "postgres": 400, "generator": 500, "watcher": 200}
    )


def test_who_only_measures_is_not_counted_against_the_contestant() -> None:
    assert flow().per_cpu_second() == pytest.approx(2000)


def test_the_round_that_was_disturbed_least_counts() -> None:
    undisturbed = flow(accepted=3000, accept=3.0, drained=4.0)
    assert best([flow(accepted=1000, accept=1.0, drained=4.0), undisturbed, flow(drained=8.0)]) is undisturbed


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.19, "not met"), (1.2, "floor met"), (2.49, "floor met"), (2.5, "goal met")]
)
def test_a_ratio_reaches_its_target_from_the_number_on(ratio: float, verdict: str) -> None:
    assert END_TO_END.verdict(ratio) == verdict


def test_the_accepted_target_is_higher() -> None:
    assert ACCEPTED.verdict(1.4) == "not met"


@pytest.mark.parametrize(
    ("ms", "verdict"), [(50.0, "not met"), (49.9, "floor met"), (20.0, "floor met"), (19.9, "goal met")]
)
def test_a_duration_reaches_its_target_below_the_number(ms: float, verdict: str) -> None:
    assert VISIBLE_P99.verdict(ms) == verdict


def test_cpu_spent_is_the_difference_of_two_readings() -> None:
    assert spent({"a": 1.0, "gone": 3.0}, {"a": 1.5}) == {"a": 0.5}


def test_an_answer_is_whole_when_its_body_is() -> None:
    head = b"HTTP/1.1 202 Accepted\r\ncontent-length: 4\r\n\r\n"
    assert whole_answer(head + b"{  }") == (202, b"{  }")
    assert whole_answer(head + b"{ ") is None
    assert whole_answer(head[:-2]) is None


def test_an_answer_without_length_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        whole_answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def test_each_patient_is_checked_in_once_for_each_class() -> None:
    patients = [(unit, stand_in(unit, number)) for number in range(3) for unit in units(5)]
    bodies = [errand.body for errand in check_ins(patients)]
    assert len(bodies) == len(set(bodies)) == len(patients) * len(CLASSES)


def test_a_rendered_request_says_the_length_of_its_body() -> None:
    errand = check_ins([("bench-0000", stand_in("bench-0000", 0))])[0]
    request = rendered(
        [errand], path="/api/check-in", token=lambda unit: f"token-of-{unit}", headers=["Prefer: wait=5"]
    )[0]
    head, body = request.split(b"\r\n\r\n")
    assert body == errand.body
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Authorization: Bearer token-of-bench-0000" in head


def test_a_pace_holds_when_only_what_is_under_way_is_left() -> None:
    assert holds(flow(accepted=1000, accept=2.0, backlog=100))
    assert not holds(flow(accepted=1000, accept=2.0, backlog=200))
