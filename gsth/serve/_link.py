"""The page's own line to the server: pictures, sound, microphone, files, shortcuts, addresses. A WebSocket on loopback,
and the few files that the page's script needs; the door stands before both."""

from __future__ import annotations

import asyncio
import concurrent.futures
import http
import json
import logging
import secrets
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gsth.errors import GsthError, InputError, MissingExtraError
from gsth.serve import protocol
from gsth.serve._door import Door
from gsth.serve.protocol import File, Hello, Hush, Listen, Message

log = logging.getLogger(__name__)

_ASSETS = Path(__file__).parent / "assets"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".wav": "audio/wav",
    ".bin": "application/octet-stream",
}
_START_S = 20.0
_SEND_S = 10.0
T = TypeVar("T")


class Host(Protocol):
    """Who answers the pages. Called from a thread per page, one message at a time."""

    def told(self, visitor: int, message: Message) -> None:
        """A page said something; GsthErrors are shown to its visitor."""
        ...

    def given(self, visitor: int, file: File, path: Path) -> None:
        """A page sent a file, which is gone when this returns; GsthErrors are shown to its visitor."""
        ...

    def heard(self, visitor: int, piece: bytes, rate: int) -> None:
        """A page listens: 16 bit mono."""
        ...

    def asset(self, path: str) -> bytes | None:
        """What stands at an address below ``/gsth/``; None: nothing does."""
        ...


class Link:
    """Door and line in an event loop and thread of their own."""

    def __init__(self, host: Host, door: Door) -> None:
        """Not serving yet."""
        self._host, self._door = host, door
        self._epoch = secrets.token_hex(4)
        self._pages: dict[int, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gsth-link", daemon=True)
        self._server: Any = None

    def start(self, port: int, page_port: int) -> int:
        """Open the door at ``port``; the port that it has. Raises OSError where it is taken."""
        self._thread.start()
        try:
            return self._run(self._start(port, page_port))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close the door and the line."""
        if not self._thread.is_alive():
            return
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()

    def send(self, visitor: int | None, **message: Any) -> None:
        """Tell one page something, or all of them; a page that is not there hears nothing."""
        text = json.dumps(message)
        pages = list(self._pages.values()) if visitor is None else [self._pages.get(visitor)]
        for page in pages:
            if page is not None and self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._post, page, text)

    def picture(self, visitor: int, jpeg: bytes) -> bool:
        """Show one page a picture; whether it went out. Returns when there is room for another on the line."""
        from websockets.exceptions import ConnectionClosed

        page = self._pages.get(visitor)
        if page is None or not self._thread.is_alive():
            return False
        sending = asyncio.run_coroutine_threadsafe(page.send(jpeg), self._loop)
        try:
            sending.result(_SEND_S)
        except (ConnectionClosed, TimeoutError, concurrent.futures.CancelledError):  # gone, or its line stands still
            sending.cancel()
            return False
        return True

    def _post(self, page: Any, text: str) -> None:
        task = self._loop.create_task(_told(page, text))
        task.add_done_callback(lambda t: t.exception())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_S)

    async def _start(self, port: int, page_port: int) -> int:
        try:
            from websockets.asyncio.server import serve
        except ImportError as e:
            raise MissingExtraError("viser", "viewer", "the live viewer") from e
        self._server = await serve(
            self._page,
            "127.0.0.1",
            0,
            max_size=protocol.MAX_FILE,
            compression=None,
            process_request=self._asked,
            logger=logging.getLogger(f"{__name__}.websockets"),
        )
        link_port = self._server.sockets[0].getsockname()[1]
        return await self._door.open(port, page_port, link_port)

    async def _stop(self) -> None:
        await self._door.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _asked(self, _: Any, request: Any) -> Any:
        """Answer what is no WebSocket."""
        from websockets.datastructures import Headers
        from websockets.http11 import Response

        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        path = request.path.partition("?")[0].removeprefix("/gsth/")
        body = (_ASSETS / "page.js").read_bytes() if path == "page.js" else self._host.asset(path)
        status = http.HTTPStatus.NOT_FOUND if body is None else http.HTTPStatus.OK
        kind = _TYPES.get(Path(path).suffix, "application/octet-stream")
        headers = Headers({"Content-Type": kind, "Content-Length": str(len(body or b"")), "Cache-Control": "no-store"})
        return Response(status.value, status.phrase, headers, body or b"")

    async def _page(self, page: Any) -> None:
        """Talk with one page until it goes."""
        from websockets.exceptions import ConnectionClosed

        talk = _Talk(self._host, page, self._pages)
        try:
            await _told(page, json.dumps({"t": "welcome", "epoch": self._epoch}))
            async for received in page:
                await talk.hear(received)
        except ConnectionClosed:
            pass
        finally:
            if talk.visitor is not None and self._pages.get(talk.visitor) is page:
                del self._pages[talk.visitor]


class _Talk:
    """What one page said so far."""

    def __init__(self, host: Host, page: Any, pages: dict[int, Any]) -> None:
        self._host, self._page, self._pages = host, page, pages
        self.visitor: int | None = None
        self._file: File | None = None
        self._rate: int | None = None

    async def hear(self, received: str | bytes) -> None:
        """One message; what is wrong with it is told to the page."""
        try:
            await (self._binary(received) if isinstance(received, bytes) else self._text(received))
        except GsthError as e:
            await _told(self._page, json.dumps({"t": "wrong", "text": str(e)}))
        except Exception as e:  # a defect of ours; the page goes on
            log.exception("a message of visitor %s failed", self.visitor)
            await _told(self._page, json.dumps({"t": "wrong", "text": f"{type(e).__name__}: {e}"}))

    async def _text(self, text: str) -> None:
        message = protocol.parse(text)
        if isinstance(message, Hello):
            self.visitor = message.visitor
            self._pages[self.visitor] = self._page
        if self.visitor is None:
            raise InputError("say hello first")
        if isinstance(message, File):
            self._file = message
            return
        if isinstance(message, Listen):
            self._rate = message.rate
        elif isinstance(message, Hush):
            self._rate = None
        await self._call(self._host.told, self.visitor, message)

    async def _binary(self, content: bytes) -> None:
        if self.visitor is not None and self._file is not None:
            file, self._file = self._file, None
            if len(content) != file.size:
                raise InputError(f"{file.name[:60]!r} has {len(content)} bytes instead of {file.size}; send it again")
            await self._call(self._keep, self.visitor, file, content)
            await _told(self._page, json.dumps({"t": "taken"}))
        elif self.visitor is not None and self._rate is not None:
            await self._call(self._host.heard, self.visitor, content, self._rate)
        else:
            raise InputError("bytes that nobody asked for")

    def _keep(self, visitor: int, file: File, content: bytes) -> None:
        """Lay the file into a folder of its own, for as long as it is used; of its name only the ending counts."""
        from gsth.serve._sources import kind_of

        kind_of(file.name)
        with tempfile.TemporaryDirectory(prefix="gsth-upload-") as folder:
            path = Path(folder) / f"upload{Path(file.name).suffix.lower()}"
            path.write_bytes(content)
            self._host.given(visitor, file, path)

    async def _call(self, work: Callable[..., None], *args: Any) -> None:
        await asyncio.to_thread(work, *args)


async def _told(page: Any, text: str) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        await page.send(text)
    except ConnectionClosed:
        pass
