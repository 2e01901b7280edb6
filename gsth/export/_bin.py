"""``avatar.gsth.bin``: what the web player loads, and back. The layout is in docs/player.md.

A file is ``MAGIC``, two little-endian uint32 (version, length of the header), the header (JSON) and the payload (gzip).
The header's ``arrays`` say where in the unzipped payload each array lies; one with ``start`` and ``step`` holds
integers q that stand for start + step q, per entry of its last axis. Only vertices and triangles that carry splats
are in it; ``vert_ids`` and ``face_ids`` are their numbers in the head model.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsth import audio, head, speech
from gsth.avatar import Avatar, Correctives, Source
from gsth.errors import ArtifactError, InputError
from gsth.export import _scene, _slim
from gsth.head import JOINTS, PARENTS, HeadModel
from gsth.types import Cameras, HeadId, Identity, Motion, RiggedSplats

log = logging.getLogger(__name__)

MAGIC = b"GSTHAVTR"
VERSION = 2
"""1 had no ``corrective_reach`` and no ``mapped``."""
MAX_PAYLOAD = 256 << 20
"""Larger payloads are refused unread; an avatar of 200,000 splats with 12 correctives has 25 MB."""
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, struct.error, zlib.error)
"""What a file of other content than expected leads to."""
_ALIGN = 16
_CULLED_PARTS = ("face", "neck")
"""Closed skin: what lies on its far side cannot be seen, so the player may leave it out."""
_QUAT_BITS = 10
_DTYPES = {"u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16, "u32": np.uint32, "f16": np.float16}
_DTYPES["f32"] = np.float32


@dataclass
class _Payload:
    """Collects arrays and where they lie."""

    table: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, name: str, array: np.ndarray | Tensor, dtype: str, **more: Any) -> None:
        """Append one array, little-endian, aligned."""
        values = np.ascontiguousarray(array, dtype=np.dtype(_DTYPES[dtype]).newbyteorder("<"))
        self.table[name] = {"dtype": dtype, "shape": list(values.shape), "offset": self.size, **more}
        data = values.tobytes()
        self.parts.append(data + bytes(-len(data) % _ALIGN))
        self.size += len(self.parts[-1])

    def add_range(self, name: str, values: Tensor, dtype: str) -> None:
        """Append integers that spread over each last-axis entry's own range; start and step are exact in float32."""
        x = values.detach().double().numpy()
        flat = x.reshape(-1, x.shape[-1])
        low, high = (flat.min(0), flat.max(0)) if len(flat) else (np.zeros(x.shape[-1]),) * 2
        info = np.iinfo(_DTYPES[dtype])
        step = ((high - low) / (info.max - info.min)).astype(np.float32).astype(np.float64)
        step = np.where(step == 0, 1.0, step)
        start = (low - info.min * step).astype(np.float32).astype(np.float64)
        q = np.clip(np.round((x - start) / step), info.min, info.max)
        self.add(name, q, dtype, start=start.tolist(), step=step.tolist())


# ---------------------------------------------------------------------------------------------- writing


