"""A fresh virtual host for each test, where the broker's management interface answers; else the given one, emptied by
its user.

Every private broker has the interface. A broker given by URL may not: tests then share its virtual host, and it is on
the caller to give one that holds nothing of value.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from infra.services import virtual_hosts
from infra.services.launcher import Services


@contextlib.contextmanager
def fresh_virtual_host(services: Services) -> Iterator[str]:
    """The AMQP URL of an empty virtual host that is removed afterwards with all its connections."""
    if services.management_url is None:
        yield services.rabbitmq_url
        return
    name = f"test-{secrets.token_hex(6)}"
    url = virtual_hosts.create(services.management_url, name, rabbitmq_url=services.rabbitmq_url)
    try:
        yield url
    finally:
        virtual_hosts.delete(services.management_url, name)
