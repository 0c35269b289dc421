"""Logs: JSON lines with trace and span ids, or plain lines on a terminal; never a prompt, an answer or a secret."""

import json
import logging
import re
import sys
import time
from typing import TextIO

from services.chassis.trace_context import current_span_id, current_trace_id

_FIELDS = ("rpc", "code", "seconds", "request_id", "where", "tenant")
"""What our own log calls may add to a line; anything else stays out."""
_QUOTES_AFTER = {
    # A callback's arguments; and on further lines what it knows of the task, the task's exception with its text among it.
    "asyncio": re.compile(r"[(\n]"),
    # The value of a header that is not UTF-8, which may be a key.
    "grpc._cython.cygrpc": re.compile(r" on b"),
}
"""After what text a library's log tells things that may have come from a caller, by its logger."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. An exception is told by its type alone: its text may hold what must not be logged."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        line.update({name: getattr(record, name) for name in _FIELDS if hasattr(record, name)})
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
        if trace_id := current_trace_id():
            line |= {"trace_id": trace_id, "span_id": current_span_id()}
        return json.dumps(line, ensure_ascii=False)


class PlainFormatter(logging.Formatter):
    """One short line for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        extra = " ".join(f"{name}={getattr(record, name)}" for name in _FIELDS[2:] if hasattr(record, name))
        exception = f" {record.exc_info[0].__name__}" if record.exc_info and record.exc_info[0] is not None else ""
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname.lower()} {_message(record)}{exception} {extra}".rstrip()


def set_up_logs(stream: TextIO | None = None, *, level: int = logging.INFO) -> None:
    """Send this process's logs to the stream, or to standard error; libraries are heard from warnings on."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter() if stream.isatty() else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("ensemble", "services"):
        logging.getLogger(ours).setLevel(level)


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    end = _QUOTES_AFTER.get(record.name)
    return message if end is None else end.split(message, maxsplit=1)[0]
