"""A hospital's own system on a real socket, sending to us and receiving from us; its side is the hl7 library's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import hl7
import pytest
from hl7.mllp import open_hl7_connection, start_hl7_server
from structlog.testing import capture_logs

from contracts.envelope import Json
from contracts.patient import PatientRegistered
from contracts.unit_command import OnReconnect
from tests.kit.commands import new_id
from tests.kit.waiting import eventually
from tests.unit_agent.hl7v2.adt import PID, PV1, UNIT, adt, agent, outbox_of
from tests.unit_agent.test_cli import certificate
from tests.unit_agent.told import frame, told
from unit_agent.connectors import Declined, Done, NotDone, Unsure
from unit_agent.hl7v2 import inbox, outgoing
from unit_agent.hl7v2.listener import Listener
from unit_agent.hl7v2.options import Listen, Send
from unit_agent.hl7v2.sender import NotAnswered, Sender
from unit_agent.link_state import Shared
from unit_agent.mailbox import Order

NOW = datetime.now(UTC)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    with agent(tmp_path) as one:
        yield one


@asynccontextmanager
async def listening(shared: Shared, **options: object) -> AsyncIterator[Listener]:
    listener = Listener(Listen.model_validate({"port": 0, **options}), shared)
    async with listener.serving():
        yield listener


async def say(listener: Listener, content: bytes) -> hl7.Message:
    """Send one message on a connection of its own, as the library does."""
    async with asyncio.timeout(10):
        reader, writer = await open_hl7_connection("127.0.0.1", listener.port, encoding="utf-8")
        try:
            writer.writeblock(content)
            await writer.drain()
            return await reader.readmessage()
        finally:
            writer.close()


async def test_a_message_is_acknowledged_and_on_disk(shared: Shared) -> None:
    async with listening(shared) as listener:
        answer = await say(listener, adt("A04", PID, PV1, control_id="HIS-1"))
    assert str(answer.segment("MSA")) == "MSA|AA|HIS-1|"
    assert str(answer.segment("MSH")[5]) == "HIS"
    assert str(answer.segment("MSH")[9]) == "ACK^A04^ACK"
    assert len(outbox_of(shared)) == 2
    assert shared.outbox_changed.is_set()


async def test_several_messages_in_one_segment_are_answered_one_by_one_in_order(shared: Shared) -> None:
    stream = b"".join(
        b"\x0b" + adt("A28", PID.replace("4711", str(number)), control_id=str(number)) + b"\x1c\r"
        for number in range(20)
    )
    async with listening(shared) as listener, asyncio.timeout(20):
        reader, writer = await open_hl7_connection("127.0.0.1", listener.port, encoding="utf-8")
        writer.write(stream[:-700])
        await writer.drain()
        writer.write(stream[-700:])
        answers = [str((await reader.readmessage()).segment("MSA")) for _ in range(20)]
        writer.close()
    assert answers == [f"MSA|AA|{number}|" for number in range(20)]
    assert len(outbox_of(shared)) == 20


async def test_a_message_byte_by_byte_is_a_message(shared: Shared) -> None:
    async with listening(shared) as listener, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        for byte in b"\x0b" + adt("A28", PID) + b"\x1c\r":
            writer.write(bytes([byte]))
            await writer.drain()
        assert b"MSA|AA|1|" in await reader.readuntil(b"\x1c\r")
        writer.close()


async def test_what_is_refused_is_answered_with_the_reason_and_leaves_no_data_in_the_log(shared: Shared) -> None:
    async with listening(shared) as listener:
        with capture_logs() as lines:
            answer = await say(listener, adt("A08", PID, control_id="9"))
            rejected = await say(listener, adt("A40", PID, control_id="10"))
    assert str(answer.segment("MSA")) == "MSA|AE|9|PID-3 is not the number of a patient known here"
    assert (str(answer.segment("ERR")[3]), str(answer.segment("ERR")[4])) == ("204", "E")
    assert str(rejected.segment("MSA")).startswith("MSA|AR|10|events taken here")
    said = str(lines)
    assert "hl7_refused" in said
    assert not any(word in said for word in ("Nyberg", "Ottoline", "4711", "1980"))


async def test_an_oversized_message_is_rejected_and_the_next_on_that_connection_taken(shared: Shared) -> None:
    async with listening(shared, largest_bytes=4096) as listener, asyncio.timeout(10):
        reader, writer = await open_hl7_connection("127.0.0.1", listener.port, encoding="utf-8")
        writer.writeblock(adt("A28", PID, "NTE|1||" + "x" * 1_000_000, control_id="big"))
        assert str((await reader.readmessage()).segment("MSA")) == "MSA|AR|big|more than 4096 bytes"
        writer.writeblock(adt("A28", PID, control_id="small"))
        assert str((await reader.readmessage()).segment("MSA")) == "MSA|AA|small|"
        writer.close()


async def test_rubbish_is_rejected_and_the_connection_lives_on(shared: Shared) -> None:
    async with listening(shared) as listener, asyncio.timeout(10):
        reader, writer = await open_hl7_connection("127.0.0.1", listener.port, encoding="utf-8")
        writer.write(b"GET / HTTP/1.1\r\n\r\n\x0bwhat\x1c\r\x0bMSH|^~\\&|unfinished")
        writer.writeblock(adt("A28", PID, control_id="2"))
        answers = [str((await reader.readmessage()).segment("MSA")) for _ in range(2)]
        writer.close()
    assert answers == ["MSA|AR||the message does not begin with MSH", "MSA|AA|2|"]


async def test_only_so_many_connections_and_only_from_where_it_may(shared: Shared) -> None:
    async with listening(shared, connections=1) as listener, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        await eventually(lambda: listener.figures.connections == 1)
        second, other = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await second.read() == b""
        other.close()
        writer.close()
        assert await reader.read() == b""
    async with listening(shared, allow=["10.0.0.0/8"]) as listener, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await reader.read() == b""
        writer.close()


async def test_a_store_that_cannot_be_written_is_answered_ae_and_the_message_taken_later(shared: Shared) -> None:
    pages = shared.store.db.execute("PRAGMA page_count").fetchone()[0]
    async with listening(shared) as listener:
        shared.store.db.execute(f"PRAGMA max_page_count = {pages + 2:d}")
        big = adt("A28", PID, "NTE|1||" + "x" * 100_000, control_id="1")
        answer = await say(listener, big)
        assert str(answer.segment("MSA")).startswith("MSA|AE|1|it could not be written here")
        assert outbox_of(shared) == []
        shared.store.db.execute("PRAGMA max_page_count = 100000")
        assert str((await say(listener, big)).segment("MSA")) == "MSA|AA|1|"
    assert len(outbox_of(shared)) == 1


async def test_a_disk_without_room_is_answered_ae(shared: Shared) -> None:
    async with listening(shared) as listener:
        shared.room.state = "short"
        answer = await say(listener, adt("A28", PID))
        assert str(answer.segment("MSA")).startswith("MSA|AE|1|no room on this disk now")
        shared.room.state = "enough"
        assert str((await say(listener, adt("A28", PID))).segment("MSA")) == "MSA|AA|1|"


async def test_a_defect_over_one_message_does_not_end_the_agent(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(shared) as listener:
        monkeypatch.setattr(inbox, "understood", lambda *arguments: 1 / 0)
        with capture_logs() as lines:
            answer = await say(listener, adt("A28", PID))
        monkeypatch.undo()
        assert str(answer.segment("MSA")).startswith("MSA|AR|1|this agent cannot read it")
        assert lines[-1]["error_type"] == "ZeroDivisionError"
        assert str((await say(listener, adt("A28", PID))).segment("MSA")) == "MSA|AA|1|"


async def test_only_who_has_a_certificate_may_talk_where_it_is_asked_for(shared: Shared, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, days=30)
    files = {"certificate": str(cert), "key": str(key), "authorities": str(cert)}
    async with listening(shared, **files) as listener:
        options = {"facts": {}, "commands": {"record.push": "A28"}, "host": "localhost", "tls": True}
        async with sending(shared, port=listener.port, **options, **files) as sender:
            with pytest.raises(NotAnswered):
                await sender.exchange("MSH|^~\\&|", "1")  # let in, and answered as what it is: another control id
        async with sending(shared, port=listener.port, **options, authorities=str(cert)) as sender:
            with pytest.raises(NotAnswered):
                await sender.exchange(adt("A28", PID).decode(), "1")
        assert listener.figures.refused == 1
        async with sending(shared, port=listener.port, **options, **files) as sender:
            assert await sender.exchange(adt("A28", PID).decode(), "1") == ("AA", "")
        assert listener.figures.taken == 1


@dataclass
class Receiver:
    """A system that gets our messages: what it got, and what it says."""

    port: int = 0
    got: list[hl7.Message] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """Said one after the other, `hang up` and `nothing` among them; then AA."""

    @property
    def ids(self) -> list[str]:
        return [str(message.segment("MSH")[10]) for message in self.got]


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    writers: list[hl7.mllp.HL7StreamWriter] = []

    async def serve(reader: hl7.mllp.HL7StreamReader, writer: hl7.mllp.HL7StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message = await reader.readmessage()
                receiver.got.append(message)
                say = receiver.answers.pop(0) if receiver.answers else "AA"
                if say == "hang up":
                    break
                if say != "nothing":
                    msh = str(message.segment("MSH")).split("|")
                    answer = f"MSH|^~\\&|R|R|S|S|20260302||ACK|1|P|2.5\rMSA|{say}|{msh[9]}\r"
                    writer.writeblock(answer.encode())
        writer.close()

    server = await start_hl7_server(serve, "127.0.0.1", port, encoding="utf-8")
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def sending(shared: Shared, **options: object) -> AsyncIterator[Sender]:
    sender = Sender(Send.model_validate({"timeout_seconds": 0.5, **options}), shared)
    await sender.prepare()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(sender.serve())
        try:
            yield sender
        finally:
            task.cancel()
            shared.store.learners.clear()


def registered(name: str = "Ottoline") -> PatientRegistered:
    return PatientRegistered.model_validate(
        {
            "patientId": str(new_id()), "medicalRecordNumber": name, "firstName": name, "lastName": "Nyberg",
            "dateOfBirth": "1980-02-29",
        }
    )  # fmt: skip


async def report(shared: Shared) -> Json:
    """Where sending stands, asked in the store's turn."""
    return await shared.store.run(outgoing.report, shared.store.db)


