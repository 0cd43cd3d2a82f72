"""Log of a server: a line of JSON for each event, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Final

#: Attribute of a record whose entries become fields of its line.
FIELDS: Final = "fields"


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, its fields, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, in ASCII."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_json() -> None:
    """Send everything that is logged in this process to standard error as JSON, Python's warnings as well."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
