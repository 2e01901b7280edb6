"""The rules of the house, read from the sources: nothing is imported here."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "gsth").rglob("*.py"))
FILE_LINES, FUNCTION_LINES, PARAMETERS = 500, 60, 7
LONG = re.compile(r"# house: long because \w+")

FLOORS = (
    "errors",
    "types math3d",
    "media audio artifacts registry metrics speech _config",
    "head render datasets voice provenance",
    "track avatar synth",
    "drive export",
    "evaluate batch plugins",
    "serve",
    "pipeline doctor",
    "__init__",
    "cli",
    "__main__",
)
"""From the ground up; a room may use what lies below it, never what lies beside it."""
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms.split()}
OPERATOR = re.compile(r"custom_op|register_fake|register_kernel|triton_op")
"""Registered operators and autograd functions are flat by torch's rules: as many parameters as their kernel has."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(module: str) -> str:
    """``gsth.track._fit`` belongs to track; ``gsth._cli_args`` to cli, as every ``_room_part`` beside its room."""
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else "__init__"
    if room not in FLOOR and room.startswith("_"):
        room = room[1:].split("_")[0]
    return room


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, wherever in it; ``from gsth import a`` is ``gsth.a``."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it out"
            if node.module == "gsth":
                found += [(node.lineno, f"gsth.{alias.name}") for alias in node.names]
            else:
                found += [(node.lineno, node.module or "")]
    return found


