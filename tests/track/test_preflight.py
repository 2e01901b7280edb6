"""What makes a clip useless is refused with a reason, what makes it worse is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsth.errors import InputError
from gsth.track import _preflight
from gsth.track._landmarks import Detections, interpolated
from gsth.types import Clip


def said(clip: Clip, seen: Detections) -> str:
    """All notices."""
    return "\n".join(n.text for n in _preflight.judge(clip, seen))


def changed(seen: Detections, frames: range = range(60), **signs: float) -> Detections:
    """Other signs in some frames."""
    for name, value in signs.items():
        seen.sign(name)[frames.start : frames.stop] = value
    return seen


def test_lips_pressed_for_a_moment_are_not_hidden_and_grey_clips_tell_nothing(clip: Clip, seen: Detections) -> None:
    assert said(clip, changed(seen, range(10, 13), lips=1)) == ""
    changed(seen, lips=0.5)
    assert not _preflight.mouth_hidden(changed(seen, range(10, 40), lips=0.1), 25).any()


def test_stretches_of_a_clip_are_judged_by_their_own_times(clip: Clip, seen: Detections) -> None:
    """Between two stretches everything may change; within one, a jump is a cut."""
    some = replace(seen, frame_ids=np.concatenate((np.arange(30), np.arange(1000, 1030))))
    some.points[30:] += 100
    assert said(replace(clip, frames=2000), some) == ""
    some.points[45:] += 100
    with pytest.raises(InputError, match=r"at 40\.60 s \(frame 1015\)"):
        said(replace(clip, frames=2000), some)


def test_a_good_clip_passes_in_silence(clip: Clip, seen: Detections) -> None:
    assert said(clip, seen) == ""


def test_no_face(clip: Clip, seen: Detections) -> None:
    seen.found[:] = False
    with pytest.raises(InputError, match=r"me\.mp4: no face was found in any of its 60 frames; wanted one person"):
        said(clip, seen)


def test_too_short(clip: Clip, seen: Detections) -> None:
    with pytest.raises(InputError, match="too short: 3 usable frames .3 in all., wanted at least 25"):
        said(replace(clip, frames=3), seen.first(3))


def test_face_in_fewer_than_half(clip: Clip, seen: Detections) -> None:
    seen.found[20:55] = False
    with pytest.raises(InputError, match=r"25 of 60 frames only.*gap is 0\.80 s to 2\.20 s"):
        said(clip, seen)


@pytest.mark.parametrize(
    ("frames", "looked", "found", "refusal"),
    [
        (500, 12, 12, None),
        (500, 36, 24, None),
        (30, 12, 12, None),
        (30, 12, 7, None),
        (
            500,
            36,
            16,
            r"found in 16 of 36 frames looked at only, .*; the longest gap is 0\.64 s to 1\.4",
        ),
        (500, 12, 0, r"no face was found in any of 12 \(of 500\) looked at frames"),
        (20, 12, 10, r"too short: at most 18 usable frames \(20 in all\), wanted at least 25"),
        (30, 24, 12, r"too short: at most 18 usable frames \(30 in all\)"),
        (30, 30, 24, r"too short: 24 usable frames \(30 in all\)"),
        (60, 60, 24, r"found in 24 of 60 frames only"),
    ],
)
def test_what_was_not_looked_at_is_held_against_nobody(
    clip: Clip, seen: Detections, frames: int, looked: int, found: int, refusal: str | None
) -> None:
    part = seen.first(looked)
    part.found[found:] = False
    clip = replace(clip, frames=frames)
    if refusal is None:
        assert "frames looked at; their motion" in said(clip, part) or found == looked
    else:
        with pytest.raises(InputError, match=refusal):
            said(clip, part)


@pytest.mark.parametrize("frames", [2, 12, 13, 60, 191, 192, 193, 5000])
def test_stretches_begin_with_both_ends_and_share_no_frame(frames: int) -> None:
    stretches = _preflight.windows(frames)
    ids = [i for stretch in stretches for i in stretch]
    assert len(ids) == len(set(ids)) == min(frames, _preflight.WINDOWS * _preflight.WINDOW)
    assert all(1 <= len(stretch) <= _preflight.WINDOW for stretch in stretches)
    assert stretches[0].start == 0 and max(stretches[:2], key=lambda s: s.stop).stop == frames == max(ids) + 1


def test_a_training_part_without_a_face_is_refused(clip: Clip, seen: Detections) -> None:
    seen.found[:30] = False
    _preflight.refuse_untaught(clip, seen, 31)
    with pytest.raises(InputError, match=r"me\.mp4: no face in the part to learn from, the first 30 of 60 .*1\.20 s"):
        _preflight.refuse_untaught(clip, seen, 30)


def test_two_people_are_named_with_places(clip: Clip, seen: Detections) -> None:
    seen.others[10:40] = (500, 210, 85)
    with pytest.raises(InputError, match=r"two faces in 50% .*\(3\d\d, 2\d\d\) and \(500, 210\) px, first at 0\.4"):
        said(clip, seen)


def test_a_face_in_the_far_background_is_fine(clip: Clip, seen: Detections) -> None:
    seen.others[:] = (500, 210, 20)
    assert said(clip, seen) == ""


def test_a_cut_to_another_scene_is_named_with_its_time(clip: Clip, seen: Detections) -> None:
    seen.thumbs[30:] = np.clip(255 - seen.thumbs[30:] // 3, 0, 255)
    with pytest.raises(InputError, match=r"the scene changes at 1\.20 s \(frame 30\)"):
        said(clip, seen)


def test_a_jump_cut_is_named_with_its_time(clip: Clip, seen: Detections) -> None:
    seen.points[45:] += 100
    with pytest.raises(InputError, match=r"the face jumps at 1\.80 s \(frame 45\)"):
        said(clip, seen)


def test_a_flash_is_no_cut(clip: Clip, seen: Detections) -> None:
    seen.thumbs[30] = np.clip(seen.thumbs[30].astype(int) + 10, 0, 255)
    assert said(clip, seen) == ""


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda c, s: (replace(c, fps=12.0), s), "frames/s is low"),
        (lambda c, s: (replace(c, wav=None), s), "no sound"),
        (lambda c, s: (c, changed(s, sharpness=10)), "blurred"),
        (lambda c, s: (c, changed(s, light=30)), "dark"),
        (lambda c, s: (c, changed(s, side=3)), "light from one side (one cheek is 3.0 times brighter)"),
        (lambda c, s: (c, changed(s, eyes=0.3)), "dark glasses"),
        (lambda c, s: (c, changed(s, range(10, 35), lips=1)), "covers the mouth at 0.40 s to 1.40 s:"),
        (lambda c, s: (c, replace(s, points=s.points * 0.5)), "face is small"),
        (lambda c, s: (c, replace(s, found=np.arange(60) % 10 > 0)), "no face in 6 of 60 frames"),
    ],
)
def test_notices(clip: Clip, seen: Detections, change: object, word: str) -> None:
    notices = said(*change(clip, seen))  # type: ignore[operator]
    assert word in notices and notices.count("\n") == 0


def test_interpolation_is_linear_and_keeps_the_ends() -> None:
    values = np.array([[9.0], [1], [9], [9], [4], [9]])
    known = np.array([False, True, False, False, True, False])
    assert interpolated(values, known)[:, 0].tolist() == [1, 1, 2, 3, 4, 4]
