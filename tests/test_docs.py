"""The documentation holds what it promises: complete examples that are run, and pages that link to each other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
EXTEND = sorted((ROOT / "docs" / "extend").glob("*.md"))
TUTORIAL = ROOT / "docs" / "tutorial.md"
SNIPPET = re.compile(r'^--8<-- "(\w+\.py)"$', re.MULTILINE)


@pytest.mark.parametrize("page", EXTEND, ids=lambda page: page.stem)
def test_a_guide_shows_one_whole_example_and_names_the_test_that_runs_it(page: Path) -> None:
    text = page.read_text()
    (shown,) = SNIPPET.findall(text)
    assert ROOT / "docs" / "examples" / shown in EXAMPLES
    (test,) = re.findall(rf"`(tests/\w+/test_example_{shown})`", text)
    assert f"{Path(shown).stem}" in (ROOT / test).read_text()


def test_the_tutorial_names_verbs_and_options_that_exist() -> None:
    """``benchmarks/tutorial.py`` runs them; this only keeps the page from going wrong in between."""
    shown = [
        line for block in re.findall(r"```bash\n(.*?)```", TUTORIAL.read_text(), re.S) for line in block.split("\n")
    ]
    commands = [shlex.split(line, comments=True)[1:] for line in shown if line.startswith("gsth ")]
    assert {command[0] for command in commands} >= {"doctor", "train", "drive", "view", "export"}
    for verb, *given in commands:
        helped = [a for a in given if not a.startswith("-")][:2] if verb == "export" else []
        ran = subprocess.run([sys.executable, "-m", "gsth", verb, *helped, "--help"], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert [a for a in given if a.startswith("--") and a not in ran.stdout] == [], verb


def test_every_example_is_shown() -> None:
    shown = {name for page in EXTEND for name in SNIPPET.findall(page.read_text())}
    assert shown == {example.name for example in EXAMPLES}


def test_the_site_puts_the_examples_in(tmp_path: Path) -> None:
    markdown = pytest.importorskip("markdown", reason="needs the extra 'docs'")
    pytest.importorskip("pymdownx", reason="needs the extra 'docs'")
    options = {"pymdownx.snippets": {"base_path": [str(ROOT / "docs" / "examples")], "check_paths": True}}
    for page in EXTEND:
        html = markdown.markdown(
            page.read_text(), extensions=["pymdownx.superfences", "pymdownx.snippets"], extension_configs=options
        )
        assert re.sub(r"<[^>]+>", "", html).count("from __future__ import annotations") == 1, page.name
