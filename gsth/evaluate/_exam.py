"""The examination of one avatar on the part of its clip that training never saw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gsth import provenance
from gsth.evaluate import _subject
from gsth.evaluate._config import EvalConfig
from gsth.evaluate._measures import BASELINES, Figures
from gsth.evaluate._retrack import Retracked, retrack
from gsth.evaluate._score import SLOW_FRAMES, Reference, Row, Talk
from gsth.evaluate._textured import TexturedMesh
from gsth.evaluate._tools import Tools
from gsth.types import Clip, Event, Motion, Step

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.metrics import Picture, Points

SHIFT_PX = 3
"""The raw picture is moved by this much to see how repeatable the landmark detector is."""
UNCHANGED = provenance.StampConfig(watermark=False)
"""What frames for others to measure carry: credentials, and not a pixel that was not rendered."""
FILM_PX, FILM_FRAMES = 320, 250
"""Height and number of the frames that a report shows side by side, at most."""


@dataclass
class Results:
    """All that was found."""

    rows: dict[str, Figures] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)
    """Numbers of the scored frames in the clip."""
    series: dict[str, list[float]] = field(default_factory=dict)
    """For plots: a curve over the scored frames by name."""
    speed: dict[str, float] = field(default_factory=dict)
    film: list[Picture] = field(default_factory=list)
    """Truth and avatar side by side, small."""
    fps: float = 25.0
    who: provenance.About | None = None
    """The avatars in ``film``; None where its pictures are others'."""


