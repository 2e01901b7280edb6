"""What gsth raises. Every message says where, what was found, what was wanted and what to do."""

from __future__ import annotations


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
