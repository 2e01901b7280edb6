"""Smaller avatars: fewer splats, fewer expressions, a basis of the person's own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gsth.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from gsth.avatar import Avatar
    from gsth.head import HeadModel
    from gsth.types import Cameras, Event, Motion


@dataclass(frozen=True)
class SlimConfig:
    """What of the avatar is exported; by default all."""

    splats: int | None = None
    """Keep at most so many splats, those that the pictures need most."""
    finetune: int = 300
    """Steps that train the splats that are kept to stand in for the others, where the others are missed."""
    expressions: tuple[str, ...] = ()
    """Keep only these expressions, by name."""
    basis: Literal["head", "personal"] = "head"
    """personal: replace the head model's shapes by the main shapes of this person's own motion, so that the file holds
    no part of a licensed head model's basis."""

    def __post_init__(self) -> None:
        if self.splats is not None and self.splats < 1:
            raise InputError(f"--splats is {self.splats}; it must be at least 1")
        if self.finetune < 0:
            raise InputError(f"--finetune is {self.finetune}; it must be 0 or more")


VIEWS = 32
"""Frames that say how much each splat matters."""
YAWS_RAD = (0.0, -0.4, 0.4)
"""From the front and from both sides, to about where one camera's knowledge ends."""
INVISIBLE = 1e-5
"""Mean squared difference of pictures (50 dB) that no training improves on."""
PERSONAL = "personal"
"""Name of heads on a basis of their own."""
ENERGY = 0.99999
"""Share of the motion's squared vertex displacement that a personal basis keeps."""
_RATES = {
    "means_tri": 2e-3,
    "quats_tri": 1e-3,
    "log_scales": 4e-3,
    "logit_opacities": 1.5e-2,
    "sh": 2e-3,
    "means_delta": 4e-4,
    "sh_delta": 4e-4,
}


def slimmed(avatar: Avatar, config: SlimConfig) -> Generator[Event, None, Avatar]:
    """The avatar as ``config`` wants it; yields events, returns the avatar.

    Raises:
        InputError: An expression to keep is unknown.
    """
    if config.splats is not None and config.splats < len(avatar.splats.face_ids):
        kept = avatar.taken(importance(avatar).topk(config.splats).indices.sort().values)
        # Adam's steps never rest: where nothing is missing they would only harm.
        pays = config.finetune > 0 and difference(kept, avatar) > INVISIBLE
        avatar = (yield from finetuned(kept, avatar, config.finetune)) if pays else kept
    if config.expressions:
        avatar = with_expressions(avatar, config.expressions)
    if config.basis == "personal":
        avatar = with_personal_basis(avatar)
    return avatar


def importance(avatar: Avatar) -> Tensor:
    """Blending weight of each splat, summed over the pixels of views around the person's own motion, [n].

    The weight is the derivative of the picture by the splat's colour, so one backward pass per view gives it. Pixels
    count as in training, eyes and mouth most: their splats are small, and by area alone the first to go.
    """
    import torch

    from gsth import render

    total = torch.zeros(len(avatar.splats.face_ids))
    frames = torch.linspace(0, len(avatar.motion) - 1, min(VIEWS, len(avatar.motion))).round().long().tolist()
    for i in frames:
        with torch.no_grad():
            posed = avatar.pose(avatar.motion[i])
        for yaw_rad in YAWS_RAD:
            colour = torch.zeros(len(total), 1, 3, requires_grad=True)  # mid grey: nothing is clamped
            cameras = avatar.around(avatar.motion[i], yaw_rad)
            drawn = render.render(posed.replace(sh=colour), cameras, background=torch.zeros(3))
            (drawn.rgb[0] * attention(avatar, avatar.motion[i], cameras)[..., None]).sum().backward()
            assert colour.grad is not None
            total += colour.grad.sum((1, 2))
    return total


def attention(avatar: Avatar, frame: Motion, cameras: Cameras) -> Tensor:
    """How much each pixel counts, [h w], as training weighs it; from the head's own landmarks in any view."""
    from gsth import math3d
    from gsth.avatar import LossWeights, _losses

    landmarks = avatar.head.landmarks(avatar.shaped.posed(frame).verts)[0]
    view = cameras.viewmats[0]
    px = math3d.project(landmarks @ view[:3, :3].T + view[:3, 3], cameras.Ks[0])
    return _losses.pixel_weights(px, cameras.height, cameras.width, LossWeights())


