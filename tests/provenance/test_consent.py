from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from gsth import provenance
from gsth.errors import InputError
from gsth.provenance._licences import PACKAGES


def test_statement_on_the_command_line_or_in_a_file(tmp_path: Path) -> None:
    assert provenance.consent_from(" I am this person ", None).statement == "I am this person"
    file = tmp_path / "form.txt"
    file.write_text("Signed by Ada, 3 May.\n")
    consent = provenance.consent_from(str(file), None)
    assert consent.statement == "Signed by Ada, 3 May." and consent.given_by.startswith("form.txt sha256 ")
    assert provenance.consent_from("a statement far longer than a path may be " * 50, None).given_by == "option"


def test_terminal_is_asked_and_a_script_is_told_the_flag() -> None:
    asked = []
    consent = provenance.consent_from(None, lambda question: asked.append(question) or "She agreed in writing")
    assert (consent.statement, consent.given_by, len(asked)) == ("She agreed in writing", "terminal", 1)
    with pytest.raises(InputError, match="--consent"):
        provenance.consent_from(None, None)


@pytest.mark.parametrize("statement", ["", "  \n", "x" * 4001, "bell \x07", "\x1b[31mred"])
def test_statement_must_be_readable(statement: str) -> None:
    with pytest.raises(InputError, match="printable"):
        provenance.consent_from(statement, None)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        provenance.consent_from(str(tmp_path / "a.bin"), None)


def test_record_travels_and_names_its_pictures() -> None:
    meta = provenance.record({"fps": 25.0}, provenance.Consent("I am"), "ab" * 32)
    other = provenance.record({}, provenance.Consent("I am"), "cd" * 32)
    assert meta["fps"] == 25.0 and meta["provenance"]["consent"]["recorded"].endswith("Z")
    who = provenance.about([meta, provenance.record({}, provenance.SYNTHETIC, ""), {}])
    assert who.id == int(meta["provenance"]["id"], 16) != provenance.about([other]).id
    assert who.consent == ("person", "synthetic", "none")
    assert json.loads(json.dumps(meta)) == meta


@pytest.mark.parametrize(
    "found",
    [None, 3, {}, {"id": "zz", "consent": {"statement": "a"}}, {"id": "1", "consent": {"statment": "a"}}, {"id": "1"}],
)
def test_record_that_somebody_broke_counts_as_none(found: object) -> None:
    assert provenance.about([{"provenance": found}]) == provenance.About(0, ("none",))


def test_sidecar_beside_a_file_and_in_a_folder(tmp_path: Path) -> None:
    meta = provenance.record({"licences": [{"part": "head"}]}, provenance.SYNTHETIC, "00")
    (tmp_path / "a.ply").write_bytes(b"ply")
    (tmp_path / "web").mkdir()
    beside = provenance.write_sidecar(tmp_path / "a.ply", meta)
    inside = provenance.write_sidecar(tmp_path / "web", meta)
    assert (beside, inside) == (tmp_path / "a.ply.provenance.json", tmp_path / "web" / "provenance.json")
    told = json.loads(beside.read_text())
    assert told["provenance"]["consent"]["kind"] == "synthetic" and told["licences"] == [{"part": "head"}]
    assert json.loads(provenance.write_sidecar(tmp_path / "a.ply", {}).read_text())["provenance"]["consent"] is None


def test_licences_name_what_binds_the_avatar() -> None:
    flame = provenance.licences_of("flame", speaks=False)
    assert any("FLAME" in part.part and "non-commercial" in part.licence for part in flame)
    built_in = provenance.licences_of("builtin", speaks=True)
    assert {part.licence for part in built_in} == {"CC0-1.0", "Apache-2.0", "their consent"}
    assert provenance.licences_of("somebody's", speaks=False)[0].licence == "unknown"
    assert any("torch" in part.part for part in provenance.licences())


def test_every_package_that_users_install_is_named() -> None:
    """What ``pip install gsth[all,scale,gpu]`` brings on purpose, and smplx, which binds whoever uses it."""
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    inside = re.findall(r"\w+", extras["all"][0].split("[")[1])
    wanted = [*project["dependencies"], *(d for name in (*inside, "scale", "gpu") for d in extras[name])]
    names = {re.match(r"[\w-]+", d)[0] for d in wanted} - {"gsth"}  # type: ignore[index]
    build_tools = {"packaging"}
    assert names - build_tools - set(PACKAGES) == set() and "smplx" in PACKAGES