def public_defs(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions and methods that others may call."""
    found = []
    for node in tree(path).body:
        owners = [node] if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else []
        for item in [node, *(m for c in owners for m in c.body)]:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) and not item.name.startswith("_"):
                found.append(item)
    return found


def all_defs(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree(path)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def calls(path: Path) -> list[tuple[int, str]]:
    return [(n.lineno, ast.unparse(n.func)) for n in ast.walk(tree(path)) if isinstance(n, ast.Call)]


def stairs(path: Path) -> list[str]:
    """Imports of this file that go up or sideways."""
    here = room_of(name_of(path))
    bad = []
    for line, module in imports(path):
        if module.split(".")[0] != "gsth":
            continue
        there = room_of(module)
        if there != here and FLOOR[there] >= FLOOR[here]:
            bad.append(f"{path.relative_to(ROOT)}:{line}: {here} may not import {module}")
    return bad


def test_every_file_has_a_floor() -> None:
    assert {room_of(name_of(p)) for p in SOURCES} <= set(FLOOR)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_stairs_only_go_down(path: Path) -> None:
    assert stairs(path) == []


def test_the_stairs_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "gsth" / "track").mkdir(parents=True)
    file = tmp_path / "gsth" / "track" / "_x.py"
    file.write_text(
        "def f():\n    from gsth import avatar, media\n    import gsth.drive\n    from gsth.types import Clip\n"
    )
    assert [b.split(": ")[1] for b in stairs(file)] == [
        "track may not import gsth.avatar",
        "track may not import gsth.drive",
    ]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_limits(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    bad = []
    if len(lines) > FILE_LINES and not LONG.search("\n".join(lines[:40])):
        bad.append(f"{len(lines)} lines, at most {FILE_LINES}")
    for node in all_defs(path):
        doc = node.body[0] if ast.get_docstring(node) is not None else None
        doc_lines = (doc.end_lineno or 0) - doc.lineno + 1 if doc is not None else 0
        length = (node.end_lineno or 0) - node.lineno + 1 - doc_lines
        source = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if length > FUNCTION_LINES and not LONG.search(source):
            bad.append(f"{node.name} has {length} lines, at most {FUNCTION_LINES}")
        a = node.args
        count = len([p for p in (*a.posonlyargs, *a.args, *a.kwonlyargs) if p.arg not in ("self", "cls")])
        flat = any(OPERATOR.search(ast.unparse(d)) for d in node.decorator_list) or node.name in ("forward", "backward")
        if count > PARAMETERS and not flat and not LONG.search(source):
            bad.append(f"{node.name} has {count} parameters, at most {PARAMETERS}")
    assert bad == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_functions_are_annotated_and_documented(path: Path) -> None:
    assert ast.get_docstring(tree(path)) or not tree(path).body, "the file has no docstring"
    bad = []
    for node in public_defs(path):
        a = node.args
        bare = [
            p.arg
            for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)
            if p.annotation is None and p.arg not in ("self", "cls")
        ]
        decorated = {ast.unparse(d) for d in node.decorator_list}
        if bare or node.returns is None:
            bad.append(f"{node.name}: not annotated: {bare or 'return'}")
        # what ruff's D1 says: private modules explain themselves where it helps, setters by their getter
        private = any(part.startswith("_") and part != "__init__" for part in name_of(path).split("."))
        explained = private or any(d.endswith((".setter", "override", "property")) for d in decorated)
        if ast.get_docstring(node) is None and not explained:
            bad.append(f"{node.name}: no docstring")
    assert bad == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    if room_of(name_of(path)) in ("cli", "__main__") or is_script(path):
        return
    loud = {"print", "sys.exit", "exit", "quit", "os._exit", "sys.stdout.write", "sys.stderr.write"}
    assert [f"line {line}: {name}" for line, name in calls(path) if name in loud] == []


def is_script(path: Path) -> bool:
    """Made to be run by developers as ``python -m``: it has a main guard."""
    return any(isinstance(n, ast.If) and ast.unparse(n.test) == "__name__ == '__main__'" for n in tree(path).body)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_packages_stay_in_their_rooms(path: Path) -> None:
    mine = name_of(path)
    allowed = {
        "av": ("gsth.media", "gsth._media_sound", "gsth.doctor"),
        "imageio": ("gsth.media", "gsth.head._make_parts", "gsth.head._sheet"),
        "ctypes": ("gsth.render.", "gsth.speech"),
        "smplx": (),
        "tyro": ("gsth._cli_args",),
        "viser": ("gsth.serve.",),
        "pxr": ("gsth.export.usd",),
        "zstandard": ("gsth.export._spz",),
        "torchvision": (),
        "torchaudio": (),
        "pickle": ("gsth.head.restricted",),
    }
    bad = []
    for line, module in imports(path):
        rooms = allowed.get(module.split(".")[0])
        if rooms is not None and not any(mine == r or (r.endswith(".") and mine.startswith(r)) for r in rooms):
            bad.append(f"line {line}: {module}")
    assert bad == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_loading_never_unpickles(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            # weights of others come as pickles: torch then builds tensors and plain containers only
            foreign = name_of(path) == "gsth.metrics._weights" and given.get("weights_only") == "True"
            bad = ("pickle.load", "pickle.loads", *(() if foreign else ("torch.load",)))
            assert ast.unparse(node.func) not in bad, f"line {node.lineno}"
            assert given.get("allow_pickle", "False") == "False", f"line {node.lineno}"


def tracked() -> list[Path]:
    ran = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if ran.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in ran.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_path_of_one_machine_is_in_the_tree() -> None:
    machine = re.compile(r"(?<![\w./$~])/(?:work|opt|home|root|mnt|Users)/[\w.]+")
    bad = []
    for path in tracked():
        if path.suffix in (".npz", ".png", ".safetensors", ".mp4", ".wav", ".jpg") or path.name == "LICENSE":
            continue
        for i, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            bad += [f"{path.relative_to(ROOT)}:{i}: {m.group()}" for m in machine.finditer(line)]
    assert bad == []


def test_large_files_stay_out() -> None:
    assert [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > 8_000_000] == []


def test_no_two_test_files_share_a_name() -> None:
    """The folders of tests are no packages: the second of two would not be collected, and the whole suite with it."""
    files = [p for p in tracked() if p.is_relative_to(ROOT / "tests") and p.suffix == ".py"]
    names = [p.name for p in files if p.stem != "conftest"]
    assert [name for name in set(names) if names.count(name) > 1] == []


def test_packages_that_ship_are_the_folders_that_are_there() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {name_of(p.parent / "x")[: -len(".x")] for p in SOURCES if p.name == "__init__.py"}
    assert set(config["tool"]["setuptools"]["packages"]) == folders | {"gsth.configs"}


def test_all_extra_holds_what_its_comment_promises() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    inside = set(re.findall(r"\w+", extras["all"][0].split("[")[1]))
    assert inside <= set(extras) and not inside & {"flame", "gpu", "dev", "all"}
