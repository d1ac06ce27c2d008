"""Metrics: their names, labels and buckets, in one place. A label never names a unit, patient, command or fingerprint.

One `Metrics` per process, with a registry of its own. A metric is registered when it is first asked for, so a process
shows only what it has a part in; ask at start for what must be seen at zero.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: answers and stages of a command."""
SLOW: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0)
"""Seconds: waits of people, lags after an outage."""
BATCHES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """Every metric of the system, by name without the `carespine_` prefix."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def exposition(self) -> bytes:
        """The text Prometheus reads."""
        return generate_latest(self.registry)

    # HTTP
    @cached_property
    def http_requests(self) -> Counter:
        return self._counter("http_requests", "HTTP requests answered", "route", "method", "code")

    @cached_property
    def http_request_duration_seconds(self) -> Histogram:
        return self._histogram("http_request_duration_seconds", "From request to answer", FAST, "route", "method")

    @cached_property
    def auth_failures(self) -> Counter:
        return self._counter("auth_failures", "Requests and hellos with a token that does not let in", "reason")

    # Commands
    @cached_property
    def commands_accepted(self) -> Counter:
        return self._counter("commands_accepted", "Commands the broker has confirmed", "context", "type")

    @cached_property
    def commands_settled(self) -> Counter:
        return self._counter("commands_settled", "Commands with a final answer", "outcome")

    @cached_property
    def decide_duration_seconds(self) -> Histogram:
        return self._histogram("decide_duration_seconds", "Deciding the commands of one transaction", FAST)

    # Broker
    @cached_property
    def publish_confirm_duration_seconds(self) -> Histogram:
        return self._histogram("publish_confirm_duration_seconds", "From publish to the broker's confirm", FAST)

    @cached_property
    def publish_failures(self) -> Counter:
        return self._counter("publish_failures", "Publishes that raised", "reason")

    @cached_property
    def consumers_expected(self) -> Gauge:
        return self._gauge("consumers_expected", "Queues this process means to consume", "queue")

    @cached_property
    def consumers_actual(self) -> Gauge:
        return self._gauge("consumers_actual", "Queues this process consumes", "queue")

    # Event store
    @cached_property
    def append_duration_seconds(self) -> Histogram:
        return self._histogram("append_duration_seconds", "The appending transaction", FAST)

    @cached_property
    def append_batch_size(self) -> Histogram:
        return self._histogram("append_batch_size", "Commands in one appending transaction", BATCHES)

    @cached_property
    def append_conflicts(self) -> Counter:
        return self._counter("append_conflicts", "Appends decided again because a version was lost")

    # Projections
    @cached_property
    def projection_lag_events(self) -> Gauge:
        return self._gauge("projection_lag_events", "Events written and not yet projected", "read_model", "partition")

    @cached_property
    def projection_lag_seconds(self) -> Gauge:
        return self._gauge("projection_lag_seconds", "Age of the oldest unprojected event", "read_model", "partition")

    @cached_property
    def projection_events(self) -> Counter:
        return self._counter("projection_events", "Events projected", "read_model")

    @cached_property
    def projection_held(self) -> Gauge:
        return self._gauge("projection_held", "Facts a read model could not apply, kept aside", "read_model")

    # Dead letters
    @cached_property
    def dead_letters(self) -> Counter:
        return self._counter("dead_letters", "Dead letters filed", "reason", "origin")

    @cached_property
    def replay_letters(self) -> Counter:
        return self._counter("replay_letters", "Dead letters sent again", "outcome")

    # Units
    @cached_property
    def units(self) -> Gauge:
        """state: connected, catching_up, unleased (links of this bridge), unreachable, contested (of the network)."""
        return self._gauge("units", "Units by state", "state")

    @cached_property
    def unit_connections(self) -> Gauge:
        return self._gauge("unit_connections", "Unit links this bridge holds")

    @cached_property
    def unit_hello(self) -> Counter:
        return self._counter("unit_hello", "Hellos answered", "result")

    @cached_property
    def unit_renewals(self) -> Counter:
        return self._counter("unit_renewals", "Credentials renewed in a session", "result")

    @cached_property
    def unit_fenced(self) -> Counter:
        return self._counter("unit_fenced", "Sessions ended because a newer one holds the unit")

    @cached_property
    def unit_closes(self) -> Counter:
        return self._counter("unit_closes", "Links closed", "code")

    @cached_property
    def connects_turned_away(self) -> Counter:
        """reason: leaving, rate, unit_rate."""
        return self._counter(
            "connects_turned_away", "Connections told to come back later, before the upgrade", "reason"
        )

    @cached_property
    def unit_throttled(self) -> Counter:
        return self._counter("unit_throttled", "Links that were read from more slowly, for sending too much")

    @cached_property
    def unit_feed_lag_seconds(self) -> Histogram:
        return self._histogram("unit_feed_lag_seconds", "From recorded to acknowledged by the unit", SLOW)

    @cached_property
    def unit_delivery_duration_seconds(self) -> Histogram:
        return self._histogram("unit_delivery_duration_seconds", "From pushed to acknowledged by the unit", FAST)

    @cached_property
    def unit_calls(self) -> Counter:
        return self._counter("unit_calls", "Live calls to units", "result")

    @cached_property
    def unit_call_duration_seconds(self) -> Histogram:
        return self._histogram("unit_call_duration_seconds", "Live calls to units", FAST, "result")

    # Portals
    @cached_property
    def portals(self) -> Gauge:
        return self._gauge("portals", "Portals connected here: socket, stream", "way")

    @cached_property
    def portal_events(self) -> Counter:
        return self._counter("portal_events", "Events shown to portals, each once however many follow", "event")

    @cached_property
    def portal_conflated(self) -> Counter:
        return self._counter("portal_conflated", "Events not sent because a newer one made them needless")

    @cached_property
    def portal_closes(self) -> Counter:
        return self._counter("portal_closes", "Portals closed", "code")

    @cached_property
    def portal_delivery_duration_seconds(self) -> Histogram:
        return self._histogram("portal_delivery_duration_seconds", "From recorded to written to portals", FAST)

    # Agent
    @cached_property
    def agent_outbox_messages(self) -> Gauge:
        return self._gauge("agent_outbox_messages", "Commands made here that wait to go up")

    @cached_property
    def agent_conflicts(self) -> Counter:
        return self._counter("agent_conflicts", "Commands made here that the centre did not carry out", "code")

    @cached_property
    def agent_conflicts_open(self) -> Gauge:
        return self._gauge("agent_conflicts_open", "Such commands that nobody at the site has taken note of")

    @cached_property
    def agent_journal_bytes(self) -> Gauge:
        return self._gauge("agent_journal_bytes", "Size of the local store")

    @cached_property
    def agent_hl7_received(self) -> Counter:
        """result: taken, repeated, refused."""
        return self._counter("agent_hl7_received", "HL7 v2 messages that came in", "result")

    @cached_property
    def agent_hl7_waiting(self) -> Gauge:
        """state: waiting, set_aside."""
        return self._gauge("agent_hl7_waiting", "HL7 v2 messages that are to go out", "state")

    @cached_property
    def agent_room_short(self) -> Gauge:
        return self._gauge("agent_room_short", "1 while the disk has no room for anything new")

    @cached_property
    def agent_disk_free_bytes(self) -> Gauge:
        return self._gauge("agent_disk_free_bytes", "What the disk under the local store has left")

    @cached_property
    def agent_connected(self) -> Gauge:
        return self._gauge("agent_connected", "1 while the link is up")

    @cached_property
    def agent_clock_skew_seconds(self) -> Gauge:
        return self._gauge("agent_clock_skew_seconds", "Our clock against the bridge's")

    @cached_property
    def agent_last_ack_timestamp_seconds(self) -> Gauge:
        return self._gauge("agent_last_ack_timestamp_seconds", "When a position was last acknowledged")

    # What runs
    @cached_property
    def build(self) -> Info:
        return Info("carespine_build", "What runs: its version", registry=self.registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:  # noqa: A002 - Prometheus' own word
        return Counter(f"carespine_{name}", help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:  # noqa: A002 - Prometheus' own word
        return Gauge(f"carespine_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:  # noqa: A002
        return Histogram(f"carespine_{name}", help, labels, buckets=buckets, registry=self.registry)