def difference(avatar: Avatar, whole: Avatar) -> float:
    """Mean squared difference of pictures of two avatars with one motion, on grey, from the front and the sides."""
    import torch

    from gsth import render

    errors, motion = [], whole.motion
    with torch.no_grad():
        for i in torch.linspace(0, len(motion) - 1, min(4, len(motion))).round().long().tolist():
            for yaw_rad in YAWS_RAD:
                cameras = whole.around(motion[i], yaw_rad)
                a, b = (
                    render.render(m.pose(motion[i]), cameras, background=torch.full((3,), 0.5)).rgb
                    for m in (avatar, whole)
                )
                errors.append((a - b).square().mean())
    return float(torch.stack(errors).mean())


def finetuned(student: Avatar, teacher: Avatar, steps: int) -> Generator[Event, None, Avatar]:
    """Train the splats of ``student`` to draw what ``teacher`` draws, from the front and the sides.

    Learning from the whole avatar needs no clip, and knows what lies behind the person.
    """
    import dataclasses

    import torch

    from gsth import render
    from gsth.errors import DivergedError
    from gsth.types import Step

    s, c = student.splats, student.correctives
    params = {f: getattr(s, f).clone().requires_grad_() for f in _RATES if hasattr(s, f)}
    if c is not None:
        params |= {f: getattr(c, f).clone().requires_grad_() for f in ("means_delta", "sh_delta")}
    optimizer = torch.optim.Adam([{"params": [p], "lr": _RATES[f]} for f, p in params.items()], eps=1e-15)
    random, motion = torch.Generator().manual_seed(0), teacher.motion
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0)

    def learned() -> Avatar:
        splats = s.replace(**{f: params[f] for f in params if hasattr(s, f)})
        deltas = None if c is None else c.replace(means_delta=params["means_delta"], sh_delta=params["sh_delta"])
        return dataclasses.replace(student, splats=splats, correctives=deltas)

    for step in range(1, steps + 1):
        i = int(torch.randint(len(motion), (1,), generator=random))
        amount, *background = torch.rand(4, generator=random).unbind()
        cameras = teacher.around(motion[i], float(amount - 0.5) * 2 * YAWS_RAD[-1])
        paint = torch.stack(background)
        with torch.no_grad():
            target = render.render(teacher.pose(motion[i]), cameras, background=paint).rgb[0]
        drawn = render.render(learned().pose(motion[i]), cameras, background=paint).rgb[0]
        loss = render.l1_ssim_loss(drawn, target, attention(teacher, motion[i], cameras))
        if not torch.isfinite(loss):
            raise DivergedError(f"finetune step {step}: the loss is not finite; export without --finetune")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 10 == 0 or step == steps:
            yield Step("finetune", step, steps, {"loss": loss.item()})
    made = learned()
    parts = {f.name: getattr(made.splats, f.name).detach() for f in dataclasses.fields(made.splats)}
    deltas = made.correctives
    if deltas is not None:
        deltas = deltas.replace(means_delta=deltas.means_delta.detach(), sh_delta=deltas.sh_delta.detach())
    return dataclasses.replace(made, splats=s.replace(**parts), correctives=deltas)


def with_expressions(avatar: Avatar, names: tuple[str, ...]) -> Avatar:
    """The avatar on a head that knows only some expressions; the others stay at rest for good.

    Its own speech network moves those that are left.

    Raises:
        InputError: An expression is unknown.
    """
    import dataclasses

    import torch

    known = avatar.head.expression_names
    head = fewer_expressions(avatar.head, names)
    keep = torch.tensor([known.index(n) for n in head.expression_names])
    correctives = avatar.correctives
    if correctives is not None:
        columns = torch.cat((keep, torch.arange(len(known), len(correctives.mean))))
        correctives = correctives.replace(mean=correctives.mean[columns], basis=correctives.basis[:, columns])

    def fewer(motion: Motion) -> Motion:
        return motion.replace(head=head.id, expr=motion.expr[:, keep])

    return dataclasses.replace(
        avatar,
        head=head,
        identity=avatar.identity.replace(head=head.id),
        motion=fewer(avatar.motion),
        landmark_motion=avatar.landmark_motion and fewer(avatar.landmark_motion),
        correctives=correctives,
        field=None,
        speech=_fewer_spoken(avatar.speech, keep),
    )


