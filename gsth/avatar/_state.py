"""What training changes: parameters, optimiser, records; and how it goes to disk and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gsth import media
from gsth.avatar import _density
from gsth.avatar._config import AvatarConfig
from gsth.avatar._field import Field
from gsth.avatar._refine import MotionRefinement
from gsth.errors import ArtifactError
from gsth.types import Motion, RiggedSplats

LEARNING_RATES = {
    "means_tri": (1e-2, 5e-4),
    "quats_tri": (5e-3, 1e-3),
    "log_scales": (1e-2, 2e-3),
    "logit_opacities": (5e-2, 1e-2),
    "sh": (1e-2, 1e-3),
    "means_delta": (2e-3, 2e-4),
    "sh_delta": (2e-3, 2e-4),
}
"""First and last step size of each parameter (geometric in between); positions in triangle units."""

FIELD_RATES = {"planes": (5e-3, 5e-4), "nets": (1e-3, 1e-4)}
"""The same for the audio field."""


@dataclass
class Voice:
    """The audio field and its optimiser."""

    field: Field
    optimizer: torch.optim.Adam

    @classmethod
    def of(cls, field: Field) -> Voice:
        groups = [
            {"params": list(field.planes.parameters()), "first": FIELD_RATES["planes"]},
            {"params": list(field.body.parameters()), "first": FIELD_RATES["nets"]},
        ]
        return cls(field, torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-12))

    def to(self, device: torch.device) -> None:
        """Move the field and its moments; parameters stay the same objects."""
        self.field.to(device)
        _move_moments(self.optimizer, device)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        out = {f"field.{n}": w for n, w in self.field.tensors().items()}
        for name, p in self.field.named_parameters():
            for key, value in self.optimizer.state.get(p, {}).items():
                out[f"field_adam.{name}.{key}"] = value
        return out

    def restore(self, saved: dict[str, Tensor]) -> None:
        """What ``tensors`` gave."""
        self.field.load_state_dict({n[len("field.") :]: w for n, w in saved.items() if n.startswith("field.")})
        for name, p in self.field.named_parameters():
            if f"field_adam.{name}.step" in saved:
                keys = ("step", "exp_avg", "exp_avg_sq")
                self.optimizer.state[p] = {key: saved[f"field_adam.{name}.{key}"] for key in keys}


@dataclass
class TrainState:
    """What training changes."""

    face_ids: Tensor
    params: dict[str, Tensor]
    optimizer: torch.optim.Adam
    record: _density.GradientRecord
    refinement: MotionRefinement
    generator: torch.Generator
    order: Tensor
    """Frames still to come in this pass over the clip."""
    lent: Tensor
    """SH coefficients that the neighbours of each splat have, [n k 3]; see ``_complete``."""
    pull: Tensor
    """How much each splat should look like that, 0 to 1, [n]."""
    height: Tensor
    """How far its neighbours stand off the mesh, m, [n]."""
    voice: Voice | None = None
    """The audio field in training."""
    step: int = 0

    def to(self, device: torch.device) -> None:
        """Move what a step of the optimiser reads and writes; the motion's corrections, which are small, stay."""
        for p in self.params.values():
            p.data = p.data.to(device)
        _move_moments(self.optimizer, device)
        self.record = _density.GradientRecord(self.record.total.to(device), self.record.seen.to(device))
        for name in ("face_ids", "lent", "pull", "height"):
            setattr(self, name, getattr(self, name).to(device))
        if self.voice is not None:
            self.voice.to(device)

    def rigged(self) -> RiggedSplats:
        """The splats as they are now; differentiable."""
        p = self.params
        return RiggedSplats(
            self.face_ids, p["means_tri"], p["quats_tri"], p["log_scales"], p["logit_opacities"], p["sh"]
        )


def _move_moments(optimizer: torch.optim.Adam, device: torch.device) -> None:
    """The fused Adam wants its count of steps on the parameters' device, too."""
    for moments in optimizer.state.values():
        for key, value in moments.items():
            moments[key] = value.to(device)


def fresh(motion: Motion, face_ids: Tensor, params: dict[str, Tensor], generator: torch.Generator) -> TrainState:
    """The state of a run that begins with these splats."""
    params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    groups = [{"params": [p], "name": name, "lr": LEARNING_RATES[name][0]} for name, p in params.items()]
    return TrainState(
        face_ids,
        params,
        torch.optim.Adam(groups, eps=1e-8, fused=True),
        _density.GradientRecord.empty(len(face_ids)),
        MotionRefinement.zeros(motion),
        generator,
        torch.zeros(0, dtype=torch.int64),
        torch.zeros_like(params["sh"]),
        pull=torch.zeros(len(face_ids)),
        height=torch.zeros(len(face_ids)),
    )