async def has_sent(shared: Shared, count: int) -> bool:
    return bool((await report(shared))["sent"] == count)


async def happens(
    shared: Shared, position: int, name: str = "Ottoline", *, command_id: UUID | None = None
) -> PatientRegistered:
    """The feed tells of somebody who was registered just now."""
    person = registered(name)
    fact = told(position, person, command_id=command_id)
    fact = fact.model_copy(update={"recorded_at": datetime.now(UTC) + timedelta(minutes=1)})
    await shared.store.run(shared.store.take, [frame(fact, after=position - 1)], head=position, now=NOW)
    return person


async def test_facts_are_sent_in_the_feed_s_order_though_the_receiver_fails(shared: Shared) -> None:
    async with receiving() as receiver:
        receiver.answers = ["AE", "hang up", "AA", "nothing", "AA", "AA"]
        async with sending(shared, port=receiver.port):
            for position in (1, 2, 3):
                await happens(shared, position, f"P{position}")
            await eventually(lambda: has_sent(shared, 3), within=20)
    assert receiver.ids == ["F1", "F1", "F1", "F2", "F2", "F3"]
    assert [str(message.segment("PID")[5]) for message in receiver.got][-1] == "Nyberg^P3"
    assert (await report(shared))["position"] == 3
    assert outgoing.following(shared.store.db) is None


