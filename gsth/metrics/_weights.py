"""Weights that others trained: where they lie, and reading them without running their code."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth.errors import GsthError, InputError, MissingExtraError

if TYPE_CHECKING:
    from torch import Tensor


class WeightsAbsentError(GsthError):
    """A measure needs weights that are not there; it is then listed as absent, never as 0."""


def packaged(module: str, package: str, *parts: str, purpose: str) -> Path:
    """A data file inside an installed package, found without importing the package.

    Some of these packages import what cannot be had here (torchvision, pkg_resources); their data need none of it.

    Raises:
        MissingExtraError: The package, or the file in it, is absent.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtraError(package, "eval", purpose)
    path = Path(spec.origin).parent.joinpath(*parts)
    if not path.is_file():
        raise MissingExtraError(package, "eval", f"{purpose} ({path.name} is not in the installed one)")
    return path


def given(folder: Path | None, *names: str, purpose: str) -> Path:
    """The first of the named files that lies in the folder of ``--weights``.

    Raises:
        WeightsAbsentError: There is no folder, or none of the files in it.
    """
    wanted = " or ".join(names)
    if folder is None:
        raise WeightsAbsentError(f"weights absent: {purpose} needs {wanted} in a folder given with --weights")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise WeightsAbsentError(f"weights absent: {purpose} needs {wanted}, which is not in {folder}")


def checkpoint(path: Path, part: str = "state_dict") -> dict[str, Tensor]:
    """The tensors of a PyTorch checkpoint by name; only tensors and plain containers are unpickled.

    Args:
        path: The file.
        part: Where in it the tensors are, if there is such an entry.

    Raises:
        InputError: It is damaged, holds code, or holds no tensors by name.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises anything on damaged files
        raise InputError(f"{path}: cannot be read as a checkpoint of tensors ({error}); download it again") from error
    if isinstance(found, Mapping) and isinstance(found.get(part), Mapping):
        found = found[part]
    if not isinstance(found, Mapping) or not all(hasattr(v, "shape") for v in found.values()):
        raise InputError(f"{path}: holds no tensors by name; want the state dict of a network")
    return {str(k).removeprefix("module."): v for k, v in found.items()}


def fill(net: Any, tensors: Mapping[str, Tensor], path: Path) -> Any:
    """Load tensors into a module for inference; InputError says which names or shapes do not fit."""
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path}: does not fit the network that it is named after: {error}") from error
    return net.eval().requires_grad_(False)
