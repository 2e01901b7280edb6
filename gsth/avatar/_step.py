"""One step of training: the loss of some frames, its gradient over all processes, and what optimisers make of it."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from gsth import render
from gsth.avatar import _density, _losses, _sides, _state
from gsth.avatar._avatar import Correctives
from gsth.avatar._config import AvatarConfig
from gsth.avatar._crew import Crew
from gsth.avatar._field import Listeners
from gsth.avatar._scene import Scene
from gsth.avatar._state import TrainState
from gsth.errors import DivergedError
from gsth.types import Motion, Rendered, RiggedSplats

_FIELD_FROM = 0.4
"""When the audio field begins to learn, as a fraction of the steps."""


def one_step(scene: Scene, state: TrainState, config: AvatarConfig, crew: Crew, work: Path) -> tuple[float, float]:
    """A step of the optimiser on ``config.batch`` frames, of which this process draws its share; mean loss and PSNR."""
    frames = [_next_frame(scene, state) for _ in range(config.batch)]
    leaves = [state.refinement.leaf(frame) for frame in frames]
    seen = _density.GradientRecord.empty(len(state.face_ids), scene.device)
    told = torch.zeros(2, device=scene.device)
    for i in crew.share(config.batch):
        loss, drawn, image = one_frame(scene, state, config, frames[i], leaves[i])
        loss = loss / config.batch
        if i == 0:
            loss = loss + _from_the_side(scene, state, config)
        loss.backward()
        seen.add(drawn)
        with torch.no_grad():
            told += torch.stack((loss, (drawn.rgb[0] - image).square().mean() / config.batch))
    gradients = _gradients(state, config, frames, leaves)
    crew.sum([*gradients.values(), seen.total, seen.seen, told])
    if not torch.isfinite(torch.stack([told[0], *(g.sum().to(scene.device) for g in gradients.values())])).all():
        raise DivergedError(_diagnosis(state, gradients, told[0], work))
    gradients["means_delta"] *= scene.soft[state.face_ids][:, None, None]
    state.record.total += seen.total
    state.record.seen += seen.seen
    _set_learning_rates(state, config)
    for optimizer in (state.optimizer, *([state.voice.optimizer] if state.voice else ())):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if config.pose_refinement:
        for frame, leaf in zip(frames, leaves, strict=True):
            assert leaf.grad is not None
            state.refinement.step(frame, leaf.grad)
    state.step += 1
    return float(told[0]), -10 * math.log10(max(float(told[1]), 1e-10))


def one_frame(
    scene: Scene, state: TrainState, config: AvatarConfig, frame: int, leaf: Tensor
) -> tuple[Tensor, Rendered, Tensor]:
    """Loss of one frame, what was drawn, and the picture that it should be."""
    scale = 0.5 if state.step < config.coarse_until * config.steps else 1.0
    image, matte, background = scene.target(frame, scale)
    motion: Motion = scene.reel.motion[frame]
    if config.pose_refinement:
        motion = state.refinement.apply(motion, leaf)
    motion = motion.to(scene.device)
    rigged = state.rigged()
    deltas = Correctives(
        scene.corrective_mean, scene.corrective_basis, state.params["means_delta"], state.params["sh_delta"]
    )
    with torch.no_grad():
        weights = deltas.weights(motion)
    carried = deltas.apply(rigged, weights[0])
    carried, said = _spoken(scene, state, config, carried, motion)
    splats = render.rig(carried, scene.shaped.posed(motion))
    rendered = render.render(splats, scene.cameras(scene.reel.at(frame)[0], scale), background=background)
    h, w = matte.shape
    weight_map = _losses.pixel_weights(scene.reel.landmarks(frame) * scale, h, w, config.loss).to(scene.device)
    size = scene.face_size[state.face_ids]
    limits = _losses.Bounds.of(state.face_ids, scene.face_size, scene.max_offset, scene.max_scale)
    loss = _losses.picture(rendered, image, matte, weight_map, config.loss)
    loss = loss + _losses.bounds(rigged, limits, config.loss)
    around = _losses.Neighbourhood(size, state.lent, state.pull, state.height)
    loss = loss + _losses.priors(rigged, around, config.loss)
    loss = loss + config.loss.corrective * _losses.mean_square(deltas.means_delta, deltas.sh_delta)
    loss = loss + state.refinement.penalty(leaf).to(scene.device) + config.loss.field * said
    return loss, rendered, image


def _next_frame(scene: Scene, state: TrainState) -> int:
    if len(state.order) == 0:
        if state.step:
            for rows in scene.reel.rows:
                state.refinement.anchor(scene.reel.motion, rows)
        usable = scene.reel.usable
        state.order = usable[torch.randperm(len(usable), generator=state.generator)]
    frame = int(state.order[0])
    state.order = state.order[1:]
    return frame


def _from_the_side(scene: Scene, state: TrainState, config: AvatarConfig) -> Tensor:
    """Price of what shines through, in one view from where no camera was, once bare surface is covered."""
    if not scene.sides or state.step < config.settle * config.steps:
        return torch.zeros((), device=scene.device)
    side = scene.sides[state.step % len(scene.sides)]
    motion = scene.reel.motion[side.frame].to(scene.device)
    splats = render.rig(state.rigged(), scene.shaped.posed(motion))
    return config.loss.leak * _sides.leak(splats, side.hidden[state.face_ids], side.close(state.step))


def _spoken(
    scene: Scene, state: TrainState, config: AvatarConfig, splats: RiggedSplats, motion: Motion
) -> tuple[RiggedSplats, Tensor]:
    """The splats as the audio field moves them, and its price; as they are before the field's turn has come."""
    if state.voice is None or not _field_learns(state.step, config):
        return splats, torch.zeros((), device=scene.device)
    field = state.voice.field
    # Of the bare splats, as in ``Avatar.pose``: the field is not asked where correctives took them.
    listeners = Listeners.of(scene.shaped, state.rigged())
    delta = field(field.features(listeners.points), listeners.inside, motion)
    return listeners.moved(splats, delta), field.price(delta)