def pack(avatar: Avatar, track: Motion, extra: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of ``avatar.gsth.bin``.

    Args:
        avatar: Any head model with at most 65,536 vertices and triangles in use. SH beyond degree 1 is left out.
        track: Motion that the page can play.
        extra: More entries of the header, JSON values.

    Raises:
        InputError: The head model is too large.
    """
    payload = _Payload()
    order = torch.argsort(avatar.splats.face_ids, stable=True)  # neighbours in memory: faster to rig, smaller to zip
    face_ids, face_slot = torch.unique(avatar.splats.face_ids[order], return_inverse=True)
    corners = avatar.head.faces[face_ids]
    vert_ids, local = torch.unique(corners, return_inverse=True)
    if max(int(face_ids.max()), int(vert_ids.max())) > 65535:
        raise InputError("the web player reads head models of up to 65,536 vertices and triangles; this one has more")
    _pack_mesh(payload, avatar, vert_ids, local, face_ids)
    _pack_splats(payload, avatar.splats, order, face_slot)
    if avatar.correctives is not None:
        _pack_correctives(payload, avatar.correctives, order)
    _pack_track(payload, track)
    mapped = avatar.meta.get("expression_map")
    if mapped is not None:
        payload.add("expression_map", np.asarray(mapped["matrix"]), "f32")
    voice = voice_layout(avatar.speech)
    if voice is not None:
        for name in voice["arrays"]:
            payload.add(f"voice/{name}", avatar.speech[name].detach().cpu(), "u16" if name == "moved" else "f16")
    header = {
        "format": "gsth.avatar",
        "head": vars(avatar.head.id),
        "frame": "x right, y down, z forward; m; quaternions wxyz",
        "expressions": list(avatar.head.expression_names),
        **({} if mapped is None else {"mapped": list(mapped["names"])}),
        "joints": list(JOINTS),
        "parents": list(PARENTS),
        "camera": {
            "width": avatar.cameras.width,
            "height": avatar.cameras.height,
            "K": avatar.cameras.Ks[0].tolist(),
        },
        "fps": track.fps,
        **({} if voice is None else {"voice": voice["header"]}),
        **(extra or {}),
        "payload_bytes": payload.size,
        "arrays": payload.table,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    zipped = gzip.compress(b"".join(payload.parts), 9, mtime=0)
    return MAGIC + struct.pack("<II", VERSION, len(text)) + text + zipped


def voice_layout(speech_arrays: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """What the player must know of a speech network, and its arrays' names; None where it cannot run this one.

    The player runs the network of ``gsth.drive`` (dilated causal convolutions, residual), its width a multiple of 4.
    """
    blocks = sum(1 for name in speech_arrays if re.fullmatch(r"net\.blocks\.\d+\.norm\.weight", name))
    dense = ["net.stem.linear", "net.norm", "net.head"]
    dense += [f"net.blocks.{i}.{part}" for i in range(blocks) for part in ("norm", "conv.linear", "mix")]
    names = [f"{name}.{part}" for name in dense for part in ("weight", "bias")]
    names += ["weight", "bias", "rest", "closed", "moved"]
    if not 0 < blocks <= len(speech.NET.dilations) or any(name not in speech_arrays for name in names):
        return None
    if unknown := {n for n in speech_arrays if n.startswith("net.")} - set(names):
        log.info("the player does not know the voice's %s", sorted(unknown))
        return None
    width = len(speech_arrays["net.norm.weight"])
    fits = tuple(speech_arrays["net.stem.linear.weight"].shape) == (width, 6 * audio.BANDS) and width % 4 == 0
    if not fits or tuple(speech_arrays["net.blocks.0.conv.linear.weight"].shape) != (width, 3 * width):
        return None
    said = [speech.Phoneme(s, a, b) for s, a, b in (("", 0.0, 0.4), ("m", 0.4, 0.6), ("", 0.6, 1.0))]
    net, lips = speech.NET, "mouthPressLeft"  # which nothing but closures moves
    header = {
        "dilations": list(net.dilations[:blocks]),
        "delay": net.delay,
        "press": net.curves.index(lips),
        "full_press": float(speech.visemes(said, net.steps_hz, net.steps_hz, (lips,))[net.steps_hz // 2, 0]),
        "closure": list(net.closure),
    }
    return {"header": header, "arrays": [*names, *(n for n in ("evidence",) if n in speech_arrays)]}


def _pack_mesh(payload: _Payload, avatar: Avatar, vert_ids: Tensor, local: Tensor, face_ids: Tensor) -> None:
    model, shaped = avatar.head, avatar.shaped
    payload.add("vert_ids", vert_ids, "u16")
    payload.add("face_ids", face_ids, "u16")
    payload.add("faces", local, "u16")
    payload.add("face_flags", torch.isin(face_ids, _closed(model)), "u8")
    payload.add("rest", shaped.rest[vert_ids], "f32")
    payload.add("weights", (model.weights[vert_ids] * 65535).round(), "u16")
    payload.add("pivots", shaped.pivots, "f32")
    payload.add("identity", avatar.identity.shape, "f32")
    basis = model.expr_basis[:, vert_ids]
    step = (basis.abs().amax((1, 2)) / 32767).clamp_min(1e-12)
    q = (basis / step[:, None, None]).round().to(torch.int16)
    moving = (q != 0).any(-1)
    payload.add("basis_step", step, "f32")
    payload.add("basis_count", moving.sum(1), "u32")
    payload.add("basis_vert", moving.nonzero()[:, 1], "u16")
    payload.add("basis_delta", q[moving], "i16")


def _closed(model: HeadModel) -> Tensor:
    parts = [model.parts[name] for name in _CULLED_PARTS if name in model.parts]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def _pack_splats(payload: _Payload, splats: RiggedSplats, order: Tensor, face_slot: Tensor) -> None:
    payload.add("splat_face", face_slot, "u16")
    payload.add_range("splat_mean", splats.means_tri[order], "u16")
    payload.add("splat_quat", pack_quats(splats.quats_tri[order].detach().numpy()), "u32")
    payload.add_range("splat_log_scale", splats.log_scales[order], "u16")
    payload.add("splat_opacity", (torch.sigmoid(splats.logit_opacities[order]) * 65535).round(), "u16")
    payload.add_range("splat_sh0", splats.sh[order, 0], "u16")
    if splats.sh.shape[1] >= 4:
        payload.add_range("splat_sh1", splats.sh[order, 1:4].flatten(1), "u8")


def _pack_correctives(payload: _Payload, c: Correctives, order: Tensor) -> None:
    payload.add("corrective_mean", c.mean, "f32")
    payload.add("corrective_basis", c.basis, "f32")
    # One splat's offsets are a hundredth of another's, and errors swap the order of neighbours: each has a scale of its
    # own. Its root gives faint splats fewer bits than they could have, and files two thirds of the growth.
    share = (c.means_delta.abs() / c.means_delta.abs().amax(0).clamp_min(1e-12)).amax((1, 2))[order]
    reach = (share.sqrt() * 65535).ceil().clamp_min(1)
    payload.add("corrective_reach", reach, "u16")
    for name, delta, scale in (
        ("corrective_means", c.means_delta, reach / 65535),
        ("corrective_sh0", c.sh_delta, torch.ones_like(reach)),
    ):
        step = (delta.abs().amax(0) / 127).clamp_min(1e-12)
        # Planes [b, 3, n]: a plane's bytes are alike, which zips better than splat by splat.
        q = (delta[order] / step / scale[:, None, None]).round().clamp(-127, 127)
        payload.add(name, q.permute(1, 2, 0), "i8")
        payload.add(f"{name}_step", step, "f32")


def _pack_track(payload: _Payload, track: Motion) -> None:
    if float(track.expr.min()) < 0:  # of a personal basis, whose weights have either sign
        payload.add_range("track_expr", track.expr, "u16")
    else:
        payload.add("track_expr", (track.expr.clamp(0, 1) * 65535).round(), "u16")
    quats = track.joints / track.joints.norm(dim=-1, keepdim=True)
    payload.add("track_joints", (quats * 32767).round(), "i16")
    payload.add("track_place", track.T_world_head, "f32")


def pack_quats(quats: np.ndarray) -> np.ndarray:
    """Smallest-three code, uint32 [n]: two bits name the largest component, ten bits hold each other one in order.

    Args:
        quats: wxyz, any length but 0, [n 4].
    """
    unit = quats.astype(np.float64) / np.linalg.norm(quats, axis=1, keepdims=True)
    largest = np.abs(unit).argmax(1)
    unit = unit * np.where(np.take_along_axis(unit, largest[:, None], 1) < 0, -1.0, 1.0)
    others = unit[np.arange(4)[None] != largest[:, None]].reshape(-1, 3)
    top = (1 << _QUAT_BITS) - 1
    q = np.round((others * np.sqrt(2) + 1) / 2 * top).clip(0, top).astype(np.uint32)
    return largest.astype(np.uint32) << 30 | q[:, 0] << 20 | q[:, 1] << 10 | q[:, 2]


def unpack_quats(codes: np.ndarray) -> np.ndarray:
    """Unit quaternions wxyz [n 4] of ``pack_quats``'s codes [n]."""
    top = (1 << _QUAT_BITS) - 1
    others = np.stack([(codes >> shift) & top for shift in (20, 10, 0)], 1) / top * 2 - 1
    others = others / np.sqrt(2)
    largest = codes >> 30
    out = np.empty((len(codes), 4))
    mask = np.arange(4)[None] != largest[:, None]
    out[mask] = others.reshape(-1)
    out[~mask] = np.sqrt(np.maximum(1 - (others**2).sum(1), 0))
    return out


# ---------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Contents:
    """A file's header and its arrays, integers still as they are stored."""

    header: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def values(self, name: str) -> Tensor:
        """An array as float32, with start and step applied."""
        entry, x = self.header["arrays"][name], self.arrays[name].astype(np.float64)
        if "step" in entry:
            x = np.asarray(entry["start"]) + np.asarray(entry["step"]) * x
        return torch.from_numpy(x.astype(np.float32))

    def ids(self, name: str) -> Tensor:
        """An array of indices as int64."""
        return torch.from_numpy(self.arrays[name].astype(np.int64))


def read(data: bytes, name: str = "avatar.gsth.bin") -> Contents:
    """Header and arrays. Raises ArtifactError, which calls the file ``name``, where it is damaged or too new."""
    try:
        if data[:8] != MAGIC:
            raise ValueError(f"it begins with {data[:8]!r}, wanted {MAGIC!r}")
        version, length = struct.unpack_from("<II", data, 8)
        if version > VERSION:
            raise ArtifactError(f"{name}: is of version {version}, this gsth reads up to {VERSION}; update gsth")
        header = json.loads(data[16 : 16 + length])
        size = int(header["payload_bytes"])
        if not 0 <= size <= MAX_PAYLOAD:
            raise ValueError(f"its payload of {size} bytes is out of bounds")
        payload = zlib.decompressobj(31).decompress(data[16 + length :], size + 1)
        if len(payload) != size:
            raise ValueError(f"its payload has {len(payload)} bytes, its header promises {size}")
        arrays = {key: _array(payload, key, entry) for key, entry in header["arrays"].items()}
    except _DAMAGE as error:
        raise ArtifactError(f"{name}: is damaged or no avatar ({error}); export it again") from error
    return Contents(header, arrays)


def _array(payload: bytes, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<")
    shape, offset = tuple(int(s) for s in entry["shape"]), int(entry["offset"])
    count = 1
    for s in shape:
        count *= s
    if min((*shape, offset)) < 0 or offset + count * dtype.itemsize > len(payload):
        raise ValueError(f"array {name!r} reaches out of the file")
    return np.frombuffer(payload, dtype, count, offset).reshape(shape)


def unpack(data: bytes, name: str = "avatar.gsth.bin") -> Avatar:
    """The avatar that a file holds, as exact as it is stored; its motion is the track.

    Raises:
        ArtifactError: The file is damaged, incomplete or too new.
        InputError: It stands on a head model that is not installed.
    """
    contents = read(data, name)
    try:
        made = _avatar_of(contents, name, hashlib.sha256(data).hexdigest())
        _scene.check(made)
    except InputError:
        raise  # it is also a ValueError
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise ArtifactError(f"{name}: does not hold a whole avatar ({error}); export it again") from error
    return made


def _avatar_of(contents: Contents, name: str, digest: str) -> Avatar:
    header, values, ids = contents.header, contents.values, contents.ids
    head_id = HeadId(**header["head"])
    model = _head_of(head_id, header["expressions"], name)
    shape = values("identity")
    plain = model.shaped(Identity(head_id, shape))
    offsets = torch.zeros_like(model.template)
    offsets[ids("vert_ids")] = values("rest") - plain.rest[ids("vert_ids")]
    opacity = (values("splat_opacity") / 65535).clamp(1e-6, 1 - 1e-6)
    sh = values("splat_sh0")[:, None]
    if "splat_sh1" in contents.arrays:
        sh = torch.cat((sh, values("splat_sh1").reshape(-1, 3, 3)), 1)
    splats = RiggedSplats(
        face_ids=ids("face_ids")[ids("splat_face")],
        means_tri=values("splat_mean"),
        quats_tri=torch.from_numpy(unpack_quats(contents.arrays["splat_quat"])).float(),
        log_scales=values("splat_log_scale"),
        logit_opacities=torch.logit(opacity),
        sh=sh,
    )
    place = values("track_place")
    joints = values("track_joints") / 32767
    frames = len(place)
    expr = values("track_expr")
    expr = expr if "step" in header["arrays"]["track_expr"] else expr / 65535
    motion = Motion(head_id, header["fps"], expr, joints, place)
    camera = header["camera"]
    return Avatar(
        head=model,
        identity=Identity(head_id, shape, offsets),
        splats=splats,
        cameras=Cameras(torch.eye(4)[None], torch.tensor([camera["K"]]), camera["width"], camera["height"]),
        motion=motion,
        source=Source(
            Path(name),
            digest,
            header["fps"],
            (0, 0, camera["width"], camera["height"]),
            frames,
            frame_ids=torch.arange(frames),
            found=torch.zeros(frames, dtype=torch.bool),
            error_pct=torch.zeros(frames),
        ),
        correctives=_correctives_of(contents),
        speech=_speech_of(contents),
    )


def _head_of(head_id: HeadId, expressions: Sequence[str], name: str) -> HeadModel:
    """The installed head, or some of its expressions.

    Raises:
        InputError: It is none of these; a page holds too little of a head to be one.
    """
    if head.installed(head_id):
        return head.load(head_id)
    if head_id.name == _slim.PERSONAL:
        raise InputError(
            f"{name}: stands on a personal basis, of which it holds only the triangles that carry splats; "
            "import a .glb of the avatar instead"
        )
    model = _slim.fewer_expressions(head.load(head_id.name), tuple(expressions))
    return model if model.id == head_id else head.load(head_id)


def _correctives_of(contents: Contents) -> Correctives | None:
    if "corrective_mean" not in contents.arrays:
        return None
    means, sh0 = (
        (contents.values(n) * contents.values(f"{n}_step")[..., None]).permute(2, 0, 1)
        for n in ("corrective_means", "corrective_sh0")
    )
    if "corrective_reach" in contents.arrays:
        means = means * (contents.values("corrective_reach") / 65535)[:, None, None]
    return Correctives(contents.values("corrective_mean"), contents.values("corrective_basis"), means, sh0)


def _speech_of(contents: Contents) -> dict[str, Tensor]:
    names = [n.removeprefix("voice/") for n in contents.arrays if n.startswith("voice/")]
    return {n: contents.ids(f"voice/{n}") if n == "moved" else contents.values(f"voice/{n}") for n in names}
