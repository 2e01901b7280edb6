"""The method ``gsth`` of nerfstudio: ``ns-train gsth --data me.track`` trains, ``ns-viewer`` shows.

nerfstudio brings the loop, the schedules, the logs and the viewer (its time slider plays the clip); the head, the rig,
the rasterizer and the losses are gsth's. The number of splats stays as it begins, and what gsth's own trainer adds
(density control, correctives, refined poses) is left to it. ``gsth import step-000000999.ckpt --onto me.track`` makes
an avatar of a checkpoint.
nerfstudio's world: metres, z up, the face looks between +x and +y, the head's joint of the first frame in the origin.
Needs the extra ``nerfstudio``, in a virtual environment of its own; tests/plugins/nerfstudio_end_to_end.sh makes one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gsth import artifacts, head, math3d, render
from gsth.avatar import AvatarConfig, LossWeights, _losses, _regions, _state
from gsth.avatar._init import initial_splats
from gsth.avatar._reel import Reel
from gsth.errors import MissingExtraError
from gsth.render import torch_ref
from gsth.track import TrackConfig
from gsth.types import Cameras, RiggedSplats, Track

try:
    from nerfstudio.cameras import cameras as ns_cameras
    from nerfstudio.configs.base_config import ViewerConfig
    from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
    from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
    from nerfstudio.data.datasets.base_dataset import InputDataset
    from nerfstudio.data.scene_box import SceneBox
    from nerfstudio.engine.optimizers import AdamOptimizerConfig
    from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
    from nerfstudio.engine.trainer import TrainerConfig
    from nerfstudio.models.base_model import Model, ModelConfig
    from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
    from nerfstudio.plugins.types import MethodSpecification
except ImportError as error:
    raise MissingExtraError("nerfstudio", "nerfstudio", "gsth as a method of nerfstudio") from error

STEPS = 6000
UPRIGHT = torch.tensor(((-(0.5**0.5), 0, -(0.5**0.5)), (0.5**0.5, 0, -(0.5**0.5)), (0, -1, 0)))
"""House axes (x right, y down, z forward) to nerfstudio's (z up), whose viewer begins between +x and +y."""
GL = torch.tensor((1.0, -1.0, -1.0))
"""OpenCV camera axes to OpenGL's, which nerfstudio's cameras have, and back."""
GREY = 0.5
LEARNED = ("means_tri", "quats_tri", "log_scales", "logit_opacities", "sh")


def origin(track: Track) -> Tensor:
    """Where nerfstudio's origin lies: the head's joint in the first frame, house world, m [3]."""
    model = head.load(track.identity.head)
    return math3d.transform_points(track.motion.T_world_head[0], model.shaped(track.identity).pivots[2])


def to_nerfstudio(viewmats: Tensor, centre: Tensor) -> Tensor:
    """nerfstudio's camera to world [c 3 4] of world to camera matrices of the house [c 4 4]."""
    c2w = torch.linalg.inv(viewmats)
    place = (c2w[:, :3, 3] - centre) @ UPRIGHT.T
    return torch.cat((UPRIGHT @ c2w[:, :3, :3] * GL, place[..., None]), -1)


def from_nerfstudio(c2w: Tensor, centre: Tensor) -> Tensor:
    """The inverse of ``to_nerfstudio``."""
    whole = torch.eye(4, dtype=c2w.dtype).repeat(len(c2w), 1, 1)
    whole[:, :3, :3] = UPRIGHT.T @ (c2w[:, :3, :3] * GL)
    whole[:, :3, 3] = c2w[:, :3, 3] @ UPRIGHT + centre
    return torch.linalg.inv(whole)


# ---------------------------------------------------------------------------------------------- data


@dataclass
class TrackParserConfig(DataParserConfig):
    """A track that ``gsth track`` wrote."""

    _target: type = field(default_factory=lambda: TrackParser)
    data: Path = Path("me.track")
    """Folder of the track."""
    holdout: float = 0.2
    """Fraction of the frames, at the end, that is not trained on."""


class TrackParser(DataParser):
    """Frames of a track as nerfstudio's cameras, whose time tells the frame."""

    config: TrackParserConfig
    includes_time = True

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        track = artifacts.load(Track, self.config.data)
        count = len(track.frame_ids)
        first = TrackConfig(holdout=self.config.holdout).train_frames(count)
        frames = track.found[:first].nonzero()[:, 0] if split == "train" else torch.arange(min(first, count - 1), count)
        K, cam = track.cameras.Ks[0], track.cameras
        cameras = ns_cameras.Cameras(
            camera_to_worlds=to_nerfstudio(cam.viewmats, origin(track)).repeat(len(frames), 1, 1),
            fx=float(K[0, 0]), fy=float(K[1, 1]), cx=float(K[0, 2]), cy=float(K[1, 2]),
            width=cam.width, height=cam.height,
            times=(frames / max(count - 1, 1))[:, None],
            camera_type=ns_cameras.CameraType.PERSPECTIVE,
        )  # fmt: skip
        return DataparserOutputs(
            image_filenames=[self.config.data / f"frame {int(i)}" for i in frames],  # names only: TrackDataset reads
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.tensor(((-0.5,) * 3, (0.5,) * 3))),
            metadata={"track": self.config.data, "frames": frames},
        )


