"""The only socket that others can reach: lets in who may, and passes them on to the page's servers on loopback.

viser answers everybody who reaches its port. So it listens on loopback only, and this door stands before it:

* Served beyond this machine, a visitor needs the token once; a cookie keeps it. Without it nothing is answered.
* Requests for another host name and WebSockets from foreign pages are refused, so that no web page that happens to be
  open in the same browser can reach a viewer (DNS rebinding, cross-site WebSockets).
* No more than so many visitors at once.

Both servers behind close the connection after each answer, so one connection is one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import ipaddress
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

_HEAD_BYTES = 32 * 1024
_HEAD_S = 10.0
_COOKIE = "gsth_token"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_FIRST = (
    b"<head><script>window.gsthAsked = location.hash.slice(1);"
    b'history.replaceState(null, "", location.pathname + location.search)</script>'
)
"""Takes the state out of the address before viser's script runs, which would make it part of its server's address."""
_LAST = b'<script src="/gsth/page.js" defer></script></head>'


@dataclass(frozen=True)
class Request:
    """The head of one HTTP request."""

    target: str
    """Path and query."""
    headers: Mapping[str, str]
    """By name in small letters."""
    raw: tuple[str, ...]
    """The header lines."""

    @classmethod
    def parse(cls, head: bytes) -> Request | None:
        """From its bytes; None where it is no GET of HTTP/1.1."""
        try:
            first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            method, target, version = first.split(" ")
            pairs = [line.split(":", 1) for line in lines]
            headers = {name.strip().lower(): value.strip() for name, value in pairs}
        except ValueError:
            return None
        if method != "GET" or version != "HTTP/1.1" or not target.startswith("/"):
            return None
        return cls(target, headers, tuple(lines))

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    @property
    def upgrades(self) -> bool:
        """Whether a WebSocket is asked for."""
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def host(self) -> str:
        """The host's name as the visitor wrote it, without port."""
        return urllib.parse.urlsplit(f"//{self.headers.get('host', '')}").hostname or ""

    @property
    def given_token(self) -> str | None:
        """The token in the address."""
        return urllib.parse.parse_qs(self.target.partition("?")[2]).get("token", [None])[0]

    @property
    def kept_token(self) -> str | None:
        """The token in the cookie."""
        for part in self.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == _COOKIE:
                return value
        return None


class Door:
    """An asyncio server; ``open`` and ``close`` run in its event loop."""

    def __init__(self, host: str, token: str | None, max_visitors: int) -> None:
        """Closed yet."""
        self._host, self._token, self._max = host, token, max_visitors
        self._inside = 0
        self._server: asyncio.Server | None = None
        self._ports = (0, 0)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, port: int, page: int, link: int) -> int:
        """Let visitors in at ``port`` (0: any), to the loopback ports of page and link; the port that is open.

        Raises:
            OSError: The port is taken.
        """
        self._ports = page, link
        self._server = await asyncio.start_server(self._come, self._host, port, limit=_HEAD_BYTES)
        return self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Let nobody in any more, and end all connections."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            request = Request.parse(head)
            refused = (http.HTTPStatus.BAD_REQUEST, "") if request is None else self._refusal(request)
            if refused is not None:
                writer.write(_answer(*refused))
            elif request is not None and request.given_token is not None and not request.upgrades:
                writer.write(_answer(http.HTTPStatus.SEE_OTHER, "", _moved(request)))
            elif request is not None:
                await self._pass_on(request, reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a visitor who stops in mid-sentence is no event
        except asyncio.CancelledError:
            pass  # by ``close``; asyncio's streams complain about tasks that end as cancelled
        finally:
            self._tasks.discard(task)
            await _end(writer)

    def _refusal(self, request: Request) -> tuple[http.HTTPStatus, str] | None:
        """Why a request is not answered; None where it may come in."""
        local = is_loopback(self._host)
        if local and request.host not in (*_LOOPBACK, self._host):
            return http.HTTPStatus.FORBIDDEN, "This viewer answers only as localhost."
        origin = request.headers.get("origin")
        if request.upgrades and urllib.parse.urlsplit(origin or "").netloc != request.headers.get("host", ""):
            return http.HTTPStatus.FORBIDDEN, "Another page may not use this viewer."
        if self._token is not None:
            shown = request.given_token or request.kept_token or ""
            if not hmac.compare_digest(shown.encode(), self._token.encode()):
                return (
                    http.HTTPStatus.UNAUTHORIZED,
                    "This viewer needs the link with its token, as gsth view prints it.",
                )
        if request.upgrades and not request.path.startswith("/gsth/") and self._inside >= self._max:
            return http.HTTPStatus.SERVICE_UNAVAILABLE, f"There are {self._max} visitors already; try again later."
        return None

    async def _pass_on(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = request.path.startswith("/gsth/")
        whole_page = request.path == "/" and not request.upgrades
        behind_reader, behind = await asyncio.open_connection("127.0.0.1", self._ports[ours])
        lines = [line for line in request.raw if not (whole_page and line.lower().startswith("accept-encoding"))]
        behind.write("\r\n".join((f"GET {request.target} HTTP/1.1", *lines, "", "")).encode("latin-1"))
        visitor = request.upgrades and not ours
        self._inside += visitor
        try:
            if whole_page:
                writer.write(_with_script(await behind_reader.read()))
                return
            both = [asyncio.create_task(_pipe(reader, behind)), asyncio.create_task(_pipe(behind_reader, writer))]
            try:
                # The visitor's half may end first where an answer is on its way; the server's end is the end.
                await (asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED) if request.upgrades else both[1])
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            self._inside -= visitor
            await _end(behind)


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        sink.write(data)
        await sink.drain()


async def _end(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.CancelledError):
        writer.close()
        await writer.wait_closed()


def _with_script(answer: bytes) -> bytes:
    """The page's html with our script in it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    body = body.replace(b"<head>", _FIRST, 1).replace(b"</head>", _LAST, 1)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-length", b"connection"))]
    lines += [b"Content-Length: %d" % len(body), b"Connection: close", b"Cache-Control: no-store"]
    return b"\r\n".join((*lines, b"", body))


def _moved(request: Request) -> str:
    """Headers that put the token into a cookie and take it out of the address."""
    query = urllib.parse.parse_qsl(request.target.partition("?")[2])
    kept = urllib.parse.urlencode([(k, v) for k, v in query if k != "token"])
    # The token is the right one, so its characters are those that we made; the path is quoted again all the same.
    path = "/" + urllib.parse.quote(urllib.parse.unquote(request.path).lstrip("/\\"))
    return (
        f"Location: {path}{'?' if kept else ''}{kept}\r\n"
        f"Set-Cookie: {_COOKIE}={request.given_token}; Path=/; HttpOnly; SameSite=Lax\r\n"
    )


def _answer(status: http.HTTPStatus, text: str, headers: str = "") -> bytes:
    body = (text or status.phrase).encode()
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    ).encode() + body


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach this host."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
