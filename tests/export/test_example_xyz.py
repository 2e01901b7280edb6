"""The exporter of docs/extend/exporter.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_people import assert_canonical

from gsth import cli
from gsth.avatar import Avatar


def test_the_command_line_has_it_and_axes_are_those_of_every_format(
    example, person: Avatar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("export", "xyz")
    person.save(tmp_path / "me.avatar")
    out = tmp_path / "me.xyz"
    ran = cli.run(["export", str(tmp_path / "me.avatar"), "xyz", "--min-opacity", "0.2", "--out", str(out)])
    assert ran == 0 and "splats" in capsys.readouterr().out
    rows = np.loadtxt(out)
    assert rows.shape[1] == 6 and 100 < len(rows) < len(person.splats.face_ids)
    assert_canonical(rows[:, :3], rows[:, 3:] / 255)


def test_a_frame_that_is_not_there_is_refused(
    example, person: Avatar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("export", "xyz")
    person.save(tmp_path / "me.avatar")
    assert cli.run(["export", str(tmp_path / "me.avatar"), "xyz", "--frame", "99", "--out", str(tmp_path / "o")]) == 2
    assert "--frame is 99" in capsys.readouterr().err and not (tmp_path / "o").exists()
