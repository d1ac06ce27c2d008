"""Virtual hosts of a RabbitMQ through its management interface: a fresh, empty broker in 20 ms.

For a broker that was given to us the interface is looked for on the usual port; where it does not answer, callers
share the one virtual host they were given.
"""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx

from infra.services.detached import ServiceTrouble

USUAL_PORT = 15672
DEADLINE = 10.0


def management_of(rabbitmq_url: str) -> str | None:
    """The management URL of the broker behind an AMQP URL, if it answers on the usual port to the same login."""
    parts = urlsplit(rabbitmq_url)
    login = f"{parts.username}:{parts.password}@" if parts.username else ""
    guess = f"http://{login}{parts.hostname}:{USUAL_PORT}"
    try:
        answer = httpx.get(f"{guess}/api/whoami", timeout=2, trust_env=False)
    except httpx.HTTPError:
        return None
    return guess if answer.is_success else None


def create(management_url: str, name: str, *, rabbitmq_url: str) -> str:
    """Make a virtual host that the user of the AMQP URL may do everything in; answers the AMQP URL of it."""
    parts = urlsplit(rabbitmq_url)
    user = quote(unquote(parts.username or "guest"), safe="")
    _put(management_url, f"/api/vhosts/{quote(name, safe='')}", {})
    _put(
        management_url,
        f"/api/permissions/{quote(name, safe='')}/{user}",
        {"configure": ".*", "write": ".*", "read": ".*"},
    )
    return urlunsplit((parts.scheme, parts.netloc, "/" + quote(name, safe=""), parts.query, ""))


def delete(management_url: str, name: str) -> None:
    """Remove a virtual host with all it holds; its connections are closed by the broker."""
    answer = httpx.delete(f"{management_url}/api/vhosts/{quote(name, safe='')}", timeout=DEADLINE, trust_env=False)
    if answer.status_code not in (204, 404):
        raise ServiceTrouble(
            f"RabbitMQ did not remove the virtual host {name}: {answer.status_code} {answer.text[:200]}"
        )


def _put(management_url: str, path: str, body: dict[str, str]) -> None:
    answer = httpx.put(f"{management_url}{path}", json=body, timeout=DEADLINE, trust_env=False)
    if answer.status_code not in (201, 204):
        raise ServiceTrouble(f"RabbitMQ refused PUT {path}: {answer.status_code} {answer.text[:200]}")