def change_density(state: TrainState, config: AvatarConfig) -> None:
    """Remove and split splats, and carry the optimiser's moments over."""
    values = {name: p.detach() for name, p in state.params.items()}
    change = _density.plan(state.record, values["logit_opacities"], config.density, config.max_splats)
    put_rows(state, _density.split_long_axis(values, change), change)


def put_rows(state: TrainState, values: dict[str, Tensor], change: _density.Change) -> None:
    """Replace the splats by these values, which come from old rows as ``change`` says."""
    kept = len(change.source) - change.added
    for group in state.optimizer.param_groups:
        old = group["params"][0]
        new = values[group["name"]].detach().clone().requires_grad_()
        moments = state.optimizer.state.pop(old, None)
        if moments is not None:
            for key in ("exp_avg", "exp_avg_sq"):
                moments[key] = moments[key][change.source].clone()
                moments[key][kept:] = 0
            state.optimizer.state[new] = moments
        group["params"] = [new]
        state.params[group["name"]] = new
    state.face_ids = state.face_ids[change.source]
    state.lent, state.pull, state.height = (v[change.source] for v in (state.lent, state.pull, state.height))
    state.record = _density.GradientRecord.empty(len(state.face_ids))


def packed(state: TrainState, digest: str) -> bytes:
    """All that the rest of the run depends on, in the safetensors format."""
    r = state.refinement
    tensors = {
        "step": torch.tensor(state.step),
        "face_ids": state.face_ids,
        "order": state.order,
        "generator": state.generator.get_state(),
        "lent": state.lent,
        "pull": state.pull,
        "height": state.height,
        "record.total": state.record.total,
        "record.seen": state.record.seen,
        **{f"refinement.{n}": getattr(r, n) for n in ("values", "first", "second", "count")},
    }
    for group in state.optimizer.param_groups:
        (p,), name = group["params"], group["name"]
        tensors[f"param.{name}"] = p.detach()
        for key, value in state.optimizer.state[p].items():
            tensors[f"adam.{name}.{key}"] = value
    if state.voice is not None:
        tensors |= state.voice.tensors()
    return save({k: v.contiguous() for k, v in tensors.items()}, {"digest": digest})


def unpacked(saved: dict[str, Tensor], motion: Motion, voice: Voice | None) -> TrainState:
    """The state whose tensors these are; ``voice`` is a field of the run's kind, which takes its values over."""
    names = [key[len("param.") :] for key in saved if key.startswith("param.")]
    # Group order decides nothing, but keep that of a fresh run.
    params = {n: saved[f"param.{n}"] for n in LEARNING_RATES if n in names}
    state = fresh(motion, saved["face_ids"], params, torch.Generator())
    state.generator.set_state(saved["generator"])
    for name, p in state.params.items():
        if f"adam.{name}.step" in saved:
            state.optimizer.state[p] = {key: saved[f"adam.{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    state.record = _density.GradientRecord(saved["record.total"], saved["record.seen"])
    state.refinement = MotionRefinement(*(saved[f"refinement.{n}"] for n in ("values", "first", "second", "count")))
    state.lent, state.pull, state.height = (saved[n] for n in ("lent", "pull", "height"))
    state.order, state.step = saved["order"], int(saved["step"])
    if voice is not None:
        voice.restore(saved)
    state.voice = voice
    return state


def save_checkpoint(work: Path, digest: str, state: TrainState) -> Path:
    """Write the state; keeps the last two checkpoints."""
    path = work / f"checkpoint-{state.step:07d}.safetensors"
    data = packed(state, digest)
    with media.whole_file(path) as part:
        part.write_bytes(data)
    for old in sorted(work.glob("checkpoint-*.safetensors"))[:-2]:
        old.unlink()
    return path


def resume(work: Path, digest: str, motion: Motion, voice: Voice | None) -> TrainState | None:
    """The newest checkpoint of this very run, or None; ``voice`` is a fresh field, if the run has one."""
    for path in sorted(work.glob("checkpoint-*.safetensors"), reverse=True):
        try:
            with safe_open(path, "pt") as f:
                meta = f.metadata()
                if meta["digest"] != digest:
                    continue
                saved = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError, KeyError, TypeError) as e:
            raise ArtifactError(
                f"{path}: the checkpoint cannot be read ({e}); delete it to go on from an older one"
            ) from e
        return unpacked(saved, motion, voice)
    return None
