"""Which statements a batch needs: few, each row at most once in each, and every row's facts in their order."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from projections.batch import Reactions, Seen, plan
from projections.catalogue import READ_MODELS
from projections.names import fold
from projections.read_model import Reaction

REACTIONS = Reactions(READ_MODELS)
KINDS = ("queue.PatientEnqueued", "queue.PatientCalled", "queue.ServiceStarted", "encounter.PatientArrived")

facts_of_rows = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 1), st.integers(0, 3)), max_size=40).map(
    lambda drawn: [
        Seen(kind, {"entryId": row, "encounterId": row, "partition": partition, "position": position})
        for position, (kind, partition, row) in enumerate(drawn)
    ]
)


def row_of(reaction: Reaction, row: dict[str, object]) -> tuple[object, ...]:
    return reaction.read_model, row["partition"], row[reaction.key]


@given(facts_of_rows)
def test_every_fact_is_applied_once_and_those_of_a_row_in_order(facts: list[Seen]) -> None:
    applied: dict[tuple[object, ...], list[object]] = defaultdict(list)
    for step in plan(facts, REACTIONS.by_type):
        rows = [row_of(step.reaction, row) for row in step.rows]
        assert len(rows) == len(set(rows)), "no row twice in one statement"
        for row in step.rows:
            applied[row_of(step.reaction, row)].append(row["position"])
    assert sum(map(len, applied.values())) == len(facts)
    assert all(positions == sorted(positions) for positions in applied.values())  # type: ignore[type-var]  # numbers


def test_facts_of_different_rows_share_a_statement_however_they_are_mixed() -> None:
    facts = [Seen(kind, {"entryId": row, "partition": 0, "position": 0}) for row in range(50) for kind in KINDS[:3]]
    assert [len(step.rows) for step in plan(facts, REACTIONS.by_type)] == [50, 50, 50]


def test_every_statement_can_be_built() -> None:
    for reactions in REACTIONS.by_type.values():
        for reaction in reactions:
            assert b"json_to_recordset" in reaction.statement.text


def test_names_are_compared_without_case_accents_and_punctuation_between_words() -> None:
    assert fold("  Müller,  ANNA ") == "muller anna"
    assert fold("José") == fold("jose")
    assert fold("O’Brien") == fold("O'BRIEN") == "o'brien"
    assert fold("Łódź") == fold("łódź")
    assert fold("Straße") == "strasse"
