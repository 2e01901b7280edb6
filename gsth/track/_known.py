"""A person who is known already, from another clip, as a head model on which nothing of identity is left to fit."""

from __future__ import annotations

from dataclasses import replace

from gsth.head import HeadModel
from gsth.types import Identity


def known(head: HeadModel, who: Identity) -> HeadModel:
    """The head in this person's shape, without identity coefficients: the fit then finds lens and motion alone.

    Raises:
        InputError: The identity belongs to another head model.
    """
    shaped = head.shaped(who)
    return replace(
        head,
        template=shaped.rest,
        pivots=shaped.pivots,
        shape_basis=head.shape_basis[:0],
        pivot_basis=head.pivot_basis[:0],
    )
