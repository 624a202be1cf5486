"""Server-sent events, parsed (WHATWG HTML, section 9.2.6)."""

import json
from collections.abc import Iterable, Iterator
from typing import Any


def parse_events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Each event as `{id, event, data}`, `data` read as JSON if it is JSON. Comments (pings) and empty events are not
    passed on; an event cut off by the end of the stream is dropped, as the standard says."""
    identity, name = "", "message"
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield {"id": identity, "event": name, "data": _read("\n".join(data))}
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            identity = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
