"""A process for the tests of the supervisor: answers /health/ready, and writes down when it is asked to stop.

Run as `python -m tests.infra.pretending_process` with CARESPINE_INSTANCE, CARESPINE_HEALTH_PORT,
CARESPINE_TEST_JOURNAL (the file it writes to) and CARESPINE_TEST_BEHAVIOUR (well, unready, crashing).
"""

from __future__ import annotations

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import FrameType


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        well = os.environ["CARESPINE_TEST_BEHAVIOUR"] == "well"
        self.send_response(200 if well else 503)
        self.end_headers()
        self.wfile.write(b"ready" if well else b"the broker is away")

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def stop(number: int, frame: FrameType | None) -> None:
    with Path(os.environ["CARESPINE_TEST_JOURNAL"]).open("a") as journal:
        journal.write(os.environ["CARESPINE_INSTANCE"] + "\n")
    sys.exit(0)


if __name__ == "__main__":
    if os.environ["CARESPINE_TEST_BEHAVIOUR"] == "crashing":
        sys.exit("the settings are incomplete")
    signal.signal(signal.SIGTERM, stop)
    HTTPServer(("127.0.0.1", int(os.environ["CARESPINE_HEALTH_PORT"])), Health).serve_forever()
