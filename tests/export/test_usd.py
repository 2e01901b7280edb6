"""USD: usd-core's own schema reads it; time samples; absence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_people import FRAMES, assert_canonical, assert_same, colours

from gsth.avatar import Avatar
from gsth.errors import InputError, MissingExtraError
from gsth.export import _scene, usd


def opened(path: Path) -> tuple[Any, Any]:
    pxr = pytest.importorskip("pxr")
    from pxr import Usd, UsdVol

    assert pxr
    stage = Usd.Stage.Open(str(path))
    return stage, UsdVol.ParticleField3DGaussianSplat(stage.GetDefaultPrim().GetChild("Splats"))


@pytest.mark.parametrize("precision", ["half", "float"])
@pytest.mark.parametrize("ending", ["usdc", "usda"])
def test_the_schema_reads_the_person(
    precision: str, ending: str, person: Avatar, want: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    from pxr import UsdGeom

    out = tmp_path / f"a.{ending}"
    list(usd.Config(precision=precision).build().write(person, out))  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name]
    stage, field = opened(out)
    assert field and UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    h = "h" if precision == "half" else ""
    still = _scene.still(person, _scene.Still())
    assert field.GetRadianceSphericalHarmonicsDegreeAttr().Get() == 1
    sh = np.array(getattr(field, f"GetRadianceSphericalHarmonicsCoefficients{h}Attr")().Get(), float).reshape(-1, 4, 3)
    means = np.array(field.GetPositionsAttr().Get())
    assert_canonical(means, colours(sh[:, 0]))
    assert_same(means, colours(sh[:, 0]), *want)
    assert np.allclose(sh, still.sh.numpy(), atol=2e-3)
    scales = np.array(getattr(field, f"GetScales{h}Attr")().Get(), float)
    assert np.allclose(scales, still.scales.numpy(), rtol=2e-3, atol=1e-6)
    quats = np.array([(q.real, *q.imaginary) for q in getattr(field, f"GetOrientations{h}Attr")().Get()])
    assert (np.abs((quats * still.quats.numpy()).sum(1)) > 0.9995).all()


def test_a_motion_becomes_time_samples(person: Avatar, tmp_path: Path) -> None:
    list(usd.Config(animate=True).build().write(person, tmp_path / "a.usdc"))
    stage, field = opened(tmp_path / "a.usdc")
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (0, FRAMES - 1, 25)
    for i, splats in enumerate(_scene.sequence(person, person.motion)):
        means = torch.tensor(np.array(field.GetPositionsAttr().Get(float(i))))
        assert torch.allclose(means, splats.means, atol=1e-6)
        sh = np.array(field.GetRadianceSphericalHarmonicsCoefficientshAttr().Get(float(i)), float).reshape(-1, 4, 3)
        assert_canonical(means.numpy(), colours(sh[:, 0]))
        assert np.abs(colours(sh[:, 0]) - colours(splats.sh[:, 0].numpy())).max() <= 2 / 255
    # opacities never change: they are written once
    assert field.GetOpacitieshAttr().GetNumTimeSamples() == 1 and field.GetPositionsAttr().GetNumTimeSamples() == FRAMES


def test_what_does_not_fit_is_refused(person: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="leave --frame out"):
        usd.Config(animate=True, frame=1).build()
    with pytest.raises(InputError, match=".usdc"):
        list(usd.Config().build().write(person, tmp_path / "a.abc"))
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(MissingExtraError, match=r"gsth\[export\]"):
        list(usd.Config().build().write(person, tmp_path / "a.usdc"))
    assert list(tmp_path.iterdir()) == []
