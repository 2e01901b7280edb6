"""The tracking benchmark keeps what it did not measure again, and nothing of another machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from gsth import synth

ROWS = {"hill": {"photometric": {"reprojection_pct": 1.0}}}


@pytest.fixture(scope="module")
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script as a module."""
    return script("tracking")


def test_rows_of_other_clips_stay_on_the_same_machine_alone(bench: ModuleType, tmp_path: Path) -> None:
    out, about = tmp_path / "t.json", {"machine": "m", "cores": 2}
    assert bench.kept(out, about) == {}
    out.write_text(json.dumps({**about, "rows": ROWS}))
    assert bench.kept(out, about) == ROWS
    assert bench.kept(out, {**about, "cores": 4}) == {}
    assert bench.kept(out, {**about, "threads": 2}) == {}


def test_the_smiling_actor_smiles_and_is_otherwise_the_same(bench: ModuleType) -> None:
    pytest.importorskip("espeakng_loader", reason="needs the extra 'audio'")
    made = synth.actor(bench.ACTOR)
    before, after = (a.truth.motion for a in (made, bench.smiling(made)))
    names = made.head.expression_names
    smile = after.expr[:, names.index("mouthSmileLeft")]
    assert before.expr[:, names.index("mouthSmileLeft")].std() < 0.06 < 0.2 < smile.std()
    at_most = max(height for _, _, height in bench.SMILES)
    assert at_most <= smile.max() < at_most + 0.3 and (smile < 0.15).float().mean() > 0.2
    others = [i for i, n in enumerate(names) if not n.startswith(("mouthSmile", "cheekSquint"))]
    assert (after.expr[:, others] == before.expr[:, others]).all()
    assert (after.joints == before.joints).all() and (after.T_world_head == before.T_world_head).all()
