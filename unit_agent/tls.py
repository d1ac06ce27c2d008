"""How the agent's connections to the centre are secured, where the machine's own trust is not what counts."""

from __future__ import annotations

import ssl

from unit_agent.configuration import TlsSettings
from unit_agent.credential import CredentialUnusable


def client_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """What to connect with: the client certificate, and whom to trust. None: nothing is special.

    Raises CredentialUnusable when a file cannot be used.
    """
    if settings.certificate is None and settings.authorities is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.authorities) if settings.authorities else None)
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as why:
        said = f"[tls] cannot be used ({type(why).__name__}): check that its files are there, PEM, and belong together"
        raise CredentialUnusable(said) from None
    return context