async def test_what_waits_to_be_sent_survives_the_agent_and_a_receiver_that_is_not_there(shared: Shared) -> None:
    async with receiving() as receiver:
        port = receiver.port
    async with sending(shared, port=port) as sender:
        await happens(shared, 1)
        await eventually(lambda: sender.trouble is not None, what="the receiver is missed")
    assert (await report(shared))["waiting"] == 1
    async with receiving() as receiver, sending(shared, port=receiver.port) as sender:
        await eventually(lambda: receiver.ids == ["F1"])
        await eventually(lambda: sender.trouble is None)


async def test_a_message_the_receiver_will_not_have_is_set_aside_and_does_not_hold_up_the_rest(shared: Shared) -> None:
    async with receiving() as receiver:
        receiver.answers = ["AR", "AA", "AE", "AE"]
        async with sending(shared, port=receiver.port, attempts=2):
            for position in (1, 2, 3, 4):
                await happens(shared, position, f"P{position}")
            await eventually(lambda: receiver.ids == ["F1", "F2", "F3", "F3", "F4"], within=20)
            await eventually(lambda: has_sent(shared, 2))
            assert (await report(shared))["setAside"] == 2
            await shared.store.run(outgoing.send_again, shared.store)
            await eventually(lambda: receiver.ids[5:] == ["F1", "F3"], within=20)


