"""One HL7 v2 message: reading a received one, and writing acknowledgements and messages of our own.

Knows separators, escapes, character sets and the header; what the segments mean for a patient or a visit is
`person`'s and `visit`'s. Nothing said here quotes what a message holds: field places and codes only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import hl7

NULL: Final = '""'
"""HL7's way to say: there is explicitly nothing here. An empty field says nothing at all."""
CONTROL_ID_LENGTH: Final = 199

SEGMENT_SEQUENCE: Final = "100"
REQUIRED_MISSING: Final = "101"
DATA_TYPE: Final = "102"
TABLE_VALUE: Final = "103"
UNSUPPORTED_TYPE: Final = "200"
UNSUPPORTED_EVENT: Final = "201"
UNSUPPORTED_PROCESSING: Final = "202"
UNSUPPORTED_VERSION: Final = "203"
UNKNOWN_KEY: Final = "204"
DUPLICATE_KEY: Final = "205"
INTERNAL: Final = "207"
"""HL7 table 0357, message error condition codes."""

_CHARSETS: Final = {"ASCII": "ascii", "UNICODE UTF-8": "utf-8", "UTF-8": "utf-8", "UTF8": "utf-8"} | {
    f"8859/{number}": f"iso8859-{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)
}
"""MSH-18, HL7 table 0211, as far as MLLP can carry it."""
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Unacceptable(Exception):
    """The message cannot be taken. `code` AE: it may be another time or corrected; AR: never as it is."""

    def __init__(self, code: str, condition: str, text: str) -> None:
        super().__init__(f"{code} {condition}: {text}")
        self.code = code
        self.condition = condition
        self.text = text
        """For whoever sent it: places of fields and what is wrong with them, never what they hold."""


@dataclass(frozen=True)
class Header:
    """MSH, as far as an answer needs it; read byte by byte as Latin-1, so any character set passes through."""

    field: str
    encoding: str
    fields: tuple[str, ...]
    """MSH-3 and on."""

    def at(self, number: int) -> str:
        """MSH-`number`, as it stands; empty when there is none."""
        return self.fields[number - 3] if number - 3 < len(self.fields) else ""

    @property
    def component(self) -> str:
        """What separates components."""
        return self.encoding[0]

    @property
    def control_id(self) -> str:
        """MSH-10."""
        return self.at(10).strip()

    @property
    def sender(self) -> str:
        """Who says that the control id is its own: sending application and facility."""
        return f"{self.at(3)}{self.field}{self.at(4)}"

    @property
    def kind(self) -> tuple[str, str]:
        """MSH-9: message type and trigger event."""
        parts = [*self.at(9).split(self.component), ""]
        return parts[0].strip(), parts[1].strip()


UNREADABLE: Final = Header("|", "^~\\&", ())
"""What is answered when not even the header can be read."""


def header_of(content: bytes) -> Header:
    """The header of a message, or of the beginning of one. Raises Unacceptable."""
    first = re.split(rb"[\r\n]", content.lstrip(b"\r\n"), maxsplit=1)[0].decode("latin-1")
    if first[:3] != "MSH" or len(first) < 8:
        raise Unacceptable("AR", SEGMENT_SEQUENCE, "the message does not begin with MSH")
    separator = first[3]
    encoding, *fields = first[4:].split(separator)
    signs = [separator, *encoding]
    if len(encoding) not in (4, 5) or len(set(signs)) < len(signs) or any(sign.isalnum() for sign in signs):
        raise Unacceptable("AR", DATA_TYPE, "MSH-1 and MSH-2 are not separators that can be told apart")
    return Header(separator, encoding, tuple(fields))


