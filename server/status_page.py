"""The page for people on the port of the metrics, and the data that it shows.

Read-only, without cookies, with nothing from elsewhere. The page is one file, status_page.html; what it asks for is
told by `lifecycle.overview`.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from importlib import resources
from urllib.parse import parse_qsl

from server.errors import StatusNotFound
from server.lifecycle.overview import MOST_MODELS, Overview
from server.metrics_page import Answer, Route

PATH = "/"
DATA_PATH = "/status.json"

_HTML = "text/html; charset=utf-8"
_JSON = "application/json; charset=utf-8"
_MOST_FIELDS = 8
_NUMBERS = {"version": 2**63 - 1, "offset": 2**31 - 1, "limit": MOST_MODELS}
"""Fields of a query that are numbers, and the largest that each may be."""
_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


def routes(overview: Overview) -> Mapping[str, Route]:
    """What to serve, by path."""
    page = _page(resources.files("server").joinpath("status_page.html").read_bytes())
    return {PATH: lambda _query: page, DATA_PATH: lambda query: _data(overview, query)}


def tell(overview: Overview, model: str) -> str:
    """The same data for those who ask in another way: of one model, or the listing if no model is named.

    Raises:
        StatusNotFound: There is no such model.
    """
    found = overview.model(model) if model else overview.listing(limit=MOST_MODELS)
    return _text(asdict(found))


def _page(html: bytes) -> Answer:
    """The page, with a policy under which a browser runs its own script and nothing else."""
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for kind, text in _INLINE.findall(html):
        hashes[kind].append(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'")
    policy = (
        f"default-src 'none'; script-src {' '.join(hashes[b'script'])}; style-src {' '.join(hashes[b'style'])}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    etag = f'"{hashlib.sha256(html).hexdigest()[:32]}"'
    return Answer(html, _HTML, headers={"Content-Security-Policy": policy}, etag=etag)


def _data(overview: Overview, query: str) -> Answer:
    """The listing of models (`find`, `offset`, `limit`), or one of them (`model`, `version`)."""
    try:
        asked = dict(parse_qsl(query, max_num_fields=_MOST_FIELDS))
        numbers = {name: _number(asked[name], most) for name, most in _NUMBERS.items() if name in asked}
    except ValueError as error:
        return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
    if "model" not in asked:
        numbers.pop("version", None)
        return _json(asdict(overview.listing(asked.get("find", ""), **numbers)))
    try:
        return _json(asdict(overview.model(asked["model"], numbers.get("version"))))
    except StatusNotFound as error:
        return _json({"error": error.message}, HTTPStatus.NOT_FOUND)


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise ValueError(f"a number from 0 to {most} is wanted")
    return int(text)


def _json(data: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(_text(data).encode(), _JSON, status)


def _text(data: object) -> str:
    return json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)


def _finite(data: object) -> object:
    """The same without infinities and NaN, which are no JSON: null in their place."""
    if isinstance(data, float):
        return data if abs(data) < float("inf") else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data
