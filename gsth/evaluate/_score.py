"""One series of pictures against its reference, frame by frame."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gsth import metrics
from gsth.evaluate._measures import MEASURES, Figures
from gsth.evaluate._retrack import Retracked
from gsth.evaluate._tools import Tools
from gsth.metrics import Box, Picture, Points

SLOW_FRAMES = 16
"""The slow measures are taken on at most this many frames, evenly spread."""
KEEP_FRAMES = 750
"""Whole pictures are kept for sync and lip reading on at most this many frames: 30 s at 25 Hz."""


class Reference:
    """One frame of the truth, with what all comparisons share computed once."""

    def __init__(self, picture: Picture, tools: Tools, *, slow: bool) -> None:
        self.picture, self.tools = picture, tools
        self.slow = slow and tools.thorough
        self.landmarks = tools.landmarks(picture)
        self.similarity = metrics.Similarity(picture)

    @property
    def has_face(self) -> bool:
        """Whether a face was found."""
        return not np.isnan(self.landmarks).any()

    @cached_property
    def boxes(self) -> dict[str, Box]:
        """Face and mouth, where they are in the picture."""
        if not self.has_face:
            return {}
        h, w = self.picture.shape[:2]
        found = {"face": metrics.face_box(self.landmarks, w, h), "mouth": metrics.mouth_box(self.landmarks, w, h)}
        return {name: box for name, box in found.items() if box is not None}

    @cached_property
    def person(self) -> NDArray[np.bool_]:
        """Where the person is."""
        return self.tools.person(self.picture)

    @cached_property
    def features(self) -> dict[str, list]:
        """LPIPS features of the whole picture and of the face."""
        return perceptual(self.picture, self)

    @cached_property
    def faces(self) -> dict[str, NDArray[np.float64]]:
        """Embeddings of the face."""
        return embeddings(self.picture, self.landmarks, self.tools)


def perceptual(picture: Picture, truth: Reference) -> dict[str, list]:
    """LPIPS features of a picture, named after the measures they serve."""
    tools, found = truth.tools, {}
    if tools.st_lpips is not None:
        found["st_lpips"] = tools.st_lpips.features(picture)
        box = truth.boxes.get("face")
        if box is not None and min(box[2] - box[0], box[3] - box[1]) >= 64:
            found["face_st_lpips"] = tools.st_lpips.features(metrics.cut(picture, box))
    if tools.lpips is not None:
        found["lpips"] = tools.lpips.features(picture)
    return found


def embeddings(picture: Picture, landmarks: Points, tools: Tools) -> dict[str, NDArray[np.float64]]:
    """Identity vectors of the face in a picture; empty where there is none."""
    if np.isnan(landmarks).any():
        return {}
    named = {"dlib": tools.dlib, "arcface": tools.arcface}
    return {name: embed(picture, landmarks) for name, embed in named.items() if embed is not None}


@dataclass(frozen=True)
class Talk:
    """What is known of the sound of the scored frames."""

    fps: float
    spoken: NDArray[np.bool_] | None = None
    """Frames in which something is said; None: all count."""
    bilabials: tuple[tuple[int, int], ...] | None = None
    """First frame, and frame after the last, of every p, b and m, where they are known."""
    sound: NDArray[np.float32] | None = None
    """16 kHz mono from the time of the first scored frame."""
    loudness: NDArray[np.float64] | None = None
    """Of each frame, dB."""


class Row:
    """The scores of one series of pictures. NaN where a frame could not be measured; NaN is left out of every mean."""

    def __init__(self, tools: Tools, *, talks: bool = False) -> None:
        self._tools, self._talks = tools, talks and (tools.syncnet is not None or tools.lip_reader is not None)
        self.scores: dict[str, list[float]] = defaultdict(list)
        self.landmarks: list[Points] = []
        self.true_landmarks: list[Points] = []
        """Those of the reference; empty where there is none."""
        self.pictures: list[Picture] = []
        self._inception: list[NDArray[np.float64]] = []
        self._before: tuple[Picture, Picture] | None = None

    def see(self, picture: Picture, truth: Reference, landmarks: Points | None = None) -> None:
        """One frame; ``landmarks`` are those of the picture, where they are known already."""
        landmarks = self._tools.landmarks(picture) if landmarks is None else landmarks
        self._image(picture, truth)
        self._points(landmarks, truth)
        before, self._before = self._before, (picture, truth.picture)
        if before is not None:
            self._add("flicker_levels", metrics.flicker(picture, before[0], truth.picture, before[1]))
        if truth.slow:
            self._slow(picture, landmarks, truth)
        if self._talks and len(self.pictures) < KEEP_FRAMES:
            self.pictures.append(picture)

    def free(self, picture: Picture, face: dict[str, NDArray[np.float64]], *, slow: bool) -> None:
        """One frame that has no reference; ``face`` are the embeddings of the person."""
        landmarks = self._tools.landmarks(picture)
        self.landmarks.append(landmarks)
        self._add("faces_found", float(not np.isnan(landmarks).any()))
        if slow and self._tools.thorough:
            self._identity(picture, landmarks, face)
            self._natural(picture)
        if self._talks and len(self.pictures) < KEEP_FRAMES:
            self.pictures.append(picture)

    def detected(self, landmarks: Points, truth: Reference) -> None:
        """One frame of the truth itself, of which only the landmarks are another finding."""
        self._points(landmarks, truth)
        self._add("psnr_db", math.inf)
        for name in ("ssim", "ms_ssim"):
            self._add(name, 1.0)
        before, self._before = self._before, (truth.picture, truth.picture)
        if before is not None:
            self._add("flicker_levels", metrics.flicker(truth.picture, before[0], truth.picture, before[0]))
        if truth.slow:
            self._natural(truth.picture)
            if self._tools.inception is not None:
                self._inception.append(self._tools.inception.features([truth.picture])[0])
        if self._talks and len(self.pictures) < KEEP_FRAMES:
            self.pictures.append(truth.picture)

    def mean(self, measure: str) -> float | None:
        """Mean over the frames so far."""
        return metrics.mean(self.scores.get(measure, []))

    def scattered(self) -> Figures:
        """The figures of frames that do not follow each other: means alone."""
        return {m: None if m == "flicker_levels" else self.mean(m) for m in MEASURES}

    def figures(self, truth: Row | None, talk: Talk, retracked: tuple[Retracked, Retracked] | None = None) -> Figures:
        """All figures: means over frames, and what only a whole series tells.

        Args:
            truth: The row of the reference itself; None where there is none.
            talk: Of the sound.
            retracked: The motion found in these pictures, and the one that it should be.
        """
        found: Figures = {m: self.mean(m) for m in self.scores}
        found["jitter_pct_iod"] = metrics.mean([metrics.jitter_pct(np.array(self.landmarks))])
        found |= self._sync(truth, talk)
        if self.true_landmarks:
            found |= self._lips(talk)
        if truth is not None:
            found |= self._distribution(truth)
        if retracked is not None:
            found |= retracked[0].errors(retracked[1])
        return {m: found.get(m) for m in MEASURES}

    def _add(self, measure: str, value: float) -> None:
        self.scores[measure].append(value)

    def _image(self, picture: Picture, truth: Reference) -> None:
        compared = truth.similarity.to(picture)
        self._add("psnr_db", metrics.psnr(picture, truth.picture))
        self._add("ssim", compared.mean)
        if self._tools.thorough:
            self._add("ms_ssim", truth.similarity.multi_scale(picture, compared))
            self._add("foreground_psnr_db", metrics.psnr(picture, truth.picture, truth.person))
            self._add("foreground_ssim", compared.where(truth.person))
        for name in ("face", "mouth"):
            box = truth.boxes.get(name)
            inside = (metrics.cut(p, box) for p in (picture, truth.picture)) if box else None
            self._add(f"{name}_psnr_db", metrics.psnr(*inside) if inside else math.nan)
            self._add(f"{name}_ssim", compared.inside(box) if box else math.nan)

    def _points(self, landmarks: Points, truth: Reference) -> None:
        self.landmarks.append(landmarks)
        self.true_landmarks.append(truth.landmarks)
        self._add("faces_found", float(not np.isnan(landmarks).any()))
        self._add("landmarks_pct_iod", float(metrics.landmark_distance_pct(landmarks, truth.landmarks)))
        self._add("lips_pct_iod", float(metrics.landmark_distance_pct(landmarks, truth.landmarks, lips=True)))
        self._add("lmd_px", float(metrics.lmd_px(landmarks, truth.landmarks)))

    def _slow(self, picture: Picture, landmarks: Points, truth: Reference) -> None:
        tools = self._tools
        for name, features in perceptual(picture, truth).items():
            network = tools.lpips if name == "lpips" else tools.st_lpips
            if network is not None:
                self._add(name, network.distance(features, truth.features[name]))
        if tools.flip is not None:
            error = tools.flip(picture, truth.picture)
            self._add("flip", float(error.mean()))
            for name, box in truth.boxes.items():
                self._add(f"{name}_flip", float(metrics.cut(error, box).mean()))
            if truth.person.any():
                self._add("foreground_flip", float(error[truth.person].mean()))
        if tools.inception is not None:
            self._inception.append(tools.inception.features([picture])[0])
        self._identity(picture, landmarks, truth.faces)
        self._natural(picture)

    def _identity(self, picture: Picture, landmarks: Points, face: dict[str, NDArray[np.float64]]) -> None:
        mine = embeddings(picture, landmarks, self._tools)
        if "dlib" in mine and "dlib" in face:
            self._add("csim", metrics.cosine(mine["dlib"], face["dlib"]))
            self._add("identity_distance", float(np.linalg.norm(mine["dlib"] - face["dlib"])))
        if "arcface" in mine and "arcface" in face:
            self._add("csim_arcface", metrics.cosine(mine["arcface"], face["arcface"]))

    def _natural(self, picture: Picture) -> None:
        if self._tools.niqe is not None and min(picture.shape[:2]) >= metrics.NIQE_MIN_SIDE:
            self._add("niqe", self._tools.niqe(picture))

    def _lips(self, talk: Talk) -> Figures:
        mine, theirs = np.array(self.landmarks), np.array(self.true_landmarks)
        opening, true_opening = metrics.mouth_opening(mine), metrics.mouth_opening(theirs)
        if talk.spoken is not None:
            # People open the mouth to breathe between words, which no sound can tell.
            true_opening = np.where(talk.spoken, true_opening, np.nan)
        fit = metrics.best_lag(opening, true_opening)
        found: Figures = {}
        if fit is not None:
            found |= {"lip_correlation": fit.correlation, "lip_lag_frames": float(fit.lag), "lip_ratio": fit.ratio}
        found["closure_recall"] = metrics.closure_recall(opening, true_opening).share
        blinks = metrics.blink_recall(metrics.eye_opening(mine), metrics.eye_opening(theirs))
        return found | {"blink_recall": blinks.share}

    def _sync(self, truth: Row | None, talk: Talk) -> Figures:
        found: Figures = {}
        opening = metrics.mouth_opening(np.array(self.landmarks))
        if talk.bilabials is not None:
            found["bilabial_closure"] = metrics.bilabial_closure(opening, list(talk.bilabials)).share
        if talk.loudness is not None and talk.spoken is not None and talk.spoken.any():
            fit = metrics.best_lag(opening, np.where(talk.spoken, talk.loudness, np.nan))
            if fit is not None:
                found |= {"sound_correlation": fit.correlation, "sound_lag_frames": float(fit.lag)}
            rest = metrics.mean(opening[~talk.spoken].tolist())
            found["rest_opening_pct"] = None if rest is None else 100 * rest
        if self._tools.syncnet is not None and talk.sound is not None and self.pictures:
            found |= self._syncnet(talk.fps, talk.sound)
        if self._tools.lip_reader is not None and truth is not None and truth is not self and self.pictures:
            read, said = (self._tools.lip_reader.read(r.pictures, talk.fps).split() for r in (self, truth))
            found["word_accuracy"] = metrics.word_accuracy(read, said)
        return found

    def _syncnet(self, fps: float, sound: NDArray[np.float32]) -> Figures:
        """SyncNet knows 25 Hz only: other rates show the nearest picture."""
        count = math.floor(len(self.pictures) / fps * metrics.SYNC_FPS)
        at = np.minimum(np.floor((np.arange(count) + 0.5) * fps / metrics.SYNC_FPS), len(self.pictures) - 1).astype(int)
        crops = metrics.sync_crops([self.pictures[i] for i in at], np.array(self.landmarks)[at])
        assert self._tools.syncnet is not None
        judged = None if crops is None else self._tools.syncnet.judge(crops, sound)
        return {} if judged is None else {"lse_c": judged.confidence, "lse_d": judged.distance}

    def _distribution(self, truth: Row) -> Figures:
        if truth is self or min(len(self._inception), len(truth._inception)) < 2:
            return {}
        return {"fid": metrics.frechet_distance(np.array(self._inception), np.array(truth._inception))}
