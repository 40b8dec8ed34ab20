"""How the log looks: one line for each event, for people or as JSON. The only module that knows structlog.

Modules log with the standard library's `logging`; here their records get time, level, logger, and what is known of the
request that the thread works on. Nothing that a client sends can begin a line of its own or hide in one: control
characters are written as escapes. No payload is ever logged, because nobody hands one over.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import IO, Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from server import calls
from server.lines import LineWriter

FORMATS = ("console", "json")
LEVELS = ("debug", "info", "warning", "error")
REQUESTS = ("off", "errors", "all")

# C0, DEL, C1, and what turns text around or breaks lines elsewhere: line and paragraph separator, bidi controls.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_FIRST = ("time", "level", "logger", "event")


def configure(log_format: str, level: str, stream: IO[str] | None = None) -> None:
    """Send everything that is logged in this process to a stream, in one form; who logs never waits for its reader.

    Args:
        log_format: One of FORMATS.
        level: One of LEVELS; what is below it is left out.
        stream: Standard error, unless given.
    """
    handler = LineWriter(sys.stderr if stream is None else stream)
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def formatter(log_format: str) -> logging.Formatter:
    """Makes lines of records: "console" or "json"."""
    known: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.stdlib.ExtraAdder(),
        _add_request,
        structlog.processors.format_exc_info,
    ]
    render = _json if log_format == "json" else _console
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=known,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )


class AccessLog:
    """A line for each request that is answered, or only for those that fail."""

    def __init__(self, *, successes: bool) -> None:
        """Make one.

        Args:
            successes: Log them too.
        """
        self._successes = successes
        self._logger = logging.getLogger("server.requests")

    def begin(self, call: calls.Call) -> None:
        """See calls.Watcher."""

    def end(self, call: calls.Call, request_bytes: int, reply_bytes: int) -> None:
        """See calls.Watcher."""
        if call.code == "OK" and not self._successes:
            return
        facts: dict[str, object] = {
            "code": call.code,
            "milliseconds": round(1e3 * (calls.now() - call.begin), 3),
            "request_bytes": request_bytes,
            "reply_bytes": reply_bytes,
        }
        if call.signature:
            facts |= {"signature": call.signature, "backend": call.backend, "rows": call.rows}
        self._logger.log(logging.INFO if call.code == "OK" else logging.WARNING, "request", extra=facts)


def _add_request(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Say which request the thread works on, if it works on one."""
    call = calls.current()
    if call is not None:
        event["request_id"] = call.request_id
        event["method"] = call.method
        event["peer"] = call.source.peer()
        if call.model:
            event["model"] = call.model
            event["version"] = call.version
        if call.trace_id:
            event["trace_id"] = call.trace_id
    return event


def _json(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    ordered = {key: event.pop(key) for key in _FIRST} | dict(event)
    return json.dumps(ordered, default=str)  # ASCII only, so that every control character is an escape


def _console(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    time, level, logger, text = (event.pop(key) for key in _FIRST)
    exception = event.pop("exception", "")
    line = f"{time} [{logger}] {level.upper():<7} {_escaped(str(text))}"
    if event:
        line += "  " + _pairs(event)
    for each in str(exception).splitlines():
        line += f"\n  | {_escaped(each)}"
    return line


def _pairs(event: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_value(value)}" for key, value in event.items())


def _value(value: object) -> str:
    text = _escaped(str(value))
    return json.dumps(text, ensure_ascii=False) if re.search(r'[\s"=]', text) or not text else text


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