def _gradients(state: TrainState, config: AvatarConfig, frames: list[int], leaves: list[Tensor]) -> dict[str, Tensor]:
    """Of all that this step may change, by name; zeros where this process drew nothing that tells."""
    owners = dict(state.params)
    if state.voice is not None and _field_learns(state.step, config):
        owners |= {f"field.{name}": p for name, p in state.voice.field.named_parameters()}
    owners |= {f"motion {i} (frame {frames[i]})": leaf for i, leaf in enumerate(leaves)}
    gradients = {}
    for name, owner in owners.items():
        if owner.grad is None:
            owner.grad = torch.zeros_like(owner)
        gradients[name] = owner.grad
    return gradients


def _diagnosis(state: TrainState, gradients: dict[str, Tensor], loss: Tensor, work: Path) -> str:
    wild = [name for name, g in gradients.items() if not torch.isfinite(g).all()]
    what = f"the gradient of {', '.join(wild)}" if torch.isfinite(loss) else "the loss (look at the track)"
    last = max(work.glob("checkpoint-*.safetensors"), default=None)
    return (
        f"step {state.step}: {what} stopped being finite; the splats are still good, and so is the last checkpoint: "
        f"{last or 'none yet'}. The same command goes on from there; where it stops again, give another seed"
    )


def _set_learning_rates(state: TrainState, config: AvatarConfig) -> None:
    progress = state.step / config.steps
    if state.voice is not None:
        for group in state.voice.optimizer.param_groups:
            group["lr"] = group["first"][0] * (group["first"][1] / group["first"][0]) ** progress
    for group in state.optimizer.param_groups:
        start, end = _state.LEARNING_RATES[group["name"]]
        group["lr"] = start * (end / start) ** progress


def _field_learns(step: int, config: AvatarConfig) -> bool:
    # A field on splats that do not yet know their places would learn what the rig is to say.
    return step >= _FIELD_FROM * config.steps