class TrackDataset(InputDataset):
    """Pictures and mattes out of the track's memory-mapped series."""

    exclude_batch_keys_from_device = ["image", "mask", "matte"]

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        """Open the track. Its size is the training size, so nothing is scaled here."""
        super().__init__(dataparser_outputs, 1.0)
        self.track = artifacts.load(Track, self.metadata["track"])

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        """uint8 [h w 3]; on mid grey where the track has no still background, as gsth trains it."""
        frame = int(self.metadata["frames"][image_idx])
        image = np.array(self.track.images[frame])
        if self.track.plate is None:
            matte = self.track.mattes[frame][..., None] / 255
            image = (image * matte + 255 * GREY * (1 - matte)).round().astype(np.uint8)
        return image

    def get_metadata(self, data: dict[str, Any]) -> dict[str, Any]:
        """The matte [h w], 0 to 1, and which frame it is."""
        frame = int(self.metadata["frames"][data["image_idx"]])
        return {"matte": torch.from_numpy(self.track.mattes[frame] / np.float32(255)), "frame": frame}


class TrackManager(FullImageDatamanager[TrackDataset]):
    """Gives frames as they are asked for: the series is on disk, so that long clips need no memory."""

    @cached_property
    def cached_train(self) -> TrackDataset:
        """What a cache would hold."""
        self.train_cameras = self.train_dataset.cameras.to(self.device)
        return self.train_dataset

    @cached_property
    def cached_eval(self) -> TrackDataset:
        """What a cache would hold."""
        return self.eval_dataset


@dataclass
class TrackManagerConfig(FullImageDatamanagerConfig):
    """Frames of a track."""

    _target: type = field(default_factory=lambda: TrackManager)
    dataparser: TrackParserConfig = field(default_factory=TrackParserConfig)
    cache_images_type: Literal["uint8", "float32"] = "float32"


# ---------------------------------------------------------------------------------------------- model


@dataclass
class RiggedModelConfig(ModelConfig):
    """Gaussians on the triangles of the tracked head."""

    _target: type = field(default_factory=lambda: RiggedModel)
    splats: int = 20_000
    """How many to place; the number stays."""
    sh_degree: int = 0
    """Degree of the spherical harmonics; one camera sees too few directions for more than 1."""
    seed: int = 0


