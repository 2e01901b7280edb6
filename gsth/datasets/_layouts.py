"""How each set lies on disk. Most are told by their paths alone; the others have a function."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsth.datasets import Sample
from gsth.errors import InputError

VIDEOS = (".mp4", ".mpg", ".flv", ".avi", ".mov", ".mkv", ".webm")


@dataclass(frozen=True)
class _Paths:
    """A set whose paths say everything."""

    glob: str
    pattern: str
    """Of the path under the root; the groups ``identity`` and ``name`` are fields, the others labels."""
    sound: str | None = None
    """Path of the sound under the root, in terms of the groups."""
    text: Callable[[Path], str | None] | None = None
    """Reads what is said, given the video."""

    def read(self, dataset: str, root: Path) -> Iterator[Sample]:
        for video in root.glob(self.glob):
            found = re.fullmatch(self.pattern, video.relative_to(root).as_posix())
            if found is None:
                continue
            groups = {k: v for k, v in found.groupdict().items() if v is not None}
            sound = root / self.sound.format(**groups) if self.sound else None
            identity, name = groups.pop("identity"), groups.pop("name")
            unique = "_".join([identity, *groups.values(), name])
            said = self.text(video) if self.text else None
            heard = sound if sound is not None and sound.is_file() else None
            yield Sample(dataset, identity, unique, video, sound=heard, text=said, labels=groups)


def _lrs_text(video: Path) -> str | None:
    """LRS2 and LRS3: the first line is ``Text:  WORDS``."""
    return _first(video.with_suffix(".txt"), r"Text:\s*(.+)")


def _grid_text(video: Path) -> str | None:
    """GRID: lines of start, end (25,000 a second) and word, under align/ beside or above the videos."""
    places = [video.with_suffix(".align"), *(p / "align" / f"{video.stem}.align" for p in video.parents[:3])]
    file = next((p for p in places if p.is_file()), None)
    if file is None:
        return None
    words = [line.split()[2] for line in file.read_text().splitlines() if len(line.split()) == 3]
    return " ".join(w for w in words if w not in ("sil", "sp"))


def _first(path: Path, pattern: str) -> str | None:
    found = re.search(pattern, path.read_text()) if path.is_file() else None
    return found[1].strip() if found else None


_PATHS: Mapping[str, _Paths] = {
    "mead": _Paths(
        "*/video/*/*/level_*/*.mp4",
        r"(?P<identity>[MW]\d+)/video/(?P<view>\w+)/(?P<emotion>\w+)/level_(?P<level>\d)/(?P<name>\d+)\.mp4",
        "{identity}/audio/{emotion}/level_{level}/{name}.m4a",
    ),
    "voxceleb2": _Paths(
        "**/mp4/id*/*/*.mp4", r"(?P<split>\w+)/mp4/(?P<identity>id\d+)/(?P<video>[\w-]{11})/(?P<name>\d+)\.mp4"
    ),
    "lrs2": _Paths("main/*/*.mp4", r"main/(?P<identity>\d+)/(?P<name>\d+)\.mp4", text=_lrs_text),
    "lrs3": _Paths(
        "*/*/*.mp4", r"(?P<split>pretrain|trainval|test)/(?P<identity>[\w-]{11})/(?P<name>\d+)\.mp4", text=_lrs_text
    ),
    "lrw": _Paths(
        "lipread_mp4/*/*/*.mp4",
        r"lipread_mp4/(?P<identity>[A-Z]+)/(?P<split>train|val|test)/(?P<name>[A-Z]+_\d+)\.mp4",
        text=lambda video: video.parents[1].name,
    ),
    "grid": _Paths("s*/**/*.mpg", r"(?P<identity>s\d+)/(?:video/)?(?:mpg_\d+/)?(?P<name>\w+)\.mpg", text=_grid_text),
    "crema_d": _Paths(
        "VideoFlash/*.flv",
        r"VideoFlash/(?P<identity>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<name>[A-Z]{2})\.flv",
        "AudioWAV/{identity}_{sentence}_{emotion}_{name}.wav",
    ),
    "talkinghead_1kh": _Paths(
        "*/cropped_clips/*.mp4", r"(?P<split>\w+)/cropped_clips/(?P<identity>[\w-]{11})_(?P<name>\d{4}_S\w+)\.mp4"
    ),
    "mmface4d": _Paths(
        "*/*/*.mp4",
        r"(?P<identity>[\w-]+)/(?P<emotion>[\w-]+)/(?P<name>[\w-]+)\.mp4",
        "{identity}/{emotion}/{name}.wav",
    ),
}


def _hdtf(root: Path) -> Iterator[Sample]:
    """Lists of the repository (``RD_annotion_time.txt`` and so on) beside the downloaded videos.

    A line is a video and its stretches: ``Radio10.mp4 00:30-01:00 02:10-03:00``; stretch k is clip ``Radio10_k``, and
    ``*_crop_wh.txt`` gives its part: left, width, top, height in pixels of the resolution in ``*_resolution.txt``.
    """
    for times in root.rglob("*_annotion_time.txt"):
        part = times.name.split("_")[0]
        crops = _table(times.with_name(f"{part}_crop_wh.txt"))
        sizes = _table(times.with_name(f"{part}_resolution.txt"))
        for file, stretches in _table(times).items():
            video = _find(root, part, file)
            if video is None:
                continue
            for k, stretch in enumerate(stretches):
                start, stop = (_seconds(t, times) for t in stretch.split("-"))
                name = f"{part}_{Path(file).stem}_{k}"
                box = _hdtf_box(crops.get(f"{Path(file).stem}_{k}.mp4"), sizes.get(file))
                identity = re.sub(r"\d+$", "", Path(file).stem) if part != "RD" else Path(file).stem
                yield Sample("hdtf", identity, name, video, start_s=start, stop_s=stop, box=box, labels={"part": part})


def _hdtf_box(crop: list[str] | None, size: list[str] | None) -> tuple[float, float, float, float] | None:
    """Heights alone are listed as resolution (720, 1080): pictures are 16 to 9."""
    if crop is None or size is None:
        return None
    left, width, top, height = (float(v) for v in crop)
    rows = float(size[0])
    columns = rows * 16 / 9
    return left / columns, top / rows, (left + width) / columns, (top + height) / rows


def _table(path: Path) -> dict[str, list[str]]:
    """First word of each line to the others."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {words[0]: words[1:] for line in lines if (words := line.split())}


