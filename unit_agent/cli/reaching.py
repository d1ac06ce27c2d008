"""What `doctor` reaches for: the centre step by step, its clock, our credential, the site's own systems."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from contracts.envelope import Json
from infra.findings import Finding
from infra.unit_keys import SKEW
from unit_agent.addresses import is_loopback
from unit_agent.cli.examining import A_DAY, State
from unit_agent.cli.looking import is_running, told_by_the_agent
from unit_agent.configuration import Configuration
from unit_agent.credential import Credential, CredentialUnusable
from unit_agent.keys import KeyFileUnusable, KeyFolder
from unit_agent.tls import client_context

SECONDS: Final = 5.0
CERTIFICATE_DAYS: Final = 14
SKEW_NOTICED: Final = 5.0


@dataclass(frozen=True)
class _Answer:
    """What a server said over HTTP, and what its Date header says of our clock (seconds we are ahead)."""

    status: int
    ahead: float | None


def of_the_credential(folder: Path, unit_id: str, settings: Configuration) -> list[Finding]:
    """The token or key, and how long it lasts."""
    if settings.credential is None:
        return [_key(folder, unit_id)]
    name, expected = "credential.token", f"a token of unit {unit_id} that lasts"
    again = "get another: the centre's operators make one with `carespine token --role unit --unit U`, or enrol"
    credential = Credential(settings.credential)
    try:
        unit, token = credential.unit(), credential.token()
    except CredentialUnusable as why:
        return [Finding(name, "failed", str(why), expected, again)]
    if unit != unit_id:
        return [Finding(name, "failed", f"it is unit {unit}'s", expected, again)]
    ends = _claims(token).get("exp")
    left = (float(ends) - time.time()) if isinstance(ends, int | float) else None
    if left is None:
        return [Finding(name, "ok", f"unit {unit}, without an end", expected, again)]
    end = datetime.fromtimestamp(time.time() + left, UTC).isoformat(timespec="seconds")
    state: State = (
        "failed" if left <= 0 else "warning" if left < A_DAY and not settings.credential.startswith("@") else "ok"
    )
    return [Finding(name, state, f"unit {unit}, {'ended' if left <= 0 else 'until'} {end}", expected, again)]


def _key(folder: Path, unit_id: str) -> Finding:
    name, expected = "credential.key", f"a key that unit {unit_id} enrolled with"
    enrol = "get an enrolment code from the centre's operators, then: unit-agent enrol"
    keys = KeyFolder(folder)
    try:
        key, enrolment = keys.key(), keys.enrolment()
    except KeyFileUnusable as why:
        return Finding(name, "failed", str(why), expected, enrol)
    if key is None or enrolment is None:
        return Finding(name, "failed", "neither a token nor a key", expected, enrol)
    if enrolment.unit_id != unit_id:
        return Finding(name, "failed", f"the key is unit {enrolment.unit_id}'s", expected, enrol)
    return Finding(name, "ok", f"key {enrolment.key_id}, of {enrolment.gateway_url}", expected, enrol)


def of_the_centre(folder: Path, settings: Configuration, link: str | None = None) -> list[Finding]:
    """Name, port, certificate and answer of bridge and gateway; then our clock against theirs.

    `link`: where the centre says that the bridge is.
    """
    gateway = settings.gateway or _enrolled_gateway(folder)
    bridge = settings.url or link or (None if gateway is None else f"ws{gateway.removeprefix('http')}/unit")
    findings: list[Finding] = []
    try:
        tls = client_context(settings.tls)
    except CredentialUnusable as why:
        remedy = "correct [tls] in the configuration, or ask the centre for a certificate of this unit"
        findings.append(Finding("credential.certificate", "failed", str(why), "a certificate and its key", remedy))
        tls = None
    ahead: float | None = None
    for name, url, path, fits in (
        ("bridge", bridge, "", {400, 401, 403, 426, 503}),
        ("gateway", gateway, "/health/live", {200}),
    ):
        if url is None:
            findings.append(
                Finding(
                    f"{name}.address",
                    "warning" if name == "gateway" else "failed",
                    "not configured",
                    f"the centre's {name}",
                    f"give --{'url' if name == 'bridge' else 'gateway'}",
                )
            )
            continue
        for step in _reached(name, "http" + url.removeprefix("ws") if url.startswith("ws") else url, path, fits, tls):
            if isinstance(step, Finding):
                findings.append(step)
            else:
                ahead = step.ahead if step.ahead is not None else ahead
    if ahead is not None:
        far = abs(ahead)
        state: State = "failed" if far > SKEW else "warning" if far > SKEW_NOTICED else "ok"
        findings.append(
            Finding(
                "clock.skew",
                state,
                f"{ahead:+.0f} s against the centre",
                f"within {SKEW_NOTICED:.0f} s",
                "set this machine's clock and keep it set: timedatectl set-ntp true (Windows: w32tm /resync)",
            )
        )
    return findings


def _reached(name: str, url: str, path: str, fits: set[int], tls: ssl.SSLContext | None) -> Iterator[Finding | _Answer]:
    """One step after the other; the first that fails is the last."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    if not secure and not is_loopback(url):
        yield Finding(f"{name}.tls", "failed", "not encrypted", "https or wss", "use the centre's encrypted address")
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as why:
        yield Finding(
            f"{name}.dns",
            "failed",
            f"{host} is not known ({type(why).__name__})",
            "an address",
            "correct the address, or this machine's name server (resolvectl status)",
        )
        return
    yield Finding(f"{name}.dns", "ok", f"{host} is {', '.join(sorted(addresses))}", "an address", "")
    try:
        with socket.create_connection((host, port), timeout=SECONDS) as plain:
            yield Finding(f"{name}.tcp", "ok", f"port {port} answers", "a port that answers", "")
            if secure:
                yield _certificate(name, plain, host, tls)
    except OSError as why:
        yield Finding(
            f"{name}.tcp",
            "failed",
            f"port {port}: {type(why).__name__}",
            "a port that answers",
            f"let this machine out to {host}:{port} (firewall, proxy), or ask the centre",
        )
        return
    try:
        trusted = (tls or ssl.create_default_context()) if secure else True
        with httpx.Client(timeout=SECONDS, trust_env=not is_loopback(url), verify=trusted) as client:
            answer = client.get(url + path)
    except httpx.HTTPError as why:
        yield Finding(
            f"{name}.http",
            "failed",
            type(why).__name__,
            f"an answer within {SECONDS:.0f} s",
            "a proxy in between, or the centre: ask its operators",
        )
        return
    well = answer.status_code in fits
    yield Finding(
        f"{name}.http",
        "ok" if well else "failed",
        f"HTTP {answer.status_code}",
        f"the centre's {name}",
        f"correct the address: something else answers at {parts.path or '/'}",
    )
    yield _Answer(answer.status_code, _ahead(answer))