def fewer_expressions(head: HeadModel, names: tuple[str, ...]) -> HeadModel:
    """The head with only these expressions, in its own order. Raises InputError where one is unknown."""
    known = head.expression_names
    if unknown := [n for n in names if n not in known]:
        raise InputError(f"--expressions: the head model has no {unknown[0]!r}; it has {', '.join(known)}")
    keep = sorted({known.index(n) for n in names})
    return _rebased(head, head.expr_basis[keep], tuple(known[i] for i in keep), head.id.name)


def _fewer_spoken(speech: Mapping[str, Tensor], keep: Tensor) -> Mapping[str, Tensor]:
    """The person's layer of a speech network for some of the expressions; none where it moves none of them."""
    import torch

    if not speech:
        return {}
    rows = torch.isin(speech["moved"].long(), keep)
    if not rows.any():
        return {}
    own = {name: speech[name][rows] for name in ("weight", "bias", "closed")}
    moved = torch.searchsorted(keep, speech["moved"].long()[rows]).to(speech["moved"].dtype)
    return {**speech, **own, "rest": speech["rest"][keep], "moved": moved}


def with_personal_basis(avatar: Avatar) -> Avatar:
    """The avatar on the principal shapes of its own motion instead of the head model's expressions.

    Shapes and neutral face come from this person's deformed meshes; no array of the head model's identity or expression
    space stays. ``meta["expression_map"]`` holds, for drivers that speak the head's expressions, the matrix from those
    to the new weights; its own speech network still speaks those.
    """
    import dataclasses

    import torch

    from gsth.types import Identity

    e = len(avatar.head.expression_names)
    shapes = avatar.head.expr_basis.flatten(1)
    _, strength, directions = torch.linalg.svd(avatar.motion.expr @ shapes, full_matrices=False)
    share = strength.square().cumsum(0) / strength.square().sum().clamp_min(1e-12)
    count = min(int((share < ENERGY).sum()) + 1, e)
    towards = shapes @ directions[:count].T
    # Weights within -1 to 1 over the person's motion, as sliders and quantisers like them.
    reach = (avatar.motion.expr @ towards).abs().amax(0).clamp_min(1e-9)
    towards = towards / reach
    basis = (directions[:count] * reach[:, None]).unflatten(1, (-1, 3))
    names = tuple(f"personal_{i:02d}" for i in range(count))
    head = dataclasses.replace(
        _rebased(avatar.head, basis, names, PERSONAL),
        template=avatar.shaped.rest,
        shape_basis=avatar.shaped.rest.new_zeros(0, *avatar.shaped.rest.shape),
        pivots=avatar.shaped.pivots,
        pivot_basis=avatar.shaped.pivots.new_zeros(0, *avatar.shaped.pivots.shape),
    )
    correctives = avatar.correctives
    if correctives is not None:
        spread = avatar.motion.expr - correctives.mean[:e]
        solved = torch.linalg.lstsq(
            (spread @ towards).double(), (spread @ correctives.basis[:, :e].T).double(), driver="gelsd"
        ).solution.float()
        correctives = correctives.replace(
            mean=torch.cat((correctives.mean[:e] @ towards, correctives.mean[e:])),
            basis=torch.cat((solved.T, correctives.basis[:, e:]), 1),
        )

    def moved(motion: Motion) -> Motion:
        return motion.replace(head=head.id, expr=motion.expr @ towards)

    mapping = {"names": list(avatar.head.expression_names), "matrix": towards.tolist()}
    return dataclasses.replace(
        avatar,
        head=head,
        identity=Identity(head.id, torch.zeros(0)),
        motion=moved(avatar.motion),
        landmark_motion=avatar.landmark_motion and moved(avatar.landmark_motion),
        correctives=correctives,
        field=None,
        meta={**avatar.meta, "expression_map": mapping},
    )


def _rebased(head: HeadModel, basis: Tensor, names: tuple[str, ...], name: str) -> HeadModel:
    """The head with other expressions, and an id of its own."""
    import dataclasses
    import hashlib

    from gsth.types import HeadId

    digest = hashlib.sha256(basis.contiguous().numpy().tobytes() + "\n".join(names).encode()).hexdigest()[:16]
    head_id = HeadId(name, head.id.version, digest)
    return dataclasses.replace(head, id=head_id, expr_basis=basis, expression_names=names)
