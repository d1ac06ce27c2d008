"""The load generator: HTTP/1.1 over kept-alive connections from one thread, the same for every contestant.

A process of its own, so that its CPU can be told apart: `python -m tests.load.generator JOB` reads a job (see `Job`),
drives it, and prints one line of JSON (see `Driven`). Requests are rendered by the caller beforehand and sent as they
are; of an answer only the status and, where the job keeps them, the bodies are looked at.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from array import array
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path

ANSWER_DEADLINE = 30.0
"""Seconds for the answers still outstanding when the load stops."""
PAUSE_AFTER_REFUSAL = 0.02
"""A caller told to come back later does not come back at once."""


@dataclass(frozen=True)
class Job:
    """What to send where, how fast and for how long."""

    host: str
    port: int
    connections: int
    requests: str
    """File of the rendered requests, one after the other; beside it `.lengths`, their lengths as 32-bit integers."""
    first: int
    """Index of the first request to send; they are sent in order, each once."""
    seconds: float
    rate: float | None = None
    """Requests per second on a schedule; None: each connection sends its next as soon as it has its answer."""
    expect: tuple[int, ...] = (201, 202)
    keep: bool = False
    """Keep the times and bodies of the answers (for paced loads)."""
    limit: int | None = None
    """Stop after so many requests, whatever the time."""


@dataclass
class Driven:
    """What came of a job. Instants are of the machine's monotonic clock."""

    started_at: float = 0.0
    stopped_at: float = 0.0
    """When the last answer came."""
    sent: int = 0
    accepted: int = 0
    refused: int = 0
    broken: int = 0
    """Connections lost with a request on them, and answers that never came."""
    exhausted: bool = False
    """The rendered requests ran out before the time did."""
    cpu_seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    first_refusal: str | None = None
    due: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    """Which request each kept answer belongs to, counted from the first of the file."""


class Connection:
    """One kept-alive connection with at most one request on it."""

    __slots__ = ("buffer", "due", "index", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = b""
        """The beginning of an answer that has not come whole."""
        self.due = 0.0
        """When the request on it was to be sent."""
        self.index = 0


def whole_answer(data: bytes) -> tuple[int, bytes] | None:
    """Status and body, or None while some of it is missing. Servers here always say the length."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    at = data.find(b"ength: ", 0, head)  # Content-Length, however it is capitalised
    if at < 0:
        raise ValueError(f"an answer without Content-Length: {data[:120]!r}")
    length = int(data[at + 7 : data.index(b"\r", at)])
    if len(data) < head + 4 + length:
        return None
    return int(data[9:12]), data[head + 4 : head + 4 + length]


class Generator:
    """Drives one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.address = (job.host, job.port)
        self.selector = selectors.DefaultSelector()
        self.idle: deque[Connection] = deque()
        self.resting: deque[tuple[float, Connection]] = deque()
        """Connections whose last request was refused, and until when they rest."""
        self.busy = 0
        self.done = Driven()
        self.requests = _requests(Path(job.requests), job.first)
        self.next = 0
        self.last = len(self.requests) if job.limit is None else min(job.limit, len(self.requests))

    def run(self) -> Driven:
        """Send until the time is over, then wait for the outstanding answers."""
        for _ in range(self.job.connections):
            self._open()
        cpu = time.process_time()
        self.done.started_at = time.monotonic()
        end = self.done.started_at + self.job.seconds
        (self._paced if self.job.rate else self._saturating)(end)
        patience = time.monotonic() + ANSWER_DEADLINE
        while self.busy and time.monotonic() < patience:
            self._take(0.1)
        self.done.stopped_at = self.done.stopped_at or time.monotonic()
        self.done.broken += self.busy
        self.done.sent = self.next
        self.done.exhausted = self.next >= len(self.requests) and self.job.limit is None
        self.done.cpu_seconds = time.process_time() - cpu
        return self.done

    def _saturating(self, end: float) -> None:
        while self.next < self.last and (now := time.monotonic()) < end:
            self._rested(now)
            while self.idle and self.next < self.last:
                self._send(self.idle.popleft(), now)
            self._take(0.01 if self.resting else 0.1)

    def _paced(self, end: float) -> None:
        assert self.job.rate
        gap = 1 / self.job.rate
        due = self.done.started_at
        while self.next < self.last and due < end:
            now = time.monotonic()
            self._rested(now)
            was_free = bool(self.idle)
            while due <= now and self.idle and self.next < self.last:
                # The generator's own lateness (a timer of the system is a millisecond coarse) is nobody's latency; time
                # spent waiting for a free connection is.
                self._send(self.idle.popleft(), now if was_free else due)
                due += gap
            self._take(min(max(0.0, due - time.monotonic()), 0.05) if self.idle else 0.05)

    def _rested(self, now: float) -> None:
        while self.resting and self.resting[0][0] <= now:
            self.idle.append(self.resting.popleft()[1])

    def _open(self) -> None:
        connection = Connection(self.address)
        self.selector.register(connection.socket, selectors.EVENT_READ, connection)
        self.idle.append(connection)

    def _send(self, connection: Connection, due: float) -> None:
        request = self.requests[self.next]
        connection.index = self.next
        self.next += 1
        self.busy += 1
        connection.due = due
        try:
            sent = connection.socket.send(request)
        except OSError:
            self._lost(connection)
            return
        if sent != len(request):
            raise RuntimeError("a request did not fit into the socket's buffer")

    def _take(self, timeout: float) -> None:
        for key, _ in self.selector.select(timeout):
            connection: Connection = key.data
            try:
                data = connection.socket.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._lost(connection)
                continue
            if connection.buffer:
                data = connection.buffer + data
            answer = whole_answer(data)
            if answer is None:
                connection.buffer = data
                continue
            connection.buffer = b""
            self.busy -= 1
            self._settle(connection, *answer)

    def _settle(self, connection: Connection, status: int, body: bytes) -> None:
        done = self.done
        now = done.stopped_at = time.monotonic()
        if status in self.job.expect:
            done.accepted += 1
            self.idle.append(connection)
            if self.job.keep:
                done.due.append(connection.due)
                done.answered.append(now)
                done.bodies.append(body.decode())
                done.indexes.append(self.job.first + connection.index)
            return
        done.refused += 1
        done.statuses[str(status)] = done.statuses.get(str(status), 0) + 1
        if done.first_refusal is None:
            done.first_refusal = f"{status} {body[:500].decode(errors='replace')}"
        self.resting.append((now + PAUSE_AFTER_REFUSAL, connection))

    def _lost(self, connection: Connection) -> None:
        self.selector.unregister(connection.socket)
        connection.socket.close()
        if connection in self.idle:
            self.idle.remove(connection)
        else:
            self.busy -= 1
            self.done.broken += 1
        self._open()


def write_requests(path: Path, requests: list[bytes]) -> None:
    """Leave rendered requests where a job finds them."""
    path.write_bytes(b"".join(requests))
    path.with_suffix(".lengths").write_bytes(array("I", map(len, requests)).tobytes())


def _requests(path: Path, first: int) -> list[bytes]:
    lengths = array("I")
    lengths.frombytes(path.with_suffix(".lengths").read_bytes())
    data = path.read_bytes()
    requests = []
    at = 0
    for length in lengths:
        requests.append(data[at : at + length])
        at += length
    return requests[first:]


def main() -> None:
    """Run the job in the named file."""
    told = json.loads(Path(sys.argv[1]).read_text())
    told["expect"] = tuple(told["expect"])
    sys.stdout.write(json.dumps(asdict(Generator(Job(**told)).run())) + "\n")


if __name__ == "__main__":
    main()
