"""Where a picture of a person comes from: consent, content credentials, an invisible mark, and reading them back.

``Consent`` is recorded when an avatar is made and travels in its meta (``record``) and beside every export
(``write_sidecar``). ``write_video`` and ``write_image`` are how pictures of avatars leave gsth: with C2PA content
credentials, a watermark in the pixels and, where asked, a visible label. ``verify`` says in plain words what a file
carries. What each of them proves, and what it does not: docs/responsible_use.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gsth.provenance._config import STAMPED, StampConfig

if TYPE_CHECKING:
    from gsth.provenance._consent import SYNTHETIC, About, Consent, about, consent_from, record, write_sidecar
    from gsth.provenance._licences import licences, licences_of
    from gsth.provenance._stamp import check, write_image, write_video
    from gsth.provenance._verify import verify

__all__ = [
    "STAMPED",
    "SYNTHETIC",
    "About",
    "Consent",
    "StampConfig",
    "about",
    "check",
    "consent_from",
    "licences",
    "licences_of",
    "record",
    "verify",
    "write_image",
    "write_sidecar",
    "write_video",
]

_HOMES = {
    **dict.fromkeys(("SYNTHETIC", "About", "Consent", "about", "consent_from", "record", "write_sidecar"), "_consent"),
    **dict.fromkeys(("licences", "licences_of"), "_licences"),
    **dict.fromkeys(("check", "write_image", "write_video"), "_stamp"),
    "verify": "_verify",
}


def __getattr__(name: str) -> Any:
    # the command line shows StampConfig in its help, which must not bring PyAV
    if name in _HOMES:
        return getattr(importlib.import_module(f"gsth.provenance.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'gsth.provenance' has no attribute {name!r}")