class Exam:
    """Sees the raw frames in order; renders and scores those that count."""

    def __init__(self, avatar: Avatar, motion: Motion, frames: list[int], tools: Tools, out: Path | None) -> None:
        """Take what drives the avatar, the tracked frames to score, and where pictures go (None: nowhere)."""
        self._avatar, self._motion, self._out, self._tools = avatar, motion, out, tools
        self._trained = avatar.source.train_frames
        self._frames = {t: i for i, t in enumerate(frames)}
        self._slow = set(np.linspace(0, len(frames) - 1, SLOW_FRAMES).round().astype(int).tolist())
        self._samples = set(np.linspace(0, self._trained - 1, _subject.TRAIN_SAMPLES).round().astype(int).tolist())
        self._sum = np.zeros((avatar.cameras.height, avatar.cameras.width, 3))
        self._draw = _subject.Drawer(avatar)
        tracked = _subject.tracked_motion(avatar)
        self._tracked = tracked
        # Refined against the finished avatar: an upper bound that no prediction reaches, told beside the honest row.
        self._refined = avatar.motion if avatar.landmark_motion is not None and motion is tracked else None
        self._nearest = dict(zip(frames, _subject.nearest_frames(tracked, self._trained, frames), strict=True))
        self._kept: dict[int, tuple[Picture, Points]] = {}
        self._still: dict[str, tuple[Picture, Points]] = {}
        self._mesh = TexturedMesh(avatar)
        names = ["avatar", *(["refined"] if self._refined else []), *BASELINES, "truth", "train"]
        self.rows = {n: Row(tools, talks=n in ("avatar", "refined", "truth")) for n in names}
        self.film: list[Picture] = []

    @property
    def total(self) -> int:
        """Tracked frames, seen one after the other."""
        return len(self._avatar.source.frame_ids)

    def see(self, t: int, raw: Picture) -> None:
        """Take the raw picture of tracked frame ``t``; frames must come in order."""
        if t in self._frames:
            self._score(t, raw)
        elif t < self._trained:
            self._learn(t, raw)

    def psnr_db(self) -> dict[str, float]:
        """PSNR up to now, for the progress line."""
        value = self.rows["avatar"].mean("psnr_db")
        return {} if value is None else {"psnr_db": value}

    def figures(self, talk: Talk) -> dict[str, Figures]:
        """The figures of every row."""
        truth = self.rows["truth"]
        moves = self._retracked() if self._tools.thorough else {}
        found = {name: row.figures(truth, talk, moves.get(name)) for name, row in self.rows.items() if name != "train"}
        # eight scattered frames make no series
        return found | {"train": self.rows["train"].scattered()}

    def series(self) -> dict[str, list[float]]:
        """Curves over the scored frames."""
        from gsth import metrics

        curves = {
            f"PSNR, dB|{n}": self.rows[n].scores["psnr_db"] for n in ("avatar", "refined", *BASELINES) if n in self.rows
        }
        row = self.rows["avatar"]
        for n, points in (("truth", row.true_landmarks), ("avatar", row.landmarks)):
            curves[f"mouth opening, IOD|{n}"] = metrics.mouth_opening(np.array(points)).tolist()
        for n in ("avatar", "truth"):
            curves[f"landmarks, % IOD|{n}"] = self.rows[n].scores["landmarks_pct_iod"]
        return curves

    def latency_ms(self) -> float:
        """Median time of a frame of the avatar."""
        return self._draw.latency_ms()

    def _learn(self, t: int, raw: Picture) -> None:
        self._sum += raw
        if t in self._nearest.values():
            self._kept[t] = raw, self._tools.landmarks(raw)
        if t in self._samples:
            self._mesh.learn(self._tracked, t, raw)
            # of training frames, the refined motion is what the avatar learned with
            self.rows["train"].see(self._draw(self._avatar.motion, t), Reference(raw, self._tools, slow=True))
        if t == self._trained - 1:
            mean_frame = (self._sum / self._trained).round().astype("uint8")
            for name, picture in (("last_frame", raw), ("mean_frame", mean_frame)):
                self._still[name] = picture, self._tools.landmarks(picture)

    def _score(self, t: int, raw: Picture) -> None:
        truth = Reference(raw, self._tools, slow=self._frames[t] in self._slow)
        moved = self._tools.landmarks(np.roll(raw, SHIFT_PX, (0, 1))) - SHIFT_PX
        self.rows["truth"].detected(moved, truth)
        picture = self._draw(self._motion, t)
        if self._out is not None:
            name = f"{int(self._avatar.source.frame_ids[t])}.png"
            provenance.write_image(self._out / name, picture, provenance.about([self._avatar.meta]), UNCHANGED)
        self.rows["avatar"].see(picture, truth)
        if self._refined is not None:
            self.rows["refined"].see(self._draw(self._refined, t), truth)
        for name, (still, landmarks) in self._still.items():
            self.rows[name].see(still, truth, landmarks)
        self.rows["nearest_frame"].see(self._kept[self._nearest[t]][0], truth, self._kept[self._nearest[t]][1])
        self.rows["textured_mesh"].see(self._mesh.draw(self._tracked, t), truth)
        if len(self.film) < FILM_FRAMES:
            self.film.append(side_by_side(raw, picture))

    def _retracked(self) -> dict[str, tuple[Retracked, Retracked]]:
        """For the rows that move: the motion found in their pictures and in the raw ones."""
        K = self._avatar.cameras.Ks[0].double().numpy()
        wanted = retrack(self._avatar.shaped, K, np.array(self.rows["truth"].true_landmarks))
        names = [n for n in ("avatar", "refined", "truth") if n in self.rows]
        return {n: (retrack(self._avatar.shaped, K, np.array(self.rows[n].landmarks)), wanted) for n in names}


def side_by_side(*pictures: Picture) -> Picture:
    """Pictures in a row, at most ``FILM_PX`` high."""
    from gsth.evaluate._pictures import resized

    height = min(FILM_PX, pictures[0].shape[0])
    small = [resized(p, round(p.shape[1] * height / p.shape[0]), height) for p in pictures]
    return np.concatenate(small, 1)


def examine(
    avatar: Avatar, clip: Clip, motion: Motion, frames: list[int], config: EvalConfig, out: Path | None
) -> Iterator[Event | Results]:
    """Score; yields events, then the results."""
    with Tools(config) as tools:
        exam = Exam(avatar, motion, frames, tools, out)
        for t, raw in enumerate(_subject.references(avatar, clip)):
            exam.see(t, raw)
            yield Step("evaluate", t + 1, exam.total, exam.psnr_db())
        talk = _subject.talk_of(avatar, clip, frames, spoken_only=config.driven == "audio")
        ids = avatar.source.frame_ids[frames].tolist()
        yield Results(
            exam.figures(talk), tools.absent, ids, exam.series(), {"latency_ms": exam.latency_ms()}, exam.film, clip.fps
        )
