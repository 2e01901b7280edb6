"""Folders of AD-NeRF and of what descends from it: RAD-NeRF, ER-NeRF, SyncTalk, GaussianTalker, TalkingGaussian.

``transforms_train.json`` and ``transforms_val.json`` (focal_len, cx, cy; frames with img_id), ``ori_imgs/*.jpg``,
``parsing/*.png`` (white is background), ``bc.jpg`` and ``aud.wav``. Their poses stand on the Basel Face
Model, which holds no open equivalent here, so the head is fitted anew; focal length, mattes, background, sound
and the split are taken over. ``aud.npy`` (DeepSpeech's logits, [n 16 29]; of descendants other networks') is not read:
every voice of gsth goes by the sound, and a driver on those features would want their network for each new sound.
Source: https://github.com/YudongGuo/AD-NeRF, data_util/process_data.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsth.errors import InputError
from gsth.track.importers import Foreign, _files

FPS = 25.0
"""AD-NeRF takes videos of 25 frames/s only."""
TRAIN, VAL = "transforms_train.json", "transforms_val.json"


@dataclass(frozen=True)
class Config:
    """A folder that AD-NeRF's data_util, or a descendant's, made."""

    folder: Path
    """With transforms_train.json and ori_imgs/."""

    @classmethod
    def knows(cls, folder: Path) -> bool:
        """Whether its transforms are of that kind, or its pictures are there and only transforms miss."""
        return "focal_len" in _files.peek(folder / TRAIN) or (folder / "ori_imgs").is_dir()

    def build(self) -> Foreign:
        """Read it. InputError names what is missing."""
        train = _files.read_json(self.folder / TRAIN, "AD-NeRF's process_data.py writes it in its last step")
        val = _files.read_json(self.folder / VAL, "AD-NeRF's process_data.py writes it beside the one for training")
        train_ids, val_ids = (_ids(d, self.folder / n) for d, n in ((train, TRAIN), (val, VAL)))
        ids = sorted(set(train_ids + val_ids))
        if len(ids) < 2:
            raise InputError(f"{self.folder / TRAIN}: names {len(ids)} frame(s), wanted a sequence")
        if ids[-1] - ids[0] + 1 != len(ids):
            gap = next(i for i, j in zip(ids, ids[1:], strict=False) if j != i + 1)
            raise InputError(
                f"{self.folder / TRAIN}: frames {gap + 1} and on are in neither {TRAIN} nor {VAL}; the sound would run "
                f"away from the pictures: process the video again"
            )
        pictures = tuple(self.folder / "ori_imgs" / f"{i}.jpg" for i in ids)
        _files.wanted(pictures, "process_data.py extracts the pictures")
        masks = tuple(self.folder / "parsing" / f"{i}.png" for i in ids)
        _files.wanted(masks, "process_data.py writes the face parsing; run that step")
        sound, plate = self.folder / "aud.wav", self.folder / "bc.jpg"
        features = ", ".join(sorted(p.name for p in self.folder.glob("aud*.npy")))  # descendants write aud_hu, aud_eo
        instead = f" (there is {features}, from which no sound comes back)" if features else ""
        _files.wanted([sound], f"process_data.py takes it from the video; run that step, or copy it here{instead}")
        _files.wanted([plate], "process_data.py makes the background; run that step")
        focal = _files.number(_files.key(train, "focal_len", self.folder / TRAIN), f"{self.folder / TRAIN}: focal_len")
        cx, cy = (_files.number(train.get(n, 0), f"{self.folder / TRAIN}: {n}") for n in ("cx", "cy"))
        K = np.array(((focal, 0, cx), (0, focal, cy), (0, 0, 1)))
        return Foreign(
            folder=self.folder,
            pictures=pictures,
            picture=_files.picture,
            mattes=masks,
            matte=person,
            plate=plate,
            sound=sound,
            fps=FPS,
            K=K,
            train_frames=max(1, sum(i < val_ids[0] for i in ids)) if val_ids else len(ids),
            motion=None,
            notices=(
                f"{self.folder}: its poses stand on the Basel Face Model; the head is fitted anew, with its focal "
                f"length ({focal:.0f} px) as the prior, its mattes, background, sound and split",
                *([_unread(self.folder, features)] if features else ()),
            ),
        )


def _unread(folder: Path, features: str) -> str:
    return (
        f"{folder}: {features}: features of a speech recogniser (DeepSpeech or another), which nothing here reads; "
        f"gsth hears the sound itself, aud.wav, as it will hear what the avatar is to say"
    )


def _ids(part: dict[str, Any], where: Path) -> list[int]:
    """The numbers of its pictures, rising."""
    frames = _files.objects(_files.key(part, "frames", where), where)
    return sorted(int(_files.number(_files.key(f, "img_id", where), f"{where}: img_id")) for f in frames)


def person(path: Path) -> np.ndarray:
    """The matte in a parsing picture: red head, green neck, blue torso, white background."""
    return np.where((_files.picture(path) > 200).all(-1), 0, 255).astype(np.uint8)
