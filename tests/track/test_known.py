"""A known person's head has nothing of identity left to fit, and their motion is found all the same."""

from __future__ import annotations

from dataclasses import replace

import torch

from gsth import math3d
from gsth.head import HeadModel
from gsth.track._fit import STAGES, Fit, Observed
from gsth.track._known import known
from gsth.track._rig import LandmarkRig, Pose
from gsth.track._surface import widened
from gsth.types import Identity

TRAIN = 48


def test_a_known_person_keeps_their_shape(
    made_up: HeadModel, observed: Observed, truth: tuple[Pose, torch.Tensor]
) -> None:
    who = Identity(made_up.id, truth[1], torch.full_like(made_up.template, 1e-4))
    head = known(made_up, who)
    own = made_up.shaped(who)
    nobody = Identity(made_up.id, torch.zeros(0))
    assert torch.equal(head.shaped(nobody).rest, own.rest) and torch.equal(head.shaped(nobody).pivots, own.pivots)
    assert widened(head) is head
    fit = Fit(head, observed, TRAIN)
    for _ in fit.run(tuple(replace(s, steps=s.steps // 2) for s in STAGES)):
        pass
    found = fit.result()
    want = LandmarkRig.of(made_up).motion(truth[0], 25.0)
    assert found.error_pct.median() < 2 and not len(found.identity.shape)
    lens = observed.focal / 0.85  # it was drawn with this, and starts from less
    # The lens is told as poorly as ever, but how large a person of known size looks holds distance and lens together.
    away = found.motion.T_world_head[:, 6] / want.T_world_head[:, 6] / (found.focal / lens)
    assert abs(float(away.median()) - 1) < 0.03
    turns = [math3d.quat_to_rotvec(math3d.quat_mul(m.joints[:, 1], m.joints[:, 2]))[:, 1] for m in (found.motion, want)]
    assert float(torch.corrcoef(torch.stack(turns))[0, 1]) > 0.99