def _seconds(text: str, file: Path) -> float:
    try:
        value = 0.0
        for piece in text.split(":"):
            value = 60 * value + float(piece)
        return value
    except ValueError as error:
        raise InputError(f"{file}: {text!r} is no time; want mm:ss") from error


def _find(root: Path, part: str, file: str) -> Path | None:
    stem = Path(file).stem
    places = (
        root / folder / f"{name}{s}"
        for folder in ("", part, "videos")
        for name in (stem, f"{part}_{stem}")
        for s in VIDEOS
    )
    return next((p for p in places if p.is_file()), None)


def _celebv_hq(root: Path) -> Iterator[Sample]:
    """``celebvhq_info.json`` beside the cut clips (``35666/<id>.mp4``) or the raw videos (``raw/<ytb_id>.mp4``)."""
    info = _json(root / "celebvhq_info.json")
    for name, clip in info.get("clips", {}).items():
        cut = next((p for p in (root / "35666" / f"{name}.mp4", root / f"{name}.mp4") if p.is_file()), None)
        labels = {k: str(v) for k, v in clip.get("attributes", {}).items() if k == "emotion"}
        if cut is not None:
            yield Sample("celebv_hq", clip["ytb_id"], name, cut, labels=labels)
            continue
        raw = _find(root, "raw", clip["ytb_id"] + ".mp4")
        if raw is not None:
            t, b = clip["duration"], clip["bbox"]
            box = (b["left"], b["top"], b["right"], b["bottom"])
            span = (float(t["start_sec"]), float(t["end_sec"]))
            yield Sample(
                "celebv_hq", clip["ytb_id"], name, raw, start_s=span[0], stop_s=span[1], box=box, labels=labels
            )


def _vfhq(root: Path) -> Iterator[Sample]:
    """Folders of frames, ``Clip+<video>+P<person>+C<clip>+F<first>-<last>/00000000.png``."""
    for folder in root.rglob("Clip+*"):
        found = re.fullmatch(r"Clip\+([\w-]{11})\+(P\d+)\+(C\d+)\+F(\d+)-(\d+)", folder.name)
        stills = tuple(sorted(folder.glob("*.png"))) if found and folder.is_dir() else ()
        if found and stills:
            yield Sample("vfhq", f"{found[1]}_{found[2]}", folder.name, stills=stills, fps=25.0)


