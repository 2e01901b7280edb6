"""What gsth raises. Every message says where, what was found, what was wanted and what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


class GsthError(Exception):
    """Base of every error that gsth raises on purpose; the CLI prints it and exits with 2."""


class InputError(GsthError, ValueError):
    """What the user handed over (a file, a number, a name) cannot be used."""


class ArtifactError(GsthError):
    """A folder or file that gsth wrote is damaged, of another kind, or of a version that cannot be read."""


class BackendError(GsthError):
    """A backend asked for by name cannot run here."""


class MissingExtraError(GsthError, ImportError):
    """An optional package is absent."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; run: pip install 'gsth[{extra}]'"
        )
        self.package, self.extra = package, extra


class DivergedError(GsthError):
    """An optimisation produced a value that is not finite."""


class OutputError(GsthError):
    """A file or folder could not be written: no space, no permission, a folder that is in the way."""


_CANNOT_WRITE = {
    errno.ENOSPC: "free some space or write somewhere else",
    errno.EDQUOT: "free some space or write somewhere else",
    errno.EFBIG: "this system limits the size of files; raise the limit or write somewhere else",
    errno.EACCES: "choose a folder that you may write in",
    errno.EPERM: "choose a folder that you may write in",
    errno.EROFS: "choose a folder that you may write in",
    errno.ENOTDIR: "a part of the path is a file; choose another name",
    errno.EEXIST: "a part of the path is a file; choose another name",
}


@contextlib.contextmanager
def writes(path: Path) -> Iterator[None]:
    """Turn what the system says against writing into OutputError; what it says against reading passes unchanged."""
    try:
        yield
    except OSError as error:
        advice = _CANNOT_WRITE.get(error.errno or 0)
        if advice is None:
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror}): {advice}") from error


_MEMORY = ("can't allocate memory", "annot allocate memory", "not enough memory", "insufficient memory", "bad_alloc")
"""What torch, the system and C++ libraries say, in small letters, where it is no MemoryError."""


def gave_out(error: BaseException) -> str | None:
    """What to say of an error that says nothing of the work: memory ended, or the GPU was lost. None: it is another.

    Libraries raise these as they like, so they go through the rooms unchanged (a batch tries such a task again), and
    whoever shows errors asks here.
    """
    kind, said = type(error).__name__, " ".join(str(error).split())
    first = said[:200] or kind
    if kind == "OutOfMemoryError":  # torch's
        return f"the GPU has too little free memory ({first}): end what else runs on it, or choose a smaller preset"
    if isinstance(error, MemoryError) or any(words in said.lower() for words in _MEMORY):
        return (
            f"there is too little free memory ({first}): end other programs, or ask for less, for example the preset "
            "quick, fewer splats or a smaller picture"
        )
    if kind == "AcceleratorError" or "CUDA error" in said or "CUDA kernels:" in said:
        return f"the GPU was lost, or one of its drivers failed ({first}): see what nvidia-smi says of it"
    return None