def _certificate(name: str, plain: socket.socket, host: str, tls: ssl.SSLContext | None) -> Finding:
    expected = f"a certificate this machine trusts, good for {CERTIFICATE_DAYS} days at least"
    try:
        with (tls or ssl.create_default_context()).wrap_socket(plain, server_hostname=host) as secured:
            ends = secured.getpeercert() or {}
    except (ssl.SSLError, OSError) as why:
        said = why.verify_message if isinstance(why, ssl.SSLCertVerificationError) else type(why).__name__
        return Finding(
            f"{name}.tls",
            "failed",
            said,
            expected,
            "name the centre's authority ([tls] authorities, or SSL_CERT_FILE), or ask for another certificate",
        )
    days = (ssl.cert_time_to_seconds(str(ends["notAfter"])) - time.time()) / A_DAY
    return Finding(
        f"{name}.tls",
        "ok" if days > CERTIFICATE_DAYS else "warning",
        f"trusted, {days:.0f} days left",
        expected,
        "tell the centre's operators",
    )


def _ahead(answer: httpx.Response) -> float | None:
    try:
        told = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError, TypeError):
        return None
    ahead = time.time() - answer.elapsed.total_seconds() / 2 - told.timestamp()
    return 0.0 if 0 <= ahead <= 1 else ahead  # the header knows no fractions


def of_the_connectors(folder: Path, settings: Configuration) -> list[Finding]:
    """The site's own systems, as far as they can be looked at without asking them to do anything."""
    findings: list[Finding] = []
    if settings.webhook is not None:
        parts = urlsplit(settings.webhook.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        findings.append(_port("webhook.tcp", parts.hostname or "", port))
        if settings.webhook.secret_file is not None:
            findings.append(_secret(settings.webhook.secret_file))
    for type_name, program in settings.programs.items():
        for verb, command in (("run", program.run), ("ask", program.ask), ("still_wanted", program.still_wanted)):
            if command is not None:
                there = shutil.which(command[0]) is not None
                findings.append(
                    Finding(
                        f"program.{type_name}.{verb}",
                        "ok" if there else "failed",
                        command[0],
                        "a program that this account may run",
                        "correct the path, or its mode: chmod +x",
                    )
                )
    if settings.hl7.send is not None:
        findings.append(_port("hl7.send", settings.hl7.send.host, settings.hl7.send.port))
    if settings.hl7.listen is not None and is_running(folder):
        told = (told_by_the_agent(folder) or {}).get("hl7", {}).get("listen", {})
        findings.append(_port("hl7.listen", settings.hl7.listen.host, told.get("port") or settings.hl7.listen.port))
    return findings


def _port(name: str, host: str, port: int) -> Finding:
    expected, remedy = "a port that answers", f"start the site's system, or correct the address {host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=SECONDS):
            return Finding(name, "ok", f"{host}:{port} answers", expected, remedy)
    except OSError as why:
        return Finding(name, "failed", f"{host}:{port}: {type(why).__name__}", expected, remedy)


def _secret(file: Path) -> Finding:
    from unit_agent.webhook import SecretUnusable, secret

    try:
        secret(file)
    except SecretUnusable as why:
        return Finding("webhook.secret", "failed", str(why), "a secret of 16 bytes or more", "make one as it says")
    return Finding("webhook.secret", "ok", "there", "a secret of 16 bytes or more", "")


def _enrolled_gateway(folder: Path) -> str | None:
    try:
        enrolment = KeyFolder(folder).enrolment()
    except KeyFileUnusable:
        return None
    return None if enrolment is None else enrolment.gateway_url


def _claims(token: str) -> Json:
    try:
        body = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