class RiggedModel(Model):
    """RiggedSplats that learn, posed by the track's motion at the time that a camera asks for."""

    config: RiggedModelConfig

    def populate_modules(self) -> None:
        """Place the first splats where the track's pictures show the head."""
        self.track = artifacts.load(Track, self.kwargs["metadata"]["track"])
        model = head.load(self.track.identity.head)
        self.shaped, self.centre = model.shaped(self.track.identity), origin(self.track)
        settings = AvatarConfig(splats=self.config.splats, max_splats=self.config.splats, seed=self.config.seed)
        shown = int(self.kwargs["metadata"]["frames"][-1]) + 1
        first = initial_splats(Reel.of(self.track, shown), model, settings)
        sh = torch.zeros(len(first.face_ids), (self.config.sh_degree + 1) ** 2, 3)
        sh[:, :1] = first.sh
        self._take(first.replace(sh=sh))

    def _take(self, splats: RiggedSplats) -> None:
        """Make these the parameters."""
        self.register_buffer("face_ids", splats.face_ids)
        for name in LEARNED:
            setattr(self, name, torch.nn.Parameter(getattr(splats, name).detach().clone().contiguous()))
        model = self.shaped.model
        size = torch_ref.triangle_frames(self.shaped.rest, model.faces)[2]
        tables = [_regions.per_face(model, name) for name in ("max_offset", "max_scale")]
        self.limits = _losses.Bounds.of(splats.face_ids.cpu(), size, *tables)

    def load_state_dict(self, state_dict: Any, **kwargs: Any) -> Any:
        """As torch's, for any number of splats."""
        if "face_ids" in state_dict:
            self._take(RiggedSplats(state_dict["face_ids"], *(state_dict[n] for n in LEARNED)))
        return super().load_state_dict(state_dict, **kwargs)

    def get_param_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """One group for each of ``LEARNED``."""
        return {name: [getattr(self, name)] for name in LEARNED}

    def rigged(self) -> RiggedSplats:
        """The splats as they are."""
        return RiggedSplats(self.face_ids, *(getattr(self, n) for n in LEARNED))

    def get_outputs(self, camera: ns_cameras.Cameras) -> dict[str, Tensor]:
        """rgb [h w 3], accumulation and depth (m) [h w 1]; over the plate where the camera is the track's."""
        count = len(self.track.frame_ids)
        moment = 0.0 if camera.times is None else float(camera.times.reshape(-1)[0])
        mesh = self.shaped.posed(self.track.motion[round(min(max(moment, 0), 1) * (count - 1))])
        c2w = camera.camera_to_worlds.detach().cpu().reshape(-1, 3, 4)[:1]
        viewmats = from_nerfstudio(c2w.float(), self.centre)
        K = camera.get_intrinsics_matrices().detach().cpu().reshape(-1, 3, 3)[:1].float()
        size = int(camera.width.reshape(-1)[0]), int(camera.height.reshape(-1)[0])
        plate, tracked = self.track.plate, self.track.cameras
        at_home = size == (tracked.width, tracked.height) and torch.allclose(viewmats, tracked.viewmats, atol=1e-4)
        background = plate if plate is not None and at_home else torch.full((3,), GREY)
        seen = Cameras(viewmats, K, *size).to(self.device)
        splats = render.rig(self.rigged(), mesh.to(self.device))
        drawn = render.render(splats, seen, background=background.to(self.device))
        return {"rgb": drawn.rgb[0], "accumulation": drawn.alpha[0, ..., None], "depth": drawn.depth[0, ..., None]}

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: ns_cameras.Cameras, obb_box: Any = None) -> dict[str, Tensor]:
        """As ``get_outputs``, with colours in 0 to 1; an ``obb_box`` cuts nothing out of a head."""
        outputs = self.get_outputs(camera)
        return outputs | {"rgb": outputs["rgb"].clamp(0, 1)}

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR, dB, and how many splats there are."""
        error = (outputs["rgb"].detach() - batch["image"].to(self.device)).square().mean()
        return {"psnr": -10 * torch.log10(error.clamp_min(1e-10)), "splats": torch.tensor(float(len(self.face_ids)))}

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: Any = None
    ) -> dict[str, Tensor]:
        """The picture's loss with gsth's weights for mouth and eyes, the matte's, and what a region forbids."""
        weights, matte = LossWeights(), batch["matte"].to(self.device)
        marks = self.track.landmarks_px[batch["frame"]]
        pixels = _losses.pixel_weights(marks, matte.shape[0], matte.shape[1], weights).to(self.device)
        picture = render.l1_ssim_loss(outputs["rgb"], batch["image"].to(self.device), pixels, weights.ssim)
        limits = replace(self.limits, **{n: v.to(self.device) for n, v in vars(self.limits).items()})
        return {
            "picture": picture,
            "matte": weights.matte * (outputs["accumulation"][..., 0] - matte).abs().mean(),
            "bounds": _losses.bounds(self.rigged(), limits, weights),
        }

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR, dB, and truth and drawing side by side."""
        pair = torch.cat((batch["image"].to(self.device), outputs["rgb"]), 1)
        return {"psnr": float(self.get_metrics_dict(outputs, batch)["psnr"])}, {"img": pair}


# ---------------------------------------------------------------------------------------------- method


@dataclass
class DecayConfig(SchedulerConfig):
    """Exponential decay in plain numbers: nerfstudio's own writes numpy's, which torch refuses to load again."""

    _target: type = field(default_factory=lambda: Decay)
    lr_final: float = 1e-4
    """Rate at the last step."""
    max_steps: int = STEPS
    """When that is."""


class Decay(Scheduler):
    """From an optimizer's rate to ``lr_final``."""

    config: DecayConfig

    def get_scheduler(self, optimizer: torch.optim.Optimizer, lr_init: float) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule for one optimizer."""
        whole, steps = self.config.lr_final / lr_init, self.config.max_steps
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: whole ** min(step / steps, 1.0))


def _optimizer(name: str) -> dict[str, Any]:
    first, last = _state.LEARNING_RATES[name]
    return {"optimizer": AdamOptimizerConfig(lr=first, eps=1e-15), "scheduler": DecayConfig(lr_final=last)}


method = MethodSpecification(
    config=TrainerConfig(
        method_name="gsth",
        max_num_iterations=STEPS,
        steps_per_save=1000,
        steps_per_eval_batch=0,
        steps_per_eval_image=500,
        steps_per_eval_all_images=STEPS,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(datamanager=TrackManagerConfig(), model=RiggedModelConfig()),
        optimizers={name: _optimizer(name) for name in LEARNED},
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    ),
    description="gsth: rigged Gaussians on a tracked head (give --data a folder that gsth track wrote).",
)
"""What the entry point nerfstudio.method_configs names."""
