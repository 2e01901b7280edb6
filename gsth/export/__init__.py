"""Exporters: an avatar out, in a format that other programs open. And back in: ``read``.

To add one: a public file in this room with a frozen ``Config``, whose fields (with docstrings) become the options of
``gsth export AVATAR NAME`` and whose ``build()`` returns an ``Exporter``. Configs import no torch, so that the command
line can show them at once. Files are whole or absent (``gsth.media.whole_file``, ``gsth.artifacts.writing``).

Export frame, in every format: right-handed, +y up, the face looks towards +z, metres; the origin is the pivot of the
neck joint in the mean placement of the exported motion. Formats, layouts and their readers: docs/format.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gsth.export._import import ImportConfig
from gsth.export._slim import SlimConfig
from gsth.types import Done, Event, Saved

if TYPE_CHECKING:
    from gsth.avatar import Avatar

__all__ = ["Exporter", "ImportConfig", "SlimConfig", "read", "run"]


class Exporter(Protocol):
    """Writes avatars in one format."""

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """Write ``out`` (a file or a folder, as the format wants it); the last event is ``Done`` with that path.

        Raises:
            InputError: The avatar or an option does not fit the format.
            MissingExtraError: The format needs a package that is absent.
            OutputError: ``out`` cannot be written.
        """
        ...


def run(avatar_path: Path, config: Any, out: Path, slim: SlimConfig | None = None) -> Iterator[Event]:
    """Load an avatar, slim it where asked, and write it, with a JSON of its consent and licences beside or in it.

    Args:
        avatar_path: Folder that ``gsth train`` wrote.
        config: A format's ``Config``, for example ``gsth.export.ply.Config()``.
        out: What to write.
        slim: Budget of splats, choice of expressions and basis; None: the whole avatar.
    """
    from gsth import provenance
    from gsth.avatar import Avatar
    from gsth.export import _slim

    made = Avatar.load(avatar_path)
    if slim is not None:
        made = yield from _slim.slimmed(made, slim)
    for event in config.build().write(made, out):
        if isinstance(event, Done):
            yield Saved(provenance.write_sidecar(event.path, made.meta))
        yield event


def read(path: Path, config: ImportConfig, out: Path) -> Iterator[Event]:
    """Bring a file back in: a .glb or a web page as an avatar, a .ply or .spz as a prop or, hung on a head, an avatar.

    Args:
        path: The file, or the folder of a web page.
        config: What to make of it.
        out: Folder of the artifact to write.

    Raises:
        InputError: The file is of no known kind, damaged, or too large.
    """
    from gsth.export import _import

    return _import.run(path, config, out)
