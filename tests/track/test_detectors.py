"""Every detector holds the same promises; what needs a model file of the user's is skipped without one."""

from __future__ import annotations

import os
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from gsth import media, registry
from gsth.errors import InputError, MissingExtraError
from gsth.track.detectors import BODY, COUNT, Face, builtin, task

MODEL = os.environ.get("GSTH_FACE_LANDMARKER")


def build(name: str) -> object:
    pytest.importorskip("mediapipe")
    if name == "task":
        if MODEL is None:
            pytest.skip("needs a face_landmarker.task; give its path in GSTH_FACE_LANDMARKER")
        return task.Config(path=Path(MODEL)).build()
    return registry.plugin("track.detectors", name)().build()


def test_both_are_found_by_file() -> None:
    assert registry.names("track.detectors") == ("builtin", "task")


def holds(faces: list[Face]) -> None:
    for face in faces:
        assert face.points.shape == (COUNT, 2) and face.points.dtype == np.float32
        assert np.isfinite(face.points).all()
        if face.scores is not None:
            assert all(0 <= s <= 1 for s in face.scores.values()) and "jawOpen" in face.scores


@pytest.mark.parametrize("name", ["builtin", "task"])
def test_a_wall_has_no_face(name: str) -> None:
    with closing(build(name)) as detector:  # type: ignore[type-var]
        wall = np.full((120, 160, 3), 128, np.uint8)
        assert detector.follow(wall) == [] and detector.look(wall) == [] and detector.body(wall) is None


@pytest.mark.real
@pytest.mark.parametrize("name", ["builtin", "task"])
def test_a_face_is_followed_looked_at_and_has_a_body(name: str, clips: Path) -> None:
    frame = next(iter(media.frames(media.probe(clips / "hill.mp4"), 0, 1)))
    with closing(build(name)) as detector:  # type: ignore[type-var]
        followed, looked, body = detector.follow(frame), detector.look(frame), detector.body(frame)
    holds(followed + looked)
    assert len(followed) == 1 and len(looked) == 1
    eyes = np.linalg.norm(followed[0].points[33] - followed[0].points[263])
    assert np.abs(followed[0].points - looked[0].points).mean() < 0.1 * eyes
    assert body is None or body.shape == (BODY, 3)


def fake(monkeypatch: pytest.MonkeyPatch, points: int = COUNT) -> list[int]:
    """A mediapipe whose landmarker sees one face; gives the times it was asked for."""
    times: list[int] = []
    face = [SimpleNamespace(x=i / points, y=0.5) for i in range(points)]
    scores = [SimpleNamespace(category_name=n, score=s) for n, s in (("_neutral", 0.1), ("jawOpen", 0.7))]
    seen = SimpleNamespace(face_landmarks=[face], face_blendshapes=[scores])

    class Landmarker:
        @staticmethod
        def create_from_options(options: SimpleNamespace) -> Landmarker:
            assert options.output_face_blendshapes and options.base_options.model_asset_path.endswith(".task")
            return Landmarker()

        def detect_for_video(self, image: object, time_ms: int) -> SimpleNamespace:
            times.append(time_ms)
            return seen

        def detect(self, image: object) -> SimpleNamespace:
            return seen

        def close(self) -> None:
            times.append(-1)

    vision = SimpleNamespace(
        FaceLandmarker=Landmarker, FaceLandmarkerOptions=SimpleNamespace, RunningMode=SimpleNamespace(VIDEO=1, IMAGE=2)
    )
    made: dict[str, object] = {
        "mediapipe": SimpleNamespace(
            __version__="1.0.0", Image=SimpleNamespace, ImageFormat=SimpleNamespace(SRGB=1), __path__=[]
        ),
        "mediapipe.tasks": ModuleType("mediapipe.tasks"),
        "mediapipe.tasks.python": SimpleNamespace(BaseOptions=SimpleNamespace, vision=vision),
    }
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    return times


def bundle(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("face_landmarks_detector.tflite", b"x")
    return path


def test_the_task_gives_points_in_px_scores_by_name_and_rising_times(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    times = fake(monkeypatch)
    detector = task.Config(path=bundle(tmp_path / "face_landmarker.task")).build()
    picture = np.zeros((40, 80, 3), np.uint8)
    for found in (detector.follow(picture), detector.follow(picture), detector.look(picture)):
        holds(found)
        assert found[0].points[239, 0] == pytest.approx(40) and found[0].scores == {"jawOpen": 0.7}
    detector.close()
    assert times[0] < times[1] and times[2:] == [-1, -1] and detector.body(picture) is None


def test_another_landmarker_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake(monkeypatch, points=468)
    detector = task.Config(path=bundle(tmp_path / "face_landmarker.task")).build()
    with pytest.raises(InputError, match="468 points, wanted 478"):
        detector.follow(np.zeros((40, 80, 3), np.uint8))


def test_a_newer_mediapipe_without_a_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    with pytest.raises(InputError, match=r"mediapipe 1\.0\.0 ships no models.*--face-landmarker"):
        builtin.Config().build()


def test_files_that_are_no_bundle_and_absent_mediapipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        task.Config(path=tmp_path / "none.task").build()
    (tmp_path / "page.task").write_text("<html>")
    with pytest.raises(InputError, match="not a MediaPipe task bundle"):
        task.Config(path=tmp_path / "page.task").build()
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    for config in (builtin.Config(), task.Config(path=bundle(tmp_path / "f.task"))):
        with pytest.raises(MissingExtraError, match="gsth.track"):
            config.build()
