"""SPZ (Niantic): splats in about 20 bytes, compressed. Reads version 2 to 4, writes 3 and 4.

Layout, checked against github.com/nianticlabs/spz and by foreign readers in the tests: sections positions (24-bit
fixed point), alphas, colours, scales, rotations (smallest three), SH; version 3 is one gzip stream with a 16-byte
header, version 4 a plain 32-byte header, a table of sizes and one zstd stream per section. Axes are RUB: x right, y up,
z towards the viewer, which is the export frame.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsth.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from gsth.types import Splats

MAX_SPLATS = 20_000_000
_MAGIC = 0x5053474E
_HEADER = struct.Struct("<IIIBBBB")
_FRACTION_BITS = 16
"""Steps of 15 micrometres, up to 128 m: finer than the usual 12 bits, which are 0.24 mm and show on a face."""
_COLOUR_SCALE = 0.15
_COEFFICIENTS = (0, 3, 8, 15)
_SH_BUCKET = (8, 16)
"""Steps of degree 1, and above: the reference's 5 and 4 bits."""
_SQRT_HALF = 0.5**0.5
_AXES = np.array(((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)))
"""Components (xyzw) that are kept where component i is the largest."""


def to_bytes(splats: Splats, version: int) -> bytes:
    """A file of version 3 or 4. Raises MissingExtraError where version 4 lacks zstandard."""
    degree = (1, 4, 9, 16).index(splats.sh.shape[1])
    sections = _sections(splats)
    n = len(splats.means)
    if version == 3:
        header = _HEADER.pack(_MAGIC, 3, n, degree, _FRACTION_BITS, 0, 0)
        return gzip.compress(header + b"".join(sections), 9, mtime=0)
    zstd = _zstandard().ZstdCompressor(level=12)
    sections = [s for s in sections if s]
    streams = [zstd.compress(s) for s in sections]
    header = _HEADER.pack(_MAGIC, 4, n, degree, _FRACTION_BITS, 0, len(streams)) + struct.pack("<I12x", 32)
    table = b"".join(struct.pack("<QQ", len(c), len(s)) for c, s in zip(streams, sections, strict=True))
    return header + table + b"".join(streams)


