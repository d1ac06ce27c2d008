"""The report of an erasure: each place and how much was purged there, signed once it is complete.

Signed with the installation's Ed25519 key over the report's canonical JSON behind a purpose of its own, so that a
report is no token and no token a report; whoever has the public key can check it without us.
"""

from __future__ import annotations

import base64
from typing import Any, Final, Literal, Self
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from psycopg.rows import dict_row
from pydantic import AwareDatetime

from contracts.model import Model
from infra.database import Connection
from infra.token_keys import signing_key

Json = dict[str, Any]  # Any: JSON
PURPOSE: Final = b"carespine.erasure.v1\n"

_ONE: Final = """
SELECT patient_id, unit_id, basis, requested_by, command_id, partition, position, erased_at, keys_destroyed,
    completed_at, awaits FROM erasures WHERE patient_id = %s
"""
_PLACES: Final = """
SELECT place, instance, count, purged_at FROM erasure_places WHERE subject = %s ORDER BY place, instance
"""


class Signature(Model):
    """By whom the report was signed."""

    algorithm: Literal["EdDSA"] = "EdDSA"
    key_id: str
    """As in the installation's JWK Set."""
    value: str
    """base64url, without padding."""


class PurgedPlace(Model):
    """One place and what was purged in it."""

    place: str
    """A table; `cache` (keys in a process's memory); `unit_agent: …` (kinds of rows on the unit's own disk)."""
    instance: str
    """Whose cache it was; empty elsewhere."""
    count: int
    purged_at: AwareDatetime


class ErasureReport(Model):
    """What became of a person's data. Nothing in it says who the person was."""

    patient_id: UUID
    unit_id: str
    basis: str
    requested_by: str
    """The account that asked."""
    command_id: UUID
    partition: int
    position: int
    """Of the fact that tells of it, in the log of this partition."""
    erased_at: AwareDatetime
    """From this moment nothing sealed for the person opens any more."""
    keys_destroyed: int
    status: Literal["purging", "complete"]
    completed_at: AwareDatetime | None
    awaits: list[str]
    """What has not said yet that it has let go."""
    places: list[PurgedPlace]
    signature: Signature | None = None
    """None until it is complete, and where this process may not sign."""

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        told = {name: value for name, value in self.to_dict().items() if name != "signature"}
        return PURPOSE + orjson.dumps(told, option=orjson.OPT_SORT_KEYS)

    def signed(self, private_key_pem: str) -> Self:
        """The same report with its signature. Raises what a key that cannot be used raises."""
        key, key_id = signing_key(private_key_pem)
        value = base64.urlsafe_b64encode(key.sign(self.signed_bytes())).rstrip(b"=").decode()
        return self.model_copy(update={"signature": Signature(key_id=key_id, value=value)})

    def is_genuine(self, public_key_pem: str) -> bool:
        """Whether it is as it was signed, by the holder of this key."""
        key = serialization.load_pem_public_key(public_key_pem.encode())
        if self.signature is None or not isinstance(key, Ed25519PublicKey):
            return False
        try:
            key.verify(base64.urlsafe_b64decode(self.signature.value + "=="), self.signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


async def report_of(connection: Connection, patient_id: UUID) -> ErasureReport | None:
    """The report as it stands, unsigned; None: nobody visible to this connection was erased under this id."""
    async with connection.cursor(row_factory=dict_row) as rows:
        await rows.execute(_ONE, (patient_id,))
        found = await rows.fetchone()
        if found is None:
            return None
        await rows.execute(_PLACES, (str(patient_id),))
        places = [PurgedPlace.model_validate(place) for place in await rows.fetchall()]
    status: Literal["purging", "complete"] = "complete" if found["completed_at"] else "purging"
    return ErasureReport.model_validate({**found, "status": status, "places": places})
