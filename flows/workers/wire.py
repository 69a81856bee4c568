"""HTTP to a Prefect server that may be hostile: one question, one answer of bounded size within bounded time.

Prefect's own client follows redirects, waits as long as a server tells it to, reads answers whole whatever their size
and unpacks what is compressed. This one does none of that::

    an answer is read up to `MOST_NBYTES` and no further, as it comes: nothing is unpacked
    a question and all of its answer take `ANSWER_S` at most, however slowly the bytes drip
    a redirect is an answer that no Prefect server gives: nothing goes to a host that the settings do not name

Adversary: whoever runs the server, or answers in its place. It can keep us waiting and tell us lies; `server` says
which of its words are read.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import certifi
import httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

MOST_NBYTES = 4 * 1024 * 1024  # of an answer
ANSWER_S = 30.0
CONNECTIONS = 16
Method = Literal["GET", "POST", "PATCH", "DELETE"]


class WireError(ConnectionError):
    """There is no answer, or none that can be read."""


@dataclass(frozen=True)
class Answer:
    """What came back. `content` is as it came."""

    status: int
    content: bytes

    @property
    def text(self) -> str:
        """The content as UTF-8, whatever the server calls it; what is none is replaced."""
        return self.content.decode("utf-8", "replace")


class _Token(BaseModel):
    """Of a server that protects itself against requests that a browser was tricked into."""

    model_config = ConfigDict(extra="ignore")

    token: str = Field(pattern=r"^[\x21-\x7e]{1,512}$")
    expiration: AwareDatetime


class Wire:
    """A connection to one server."""

    def __init__(self, client: httpx.AsyncClient, *, answer_s: float = ANSWER_S) -> None:
        self._client, self._answer_s = client, answer_s
        self._id, self._token = str(uuid4()), _Token(token="-", expiration=datetime.min.replace(tzinfo=UTC))  # noqa: S106
        self._protected = False

    async def request(self, method: Method, path: str, body: Any = None) -> Answer:
        """Ask once. Raises `WireError`; an answer of whatever status is one."""
        answer = await self._request(method, path, body)
        if answer.status == 403 and method != "GET" and b"CSRF token" in answer.content:
            self._token, self._protected = await self._new_token(), True
            answer = await self._request(method, path, body)
        return answer

    async def _request(self, method: Method, path: str, body: Any) -> Answer:
        headers = {"Prefect-Csrf-Token": self._token.token, "Prefect-Csrf-Client": self._id} if self._protected else {}
        try:
            async with (
                asyncio.timeout(self._answer_s),
                self._client.stream(method, path, json=body, headers=headers) as answer,
            ):
                content = bytearray()
                async for piece in answer.aiter_raw():
                    content += piece
                    if len(content) > MOST_NBYTES:
                        raise WireError("an answer that is too long")
                return Answer(answer.status_code, bytes(content))
        except TimeoutError as failure:
            raise WireError("an answer that takes too long") from failure
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError) as failure:
            raise WireError(type(failure).__name__) from failure

    async def _new_token(self) -> _Token:
        answer = await self._request("GET", f"/csrf-token?client={self._id}", None)
        try:
            return _Token.model_validate_json(answer.content)
        except ValidationError as failure:
            raise WireError("no token against forged requests") from failure


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Wire]:
    """A connection as Prefect's settings say: PREFECT_API_URL, PREFECT_API_AUTH_STRING, those of TLS, headers."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    api = settings.api
    headers = {**settings.client.custom_headers, "Accept-Encoding": "identity"}
    if api.auth_string:
        said = base64.b64encode(api.auth_string.get_secret_value().encode()).decode()
        headers["Authorization"] = f"Basic {said}"
    elif api.key:
        headers["Authorization"] = f"Bearer {api.key.get_secret_value()}"
    context = ssl.create_default_context(cafile=api.ssl_cert_file or certifi.where())
    if api.tls_insecure_skip_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS // 2, keepalive_expiry=25)
    async with httpx.AsyncClient(
        base_url=api.url or "",
        headers=headers,
        verify=context,
        limits=limits,
        timeout=ANSWER_S,
        follow_redirects=False,
    ) as client:
        yield Wire(client)
