"""Whether the centre takes our credential, asked without linking: `doctor` knocks and does not come in.

The bridge looks at the token before anything else, and answers a visitor who offers no subprotocol only after it.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

import httpx

from infra.findings import Finding
from unit_agent.addresses import is_loopback
from unit_agent.configuration import Configuration
from unit_agent.credential import CredentialDelayed, CredentialUnusable, credential_of
from unit_agent.tls import client_context

SECONDS: Final = 5.0
_NAME: Final = "credential.admitted"
_EXPECTED: Final = "a credential that the centre lets in"
_REMEDIES: Final = {
    "token_expired": "get another token, or enrol: unit-agent enrol",
    "token_invalid": "the token is another installation's, or not one: get another, or enrol",
    "not_allowed": "use the unit's own token: carespine token --role unit --unit U",
}


def of_admission(folder: Path, settings: Configuration) -> tuple[list[Finding], str | None]:
    """What the bridge says to our token, got with the key where there is one; nothing when it is not reached.

    And where that bridge is: as configured, else as the centre has told with the token; None when neither says it.
    """
    try:
        tls = client_context(settings.tls)
        credential = credential_of(settings.credential, folder=folder, gateway_url=settings.gateway, tls=tls)
        token = asyncio.run(asyncio.wait_for(credential.bearer(), SECONDS * 2))
    except CredentialUnusable as why:
        remedy = "as it says; enrolling again: unit-agent enrol"
        return [Finding(_NAME, "failed", str(why), _EXPECTED, remedy)], settings.url
    except (CredentialDelayed, TimeoutError) as why:
        found = Finding(_NAME, "warning", f"no token was got now: {why}", _EXPECTED, "see what is in the way below")
        return [found], settings.url
    url = settings.url or next(iter(credential.links()), None)
    if url is None or not (url.startswith("wss:") or is_loopback(url)):
        return [], url
    return _knocked(url, token, tls), url


def _knocked(url: str, token: str, tls: ssl.SSLContext | None) -> list[Finding]:
    trusted = (tls or ssl.create_default_context()) if url.startswith("wss:") else True
    try:
        with httpx.Client(timeout=SECONDS, trust_env=not is_loopback(url), verify=trusted) as client:
            answer = client.get(f"http{url.removeprefix('ws')}", headers={"Authorization": f"Bearer {token}"})
        told = answer.json()
    except (httpx.HTTPError, ValueError):
        return []
    code = told.get("code") if isinstance(told, dict) else None
    if answer.status_code == 400 and code == "subprotocol_missing":
        return [Finding(_NAME, "ok", "the centre lets it in", _EXPECTED, "")]
    if answer.status_code in (401, 403):
        remedy = _REMEDIES.get(str(code), str(told.get("detail") or "ask the centre's operators"))
        return [Finding(_NAME, "failed", f"the centre says {code}", _EXPECTED, remedy)]
    return []
