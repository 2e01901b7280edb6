"""Budgets, expressions and bases: what is kept looks and moves as before."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from gsth import math3d, render
from gsth.avatar import Avatar
from gsth.errors import InputError
from gsth.export import _slim


def result(work: Generator[Any, None, Avatar]) -> Avatar:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def psnr(a: Avatar, b: Avatar) -> float:
    errors = []
    for i in range(0, len(a.motion), 2):
        for yaw in (0.0, 0.3):
            cameras = a.around(a.motion[i], yaw)
            views = [render.render(m.pose(m.motion[i]), cameras, background=torch.zeros(3)).rgb for m in (a, b)]
            errors.append((views[0] - views[1]).square().mean())
    return float(-10 * torch.log10(torch.stack(errors).mean()))


def test_importance_is_the_blending_weight(person: Avatar) -> None:
    """Against the definition: the weight of a splat is what the picture loses when only its colour goes."""
    weight = _slim.importance(person)
    assert weight.shape == (len(person.splats.face_ids),) and (weight >= -1e-3).all()
    frame = person.motion[:1]
    alone = Avatar(**{**vars_of(person), "motion": frame})
    weight = _slim.importance(alone)
    chosen = int(weight.argmax())
    posed, total = person.pose(frame), 0.0
    for yaw in _slim.YAWS_RAD:
        black = torch.full((len(weight), 1, 3), -0.5 / 0.28209479177387814)
        lit = black.clone()
        lit[chosen] = 0.5 / 0.28209479177387814
        cameras = alone.around(frame, yaw)
        views = [render.render(posed.replace(sh=sh), cameras, background=torch.zeros(3)).rgb for sh in (lit, black)]
        pixels = _slim.attention(alone, frame, cameras)
        total += float(((views[0] - views[1])[0] * pixels[..., None]).sum())
    assert weight[chosen] * 1 / 0.28209479177387814 == pytest.approx(total, rel=1e-3)


def test_eyes_and_mouth_count_more_in_any_view(person: Avatar) -> None:
    frame = person.motion[:1]
    for yaw in (0.0, 0.4):
        cameras = person.around(frame, yaw)
        pixels = _slim.attention(person, frame, cameras)
        verts = person.shaped.posed(frame).verts
        lips = person.head.landmarks(verts)[0, 13]  # the middle of the upper lip
        view = cameras.viewmats[0]
        col, row = math3d.project((view[:3, :3] @ lips + view[:3, 3])[None], cameras.Ks[0])[0].long().tolist()
        assert pixels[row, col] > 3 * pixels[0, 0]


def vars_of(avatar: Avatar) -> dict[str, Any]:
    import dataclasses

    return {f.name: getattr(avatar, f.name) for f in dataclasses.fields(avatar)}


def test_a_budget_keeps_what_matters(person: Avatar) -> None:
    kept = result(_slim.slimmed(person, _slim.SlimConfig(splats=300, finetune=0)))
    weight = _slim.importance(person)
    worst = person.taken(weight.topk(300, largest=False).indices)
    assert len(kept.splats.face_ids) == 300 and psnr(person, kept) > psnr(person, worst) + 6
    assert kept.correctives is not None and len(kept.correctives.means_delta) == 300
    same = result(_slim.slimmed(person, _slim.SlimConfig(splats=10_000)))
    assert same is person


def test_finetuning_pays(person: Avatar) -> None:
    kept = result(_slim.slimmed(person, _slim.SlimConfig(splats=200, finetune=0)))
    better = result(_slim.slimmed(person, _slim.SlimConfig(splats=200, finetune=60)))
    assert psnr(person, better) > psnr(person, kept) + 1
    assert not better.splats.means_tri.requires_grad
    spare = _slim.importance(person).topk(1, largest=False).indices
    missed_by_nobody = person.splats.logit_opacities.clone()
    missed_by_nobody[spare] = -20
    faint = Avatar(**{**vars_of(person), "splats": person.splats.replace(logit_opacities=missed_by_nobody)})
    same = result(_slim.slimmed(faint, _slim.SlimConfig(splats=len(missed_by_nobody) - 1, finetune=60)))
    assert psnr(faint, same) > 60


def test_expressions_that_stay_are_the_same(person: Avatar, tmp_path: Path) -> None:
    few = result(_slim.slimmed(person, _slim.SlimConfig(expressions=("jawOpen", "eyeBlinkLeft"))))
    assert few.head.expression_names == ("eyeBlinkLeft", "jawOpen") and few.head.id != person.head.id
    # the person's motion uses only these two: nothing may change but what correctives hear of the others
    ours, theirs = person.shaped.posed(person.motion).verts, few.shaped.posed(few.motion).verts
    assert torch.allclose(ours, theirs, atol=1e-6)
    few.save(tmp_path / "few.avatar")
    again = Avatar.load(tmp_path / "few.avatar")
    assert torch.equal(again.pose(again.motion[3]).means, few.pose(few.motion[3]).means)
    with pytest.raises(InputError, match="no 'grin'"):
        _slim.with_expressions(person, ("grin",))


def test_a_personal_basis_moves_the_person_alike(person: Avatar) -> None:
    own = result(_slim.slimmed(person, _slim.SlimConfig(basis="personal")))
    assert len(own.head.expression_names) == 2  # two expressions move in this motion
    ours, theirs = person.shaped.posed(person.motion).verts, own.shaped.posed(own.motion).verts
    assert (ours - theirs).abs().max() < 1e-4
    assert float(own.motion.expr.abs().max()) == pytest.approx(1)
    assert (person.pose(person.motion[3]).means - own.pose(own.motion[3]).means).abs().max() < 1e-4
    matrix = torch.tensor(own.meta["expression_map"]["matrix"])
    assert torch.allclose(person.motion.expr @ matrix, own.motion.expr, atol=1e-5)
    assert own.head.shape_basis.numel() == 0 and own.identity.shape.numel() == 0


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="--splats is 0"):
        _slim.SlimConfig(splats=0)
    with pytest.raises(InputError, match="--finetune is -1"):
        _slim.SlimConfig(finetune=-1)
