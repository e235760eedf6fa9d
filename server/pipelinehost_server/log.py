"""What a process of the host logs, and how."""

from __future__ import annotations

import logging
import os
import re
import sys
import time


class LogLines(logging.Formatter):
    """One plain line per record: time, level, logger, message; no secrets, no control characters."""

    _token = re.compile(r"(ph_[0-9a-f]{8}_)[A-Za-z0-9_-]+")
    _control = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; a traceback is put into it with its line ends escaped."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        text = self._token.sub(r"\1…", text)
        text = self._control.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
        return f"{at}.{int(record.msecs):03}Z {record.levelname} {record.name} {text}"


def log_to_stderr(level: str) -> None:
    """Lets this process log to standard error, from that level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLines())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # A line for every request to an environment, a large import's polls among them, tells nobody anything.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Its lines for debugging hold the headers of answers, and an environment may put a token there.
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    # What the libraries for signing in have to say of a failure is told as a finding.
    for name in ("azure", "msal", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # grpc's own words about a broken connection tell nothing that the guard does not.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.ERROR)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
