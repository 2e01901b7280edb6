"""USD: splats for film tools and Omniverse (UsdVol.ParticleField3DGaussianSplat, OpenUSD 26.03), still or moving."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gsth.errors import InputError, MissingExtraError
from gsth.export._scene import Still

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.types import Event, Splats


@dataclass(frozen=True)
class Config(Still):
    """A .usdc, .usda or .usdz of one pose, or of a motion as time samples."""

    animate: bool = False
    """Write every frame of the motion as time samples."""
    precision: Literal["half", "float"] = "half"
    """Of everything but positions, which are always float."""

    def build(self) -> UsdExporter:
        """The exporter of these settings."""
        return UsdExporter(self)


class UsdExporter:
    """Writes USD stages."""

    def __init__(self, config: Config) -> None:
        """Take the settings. Raises InputError where they contradict each other."""
        if config.animate and config.frame is not None:
            raise InputError("--animate writes every frame; leave --frame out")
        self._config = config

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """One file."""
        from gsth import media
        from gsth.export import _scene
        from gsth.types import Done, Step

        _pxr()
        if out.suffix not in (".usdc", ".usda", ".usd"):
            raise InputError(f"{out}: want a name that ends in .usdc, .usda or .usd")
        config = self._config
        with media.whole_file(out) as part:
            # USD chooses its encoding by the name
            draft = part.with_name(part.name + out.suffix)
            try:
                stage = _Stage(draft, config.precision)
                if config.animate:
                    motion = _scene.motion_of(avatar, config.motion)
                    stage.moves(motion.fps, len(motion))
                    for i, splats in enumerate(_scene.sequence(avatar, motion, config.sh_degree)):
                        stage.add(splats, i)
                        yield Step("usd", i + 1, len(motion))
                else:
                    stage.add(_scene.still(avatar, config), None)
                stage.save()
                draft.replace(part)
            finally:
                draft.unlink(missing_ok=True)
        yield Done(out, {"splats": float(len(avatar.splats.face_ids)), "megabytes": out.stat().st_size / 1e6})


class _Stage:
    """A stage with one field of splats."""

    def __init__(self, path: Path, precision: str) -> None:
        _, Sdf, Usd, UsdGeom, UsdVol, Vt = _pxr()
        self._vt, self._half = Vt, precision == "half"
        self._stage = Usd.Stage.CreateNew(str(path))
        UsdGeom.SetStageUpAxis(self._stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(self._stage, 1.0)
        root = UsdGeom.Xform.Define(self._stage, "/Avatar")
        self._stage.SetDefaultPrim(root.GetPrim())
        self._field = UsdVol.ParticleField3DGaussianSplat.Define(self._stage, "/Avatar/Splats")
        self._written: dict[str, Any] = {}

    def moves(self, fps: float, frames: int) -> None:
        self._stage.SetTimeCodesPerSecond(fps)
        self._stage.SetFramesPerSecond(fps)
        self._stage.SetStartTimeCode(0)
        self._stage.SetEndTimeCode(frames - 1)

    def add(self, splats: Splats, time: int | None) -> None:
        """Write the splats, at a time code or for good; what never changes is written once."""
        import numpy as np

        Vt, field = self._vt, self._field
        kind, suffix = (np.float16, "h") if self._half else (np.float32, "")
        means, scales, opacities, sh, quats = (
            getattr(splats, name).detach().numpy() for name in ("means", "scales", "opacities", "sh", "quats")
        )
        reach = 3 * scales.max()
        extent = np.stack((means.min(0) - reach, means.max(0) + reach)).astype(np.float32)
        self._set(field.CreatePositionsAttr(), Vt.Vec3fArray.FromNumpy(means), means, time)
        self._set(field.CreateExtentAttr(), Vt.Vec3fArray.FromNumpy(extent), extent, time)
        vec3 = Vt.Vec3hArray if self._half else Vt.Vec3fArray
        scalar = Vt.HalfArray if self._half else Vt.FloatArray
        quat = Vt.QuathArray if self._half else Vt.QuatfArray
        # numpy holds quaternions as USD does in memory: imaginary part first
        turned = np.ascontiguousarray(quats[:, [1, 2, 3, 0]].astype(kind))
        flat = np.ascontiguousarray(sh.reshape(-1, 3).astype(kind))
        for attribute, value, array in (
            (f"Orientations{suffix}", quat.FromNumpy(turned), turned),
            (f"Scales{suffix}", vec3.FromNumpy(scales.astype(kind)), scales),
            (f"Opacities{suffix}", scalar.FromNumpy(opacities.astype(kind)), opacities),
            (f"RadianceSphericalHarmonicsCoefficients{suffix}", vec3.FromNumpy(flat), flat),
        ):
            self._set(getattr(field, f"Create{attribute}Attr")(), value, array, time)
        degree = (1, 4, 9, 16).index(sh.shape[1])
        field.CreateRadianceSphericalHarmonicsDegreeAttr().Set(degree)

    def _set(self, attribute: Any, value: Any, array: Any, time: int | None) -> None:
        import numpy as np

        before = self._written.get(attribute.GetName())
        if before is not None and np.array_equal(before, array):
            return
        self._written[attribute.GetName()] = array.copy()
        attribute.Set(value) if time is None else attribute.Set(value, float(time))

    def save(self) -> None:
        self._stage.GetRootLayer().Save()


def _pxr() -> tuple[Any, ...]:
    try:
        from pxr import Gf, Sdf, Usd, UsdGeom, UsdVol, Vt
    except ImportError as error:
        raise MissingExtraError("usd-core", "export", "the USD export") from error
    return Gf, Sdf, Usd, UsdGeom, UsdVol, Vt