async def test_nobody_is_told_what_they_told_us_nor_what_was_before(shared: Shared) -> None:
    inbox.take(shared.store, UNIT, adt("A28", PID), Listen(), now=NOW)
    [(command_id,)] = shared.store.db.execute("SELECT command_id FROM hl7_commands")
    async with receiving() as receiver, sending(shared, port=receiver.port):
        old = told(1, registered())  # recorded long before the interface was configured
        await shared.store.run(shared.store.take, [frame(old)], head=1, now=NOW)
        await happens(shared, 2, command_id=UUID(command_id))
        await happens(shared, 3)
        await eventually(lambda: receiver.ids == ["F3"])


def order(person: PatientRegistered) -> Order:
    return Order(
        id=new_id(), unit_id=UNIT, type="record.push", payload={}, patient_id=str(person.patient_id),
        deadline=NOW + timedelta(hours=1), on_reconnect=OnReconnect.RUN, late=False, attempts=1,
        attempt=1, in_doubt=False, erased=False,
    )  # fmt: skip


async def test_a_unit_command_is_done_when_the_receiver_has_acknowledged_it(shared: Shared) -> None:
    options = {"facts": {}, "commands": {"record.push": "A31"}}
    async with receiving() as receiver, sending(shared, port=receiver.port, **options) as sender:
        receiver.answers = ["AA", "AR", "AE", "AA", "nothing"]
        person = await happens(shared, 1)
        first, second, third, fourth = (order(person) for _ in range(4))
        assert await sender.ask(first) == NotDone()
        assert await sender.run(first) == Done({"acknowledged": "AA"})
        assert (await sender.ask(first), await sender.run(first)) == (Done({"acknowledged": "AA"}),) * 2
        assert await sender.run(second) == Declined("hl7_ar")
        assert await sender.run(third) == Unsure("hl7_ae")
        assert await sender.ask(third) == NotDone()
        assert await sender.run(third) == Done({"acknowledged": "AA"})
        assert await sender.run(fourth) == Unsure("TimeoutError")
        assert await sender.ask(fourth) is None
        assert await sender.run(order(registered())) == Declined("patient_unknown")
    assert len(receiver.got) == 5
    assert receiver.ids[2] == receiver.ids[3]