def _sections(splats: Splats) -> list[bytes]:
    means, quats, scales, opacities, sh = (
        getattr(splats, name).detach().numpy().astype(np.float64)
        for name in ("means", "quats", "scales", "opacities", "sh")
    )
    limit = 2**23 - 1
    fixed = np.clip(np.round(means * 2**_FRACTION_BITS), -limit, limit).astype("<i4")
    positions = fixed[..., None].view(np.uint8)[..., :3]
    colours = sh[:, 0] * (_COLOUR_SCALE * 255) + 127.5
    logs = (np.log(np.maximum(scales, 1e-9)) + 10) * 16
    higher = []
    for k in range(1, sh.shape[1]):
        bucket = _SH_BUCKET[k > 3]
        steps = np.round(sh[:, k] * 128 + 128).astype(np.int64)
        higher.append((steps + bucket // 2) // bucket * bucket)
    rest = np.stack(higher, 1) if higher else np.zeros((len(means), 0, 3))
    values = (positions, opacities * 255, colours, logs, _smallest_three(quats), rest)
    return [v.tobytes() if v.dtype == np.uint8 else _bytes(v) for v in map(np.ascontiguousarray, values)]


def _bytes(values: np.ndarray) -> bytes:
    return np.clip(np.round(values), 0, 255).astype(np.uint8).tobytes()


def _smallest_three(quats: np.ndarray) -> np.ndarray:
    """[n 4] bytes: index of the largest component (xyzw) and the other three as sign and 9 bits."""
    q = quats[:, [1, 2, 3, 0]]
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    largest = np.abs(q).argmax(1)
    rows = np.arange(len(q))
    q = q * np.where(q[rows, largest] < 0, -1, 1)[:, None]
    kept = np.take_along_axis(q, _AXES[largest], 1)
    magnitude = np.minimum((511 * np.abs(kept) / _SQRT_HALF + 0.5).astype(np.uint32), 511)
    packed = largest.astype(np.uint32)
    for i in range(3):
        packed = (packed << 10) | ((kept[:, i] < 0).astype(np.uint32) << 9) | magnitude[:, i]
    return packed.astype("<u4")[:, None].view(np.uint8)


def from_bytes(data: bytes, name: Path | str) -> Splats:
    """The splats of a file of version 2, 3 or 4, in its own axes.

    Raises:
        InputError: It is no spz, of another version, cut off, or promises more than it holds.
        MissingExtraError: Version 4 lacks zstandard.
    """
    if data[:2] == b"\x1f\x8b":
        header, body = _gunzipped(data, name)
    elif data[:4] == struct.pack("<I", _MAGIC) and len(data) >= 32:
        header, body = _unstreamed(data, name)
    else:
        raise InputError(f"{name}: is not an spz file; want gzip (version 2, 3) or NGSP (version 4) at its start")
    return _unpacked(header, body)


def _checked(data: bytes, name: Path | str, versions: tuple[int, ...]) -> tuple[int, int, int, int, list[int]]:
    """Version, splats, degree, fraction bits and section sizes of a header."""
    magic, version, n, degree, bits, _, _ = _HEADER.unpack_from(data.ljust(16, b"\0"))
    if magic != _MAGIC or version not in versions:
        raise InputError(f"{name}: spz of version {version}, or damaged; want version 2, 3 or 4")
    if n > MAX_SPLATS or degree > 3 or not 1 <= bits <= 24:
        raise InputError(
            f"{name}: promises {n} splats of SH degree {degree} with {bits} fraction bits; want at most {MAX_SPLATS}, "
            "degree 0 to 3, and 1 to 24 bits"
        )
    sizes = [9 * n, n, 3 * n, 3 * n, (3 if version == 2 else 4) * n, 3 * _COEFFICIENTS[degree] * n]
    return version, n, degree, bits, sizes


def _gunzipped(data: bytes, name: Path | str) -> tuple[tuple[Any, ...], bytes]:
    inflate = zlib.decompressobj(wbits=31)
    try:
        start = inflate.decompress(data, _HEADER.size)
        header = _checked(start, name, (2, 3))
        wanted = sum(header[4])
        # never more than the header promises, however much the stream would give
        body = start[_HEADER.size :] + inflate.decompress(inflate.unconsumed_tail, wanted + 1)
    except zlib.error as error:
        raise InputError(f"{name}: its gzip stream is damaged ({error}); copy it again") from error
    if len(body) != wanted:
        raise InputError(f"{name}: promises {wanted} bytes of splats, holds {len(body)}: cut off; copy it again")
    return header, body


def _unstreamed(data: bytes, name: Path | str) -> tuple[tuple[Any, ...], bytes]:
    header = _checked(data, name, (4,))
    count, start = data[15], struct.unpack_from("<I", data, 16)[0]
    sizes = [s for s in header[4] if s]
    if count != len(sizes) or start < 32 or start + 16 * count > len(data):
        raise InputError(f"{name}: its table of {count} streams does not fit; want {len(sizes)}; copy it again")
    zstandard = _zstandard()
    at, parts = start + 16 * count, []
    for i, size in enumerate(sizes):
        packed, plain = struct.unpack_from("<QQ", data, start + 16 * i)
        if plain != size or packed > len(data) - at:
            raise InputError(f"{name}: stream {i} promises {plain} bytes, wanted {size}: damaged; copy it again")
        try:
            reader = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(data[at : at + packed])
            part = reader.read(size + 1)
        except zstandard.ZstdError as error:
            raise InputError(f"{name}: stream {i} is damaged ({error}); copy it again") from error
        if len(part) != size:
            raise InputError(f"{name}: stream {i} holds {len(part)} bytes, wanted {size}: damaged; copy it again")
        parts.append(part)
        at += packed
    return header, b"".join(parts)


def _unpacked(header: tuple[Any, ...], body: bytes) -> Splats:
    import torch

    from gsth.types import Splats

    version, n, degree, bits, sizes = header
    ends = np.cumsum(sizes)
    raw = [np.frombuffer(body, np.uint8, size, end - size) for size, end in zip(sizes, ends, strict=True)]
    fixed = np.zeros((n * 3, 4), np.uint8)
    fixed[:, 1:] = raw[0].reshape(-1, 3)
    means = (fixed.view("<i4")[:, 0] >> 8).reshape(n, 3) / 2.0**bits
    sh = np.zeros((n, 1 + _COEFFICIENTS[degree], 3))
    sh[:, 0] = (raw[2].reshape(n, 3) / 255 - 0.5) / _COLOUR_SCALE
    sh[:, 1:] = (raw[5].reshape(n, -1, 3) - 128.0) / 128
    quats = _first_three(raw[4].reshape(n, 3)) if version == 2 else _from_smallest_three(raw[4])
    values = (means, quats, np.exp(raw[3].reshape(n, 3) / 16 - 10), raw[1] / 255, sh)
    return Splats(*(torch.from_numpy(np.ascontiguousarray(v)).float() for v in values))


def _from_smallest_three(raw: np.ndarray) -> np.ndarray:
    """wxyz [n 4]."""
    packed = raw.view("<u4")
    largest = (packed >> 30).astype(np.int64)
    kept = np.stack([(packed >> shift) & 0x3FF for shift in (20, 10, 0)], 1)
    values = (kept & 0x1FF) / 511 * _SQRT_HALF * np.where(kept & 0x200, -1, 1)
    q = np.zeros((len(packed), 4))
    np.put_along_axis(q, _AXES[largest], values, 1)
    q[np.arange(len(q)), largest] = np.sqrt(np.maximum(0, 1 - (values**2).sum(1)))
    return q[:, [3, 0, 1, 2]]


def _first_three(raw: np.ndarray) -> np.ndarray:
    """wxyz [n 4]."""
    xyz = raw / 127.5 - 1
    return np.concatenate((np.sqrt(np.maximum(1e-12, 1 - (xyz**2).sum(1, keepdims=True))), xyz), 1)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtraError("zstandard", "export", "spz version 4") from error
    return zstandard