class Message:
    """A message that can be read: it has a header, known characters, and segments."""

    def __init__(self, content: bytes, *, charset: str) -> None:
        """`charset` is what a message is in that does not say. Raises Unacceptable."""
        self.header: Final = header_of(content)
        self.charset: Final = _charset(self.header, charset)
        try:
            text = content.decode(self.charset)
        except UnicodeDecodeError:
            raise Unacceptable("AE", DATA_TYPE, f"bytes that are not {self.charset}; say so in MSH-18") from None
        if "\x00" in text:
            raise Unacceptable("AE", DATA_TYPE, "the character NUL has no place in a message")
        try:
            self._message: Final = hl7.parse(text.strip("\r\n").replace("\r\n", "\r").replace("\n", "\r"))
        except (hl7.HL7Exception, AssertionError, LookupError, ValueError):
            raise Unacceptable("AR", SEGMENT_SEQUENCE, "the message cannot be taken apart") from None
        self._separators: Final = self.header.field + self.header.encoding

    def has(self, segment: str) -> bool:
        """Whether there is such a segment."""
        return any(str(one[0][0]) == segment for one in self._message)

    def require(self, *segments: str) -> None:
        """Raises Unacceptable when one of these is missing."""
        for segment in segments:
            if not self.has(segment):
                raise Unacceptable("AE", SEGMENT_SEQUENCE, f"segment {segment} is missing")

    def repetitions(self, segment: str, field: int) -> int:
        """How often a field stands in the first such segment."""
        found = self._field(segment, field)
        return 0 if found is None else len(found)

    def text(self, segment: str, field: int, component: int = 1, *, repetition: int = 1, sub: int = 1) -> str:
        """A value of the first such segment, without escapes and edges; empty when there is none, or `NULL`."""
        node: Any = self._field(segment, field)  # Any: the library's tree, strings at its ends
        if node is None:
            return ""
        for number in (repetition, component, sub):
            if isinstance(node, str):
                node = node if number == 1 else ""
            else:
                node = node[number - 1] if number <= len(node) else ""
        while not isinstance(node, str):
            node = node[0] if len(node) else ""
        return self._unescaped(node).strip()

    def _field(self, segment: str, field: int) -> Any:  # Any: the library's field
        for one in self._message:
            if str(one[0][0]) == segment:
                return one[field] if field < len(one) else None
        return None

    def _unescaped(self, text: str) -> str:
        signs = dict(zip("FSRET", self._separators, strict=False)) | {".br": "\n"}
        escape = signs["E"]
        if escape not in text:
            return text

        def meant(found: re.Match[str]) -> str:
            told = found[1]
            if re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", told):
                try:
                    return bytes.fromhex(told[1:]).decode(self.charset).replace("\x00", "\ufffd")
                except UnicodeDecodeError:
                    return "\ufffd"
            return signs.get(told, "")

        sign = re.escape(escape)
        return re.sub(f"{sign}([^{sign}]*){sign}", meant, text)


def acknowledgement(
    header: Header, code: str, *, now: datetime, control_id: str, condition: str = "0", text: str = ""
) -> bytes:
    """The answer to a message: AA, AE or AR, with why. In the message's own separators."""
    if header.encoding[0] in text or header.field in text:
        text = re.sub("[" + re.escape(header.field + header.encoding) + "]", " ", text)
    _, event = header.kind
    kind = header.component.join(["ACK", event, "ACK"] if event else ["ACK"])
    fields = [
        "MSH", header.encoding, header.at(5), header.at(6), header.at(3), header.at(4), stamp(now), "", kind,
        control_id, header.at(11) or "P", header.at(12) or "2.5",
    ]  # fmt: skip
    if header.at(18):
        fields += ["", "", "", "", "", header.at(18)]
    lines = [fields, ["MSA", code, header.at(10), text]]
    if code != "AA":
        lines.append(["ERR", "", "", condition, "E", "", "", "", text])
    return "".join(header.field.join(line) + "\r" for line in lines).encode("latin-1", "replace")


def acknowledged(content: bytes) -> tuple[str, str, str]:
    """What an acknowledgement says: (code, control id it answers, error condition). Raises Unacceptable."""
    message = Message(content, charset="latin-1")
    message.require("MSA")
    condition = message.text("ERR", 3) or message.text("MSA", 6)
    return message.text("MSA", 1), message.text("MSA", 2), condition if condition.isdigit() else ""


def stamp(at: datetime) -> str:
    """An instant as HL7 writes it, in UTC."""
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%S") + "+0000"


def written(*segments: tuple[str, dict[int, str]]) -> str:
    """Segments with `|^~\\&`; a field's text is complete, its values made by `escaped`."""
    lines = []
    for name, fields in segments:
        last = max(fields)
        if name == "MSH":
            lines.append("|".join(["MSH", "^~\\&", *(fields.get(number, "") for number in range(3, last + 1))]))
        else:
            lines.append("|".join([name, *(fields.get(number, "") for number in range(1, last + 1))]))
    return "".join(line + "\r" for line in lines)


_ESCAPES: Final = str.maketrans(
    {"|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\\": "\\E\\", "\n": "\\.br\\", "\r": None}
)


def escaped(value: object) -> str:
    """A value as part of a field; empty for None. Control characters have no place in a message and are left out."""
    return "" if value is None else _CONTROLS.sub("", str(value)).translate(_ESCAPES)


def _charset(header: Header, default: str) -> str:
    named = header.at(18).split(header.encoding[1])[0].strip().upper()
    if not named:
        return default
    if named not in _CHARSETS:
        raise Unacceptable("AR", TABLE_VALUE, "MSH-18 names a character set that cannot be read here")
    return _CHARSETS[named]