def _vocaset(root: Path) -> Iterator[Sample]:
    """Meshes at 60 Hz and sound, no pictures."""
    for folder in root.glob("unposedcleaneddata/*/*"):
        meshes = tuple(sorted(folder.glob("*.ply")))
        identity = folder.parent.name
        sound = root / "audio" / identity / f"{folder.name}.wav"
        if meshes:
            heard = sound if sound.is_file() else None
            yield Sample("vocaset", identity, f"{identity}_{folder.name}", meshes=meshes, fps=60.0, sound=heard)


def _multiface(root: Path) -> Iterator[Sample]:
    """``m--<day>--<time>--<person>--GHS/images/<expression>/<camera>/<frame>.png`` with meshes and sound, 30 Hz."""
    for camera in root.glob("m--*--GHS/images/*/*"):
        stills = tuple(sorted(camera.glob("*.png")))
        capture, expression = camera.parents[2], camera.parent.name
        if not stills:
            continue
        identity = capture.name.split("--")[3]
        meshes = tuple(sorted((capture / "tracked_mesh" / expression).glob("*.obj")))
        sound = capture / "audio" / f"{expression}.wav"
        yield Sample(
            "multiface",
            identity,
            f"{identity}_{expression}_{camera.name}",
            stills=stills,
            meshes=meshes,
            fps=30.0,
            sound=sound if sound.is_file() else None,
            labels={"expression": expression, "camera": camera.name},
        )


def _nersemble(root: Path) -> Iterator[Sample]:
    """Version 2: ``<person>/sequences/<sequence>/images/cam_<serial>.mp4``, 73 Hz, no sound in the videos."""
    for video in root.glob("*/sequences/*/images/cam_*.mp4"):
        sequence, identity = video.parents[1].name, video.parents[3].name
        camera = video.stem.removeprefix("cam_")
        labels = {"sequence": sequence, "camera": camera}
        yield Sample("nersemble", identity, f"{identity}_{sequence}_{camera}", video, labels=labels)


def _insta(root: Path) -> Iterator[Sample]:
    """A folder a subject: ``<subject>/<subject>.mp4`` or ``video.mp4``, else frames in ``images/``; 25 Hz."""
    for folder in (p for p in root.iterdir() if p.is_dir()):
        videos = (folder / f"{folder.name}.mp4", folder / "video.mp4", root / f"{folder.name}.mp4")
        video = next((p for p in videos if p.is_file()), None)
        stills = tuple(sorted((folder / "images").glob("*.png"))) if video is None else ()
        if video is not None or stills:
            yield Sample("insta", folder.name, folder.name, video, stills=stills, fps=25.0)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is damaged ({error}); download it again") from error


READERS: Mapping[str, Callable[[Path], Iterator[Sample]]] = {
    **{name: (lambda root, name=name: _PATHS[name].read(name, root)) for name in _PATHS},
    "hdtf": _hdtf,
    "celebv_hq": _celebv_hq,
    "vfhq": _vfhq,
    "vocaset": _vocaset,
    "multiface": _multiface,
    "nersemble": _nersemble,
    "insta": _insta,
}
LOOKS: Mapping[str, str] = {
    **{name: paths.glob for name, paths in _PATHS.items()},
    "hdtf": "*_annotion_time.txt beside the videos",
    "celebv_hq": "celebvhq_info.json beside 35666/ID.mp4 or raw/VIDEO.mp4",
    "vfhq": "Clip+VIDEO+P0+C0+F1-2/00000000.png",
    "vocaset": "unposedcleaneddata/PERSON/SENTENCE/*.ply",
    "multiface": "m--DAY--TIME--PERSON--GHS/images/EXPRESSION/CAMERA/*.png",
    "nersemble": "PERSON/sequences/SEQUENCE/images/cam_SERIAL.mp4",
    "insta": "SUBJECT/SUBJECT.mp4 or SUBJECT/images/*.png",
}
"""What to expect, for the error that says that nothing was found."""
