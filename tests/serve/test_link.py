"""The door and the line, with plain sockets: who is let in, what is refused, and that nothing breaks them."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import random
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from watching import until

from gsth.serve import protocol
from gsth.serve._door import Door, Request
from gsth.serve._link import Link
from gsth.serve.protocol import File, Message

client = pytest.importorskip("websockets.sync.client", reason="websockets (with viser) is absent")


class Behind(http.server.BaseHTTPRequestHandler):
    """Stands for viser."""

    def do_GET(self) -> None:
        body = f"<html><head></head>{self.path} {self.headers.get('Accept-Encoding')}</html>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Host:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.files: list[tuple[File, bytes, Path]] = []
        self.pieces: list[bytes] = []

    def told(self, visitor: int, message: Message) -> None:
        if visitor == 13:
            raise ZeroDivisionError("a defect")
        self.messages.append(message)

    def given(self, visitor: int, file: File, path: Path) -> None:
        self.files.append((file, path.read_bytes(), path))

    def heard(self, visitor: int, piece: bytes, rate: int) -> None:
        self.pieces.append(piece)

    def asset(self, path: str) -> bytes | None:
        return b"RIFF" if path == "sound/1.wav" else None


@pytest.fixture
def behind() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Behind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def port(host: Host, behind: int) -> Iterator[int]:
    link = Link(host, Door("127.0.0.1", None, 2))
    yield link.start(0, behind)
    link.stop()


@pytest.fixture
def guarded(host: Host, behind: int) -> Iterator[int]:
    """As served to other machines: with a token."""
    link = Link(host, Door("0.0.0.0", "open sesame", 2))
    yield link.start(0, behind)
    link.stop()


def _get(port: int, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


def _line(port: int, **more: Any) -> Any:
    # Answers that nobody reads must not hold the line up when it closes.
    more = {"max_queue": None, "open_timeout": 60, **more}
    line = client.connect(f"ws://127.0.0.1:{port}/gsth/line", origin=f"http://127.0.0.1:{port}", **more)
    assert json.loads(line.recv(timeout=60))["t"] == "welcome"
    return line


def _raw(port: int, content: bytes, *, ends: bool = True) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        s.sendall(content)
        if ends:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_WR)
        got = b""
        with contextlib.suppress(OSError):
            while data := s.recv(65536):
                got += data
    return got


def test_the_page_comes_with_our_script(port: int) -> None:
    status, headers, text = _get(port, "/", **{"Accept-Encoding": "gzip"})
    assert status == 200 and '<script src="/gsth/page.js" defer></script></head>' in text
    assert int(headers["Content-Length"]) == len(text) and "None" in text
    assert _get(port, "/other.js", **{"Accept-Encoding": "gzip"})[2].endswith("/other.js gzip</html>")
    assert "WebSocket" in _get(port, "/gsth/page.js")[2]
    assert _get(port, "/gsth/sound/1.wav")[2] == "RIFF"
    assert _get(port, "/gsth/../../etc/passwd")[0] == 404


def test_other_names_of_this_machine_are_refused(port: int) -> None:
    """A page of evil.example whose name resolves to 127.0.0.1 sends its own name as host."""
    assert _get(port, "/", Host=f"evil.example:{port}")[0] == 403
    assert _get(port, "/", Host=f"localhost:{port}")[0] == 200


def test_foreign_pages_may_not_open_the_line(port: int) -> None:
    from websockets.exceptions import InvalidStatus

    for origin in ("http://evil.example", None):
        with pytest.raises(InvalidStatus, match="403"):
            client.connect(f"ws://127.0.0.1:{port}/gsth/line", origin=origin)


def test_without_the_token_nothing_is_answered(guarded: int) -> None:
    for path in ("/", "/gsth/page.js", "/?token=guess", "/?token="):
        assert _get(guarded, path)[0] == 401
    assert _get(guarded, "/", Cookie="gsth_token=guess")[0] == 401


def test_the_token_goes_into_a_cookie_and_out_of_the_address(guarded: int) -> None:
    status, headers, _ = _get(guarded, "/?token=open%20sesame&x=1")
    assert (status, headers["Location"]) == (303, "/?x=1")
    assert "HttpOnly" in headers["Set-Cookie"]
    assert _get(guarded, "/", Cookie="a=b; gsth_token=open sesame")[0] == 200
    # no redirect to somewhere else, whatever the path looks like
    assert _get(guarded, "//evil.example/?token=open%20sesame")[1]["Location"].startswith("/evil.example")


def test_so_many_visitors_and_no_more(port: int) -> None:
    upgrade = (
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Origin: http://127.0.0.1:{port}\r\n\r\n"
    ).encode()
    door = Door("127.0.0.1", None, 2)
    request = Request.parse(upgrade)
    assert request is not None
    assert door._refusal(request) is None
    door._inside = 2
    refused = door._refusal(request)
    assert refused is not None and refused[0] == 503
    assert b"200" in _raw(port, upgrade, ends=False)[:20]  # this one is let through to what stands behind
    assert b"200" in _raw(port, upgrade, ends=False)[:20]
    assert b"200" in _raw(port, upgrade, ends=False)[:20]  # and has left again


def test_messages_arrive_and_answers_come(port: int, host: Host) -> None:
    with _line(port) as line:
        line.send('{"do": "key", "name": "play"}')
        assert "hello first" in json.loads(line.recv(timeout=60))["text"]
        line.send('{"do": "hello", "visitor": 3}')
        line.send('{"do": "key", "name": "play"}')
        until(lambda: len(host.messages) == 2, "both messages")


def test_a_file_arrives_under_a_name_of_ours_and_is_gone_afterwards(port: int, host: Host) -> None:
    with _line(port) as line:
        line.send('{"do": "hello", "visitor": 3}')
        line.send(json.dumps({"do": "file", "name": "../../../etc/x.WAV", "size": 4, "purpose": "p"}))
        line.send(b"abcd")
        assert json.loads(line.recv(timeout=60)) == {"t": "taken"}
    file, content, path = host.files[0]
    assert content == b"abcd" and file.purpose == "p"
    assert path.name == "upload.wav" and path.parent.name.startswith("gsth-upload-")
    until(lambda: not path.parent.exists(), "its folder to be gone")


@pytest.mark.parametrize(
    ("name", "size", "content", "reason"),
    [
        ("x.exe", 4, b"abcd", "files may end in"),
        ("x", 4, b"abcd", "files may end in"),
        ("x.wav\x00.exe", 4, b"abcd", "files may end in"),
        ("x.wav", 5, b"abcd", "4 bytes instead of 5"),
        ("x.wav", 10**12, b"", "want 1 to 64 MiB"),
    ],
)
def test_wrong_files_are_refused(port: int, host: Host, name: str, size: int, content: bytes, reason: str) -> None:
    with _line(port) as line:
        line.send('{"do": "hello", "visitor": 3}')
        line.send(json.dumps({"do": "file", "name": name, "size": size}))
        if content:
            line.send(content)
        assert reason in json.loads(line.recv(timeout=60))["text"]
        line.send(b"unasked")
        assert "nobody asked for" in json.loads(line.recv(timeout=60))["text"]
    assert host.files == []


def test_a_file_that_is_too_large_ends_the_line(host: Host, behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from websockets.exceptions import ConnectionClosed

    monkeypatch.setattr(protocol, "MAX_FILE", 1000)
    link = Link(host, Door("127.0.0.1", None, 2))
    port = link.start(0, behind)
    try:
        with _line(port) as line:
            line.send('{"do": "hello", "visitor": 3}')
            line.send(json.dumps({"do": "file", "name": "x.wav", "size": 1000}))
            with pytest.raises(ConnectionClosed, match="1009"):
                line.send(b"x" * 2000)
                line.recv(timeout=60)
        assert host.files == []
    finally:
        link.stop()


def test_sound_comes_only_while_it_is_listened_to(port: int, host: Host) -> None:
    with _line(port) as line:
        line.send('{"do": "hello", "visitor": 3}')
        line.send('{"do": "listen", "rate": 16000}')
        line.send(b"\0\1")
        line.send('{"do": "hush"}')
        line.send(b"\0\1")
        assert "nobody asked for" in json.loads(line.recv(timeout=60))["text"]
    assert host.pieces == [b"\0\1"]


def test_a_defect_is_told_and_the_line_goes_on(port: int, host: Host) -> None:
    with _line(port) as line:
        line.send('{"do": "hello", "visitor": 13}')
        assert "ZeroDivisionError" in json.loads(line.recv(timeout=60))["text"]
        line.send('{"do": "hello", "visitor": 3}')
        until(lambda: len(host.messages) == 1, "the next message")


def test_noise_breaks_neither_door_nor_line(
    port: int, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dice = random.Random(7)
    heads = [
        b"",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET http://evil/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"\x16\x03\x01" + bytes(range(256)),
        *(dice.randbytes(dice.randrange(400)) + b"\r\n\r\n" for _ in range(40)),
    ]
    for head in heads:
        assert b"200 OK" not in _raw(port, head)
    with _line(port) as line:
        line.send('{"do": "hello", "visitor": 3}')
        for _ in range(120):
            noise = dice.randbytes(dice.randrange(60))
            line.send(dice.choice((noise, noise.decode("latin-1"), json.dumps({"do": "file", "name": "a", "size": 3}))))
        line.send('{"do": "key", "name": "play"}')
        until(lambda: any(isinstance(m, protocol.Key) for m in host.messages), "the key after the noise")
    assert _get(port, "/")[0] == 200
    until(lambda: not list(tmp_path.iterdir()), "every folder to be gone")


def test_a_taken_port_is_an_error_and_leaves_nothing_running(host: Host, behind: int, port: int) -> None:
    threads = threading.active_count()
    with pytest.raises(OSError):
        Link(host, Door("127.0.0.1", None, 2)).start(port, behind)
    until(lambda: threading.active_count() <= threads, "the threads to end")
