"""The documentation holds what it promises: complete examples that are run, and pages that link to each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
EXTEND = sorted((ROOT / "docs" / "extend").glob("*.md"))
SNIPPET = re.compile(r'^--8<-- "(\w+\.py)"$', re.MULTILINE)


@pytest.mark.parametrize("page", EXTEND, ids=lambda page: page.stem)
def test_a_guide_shows_one_whole_example_and_names_the_test_that_runs_it(page: Path) -> None:
    text = page.read_text()
    (shown,) = SNIPPET.findall(text)
    assert ROOT / "docs" / "examples" / shown in EXAMPLES
    (test,) = re.findall(rf"`(tests/\w+/test_example_{shown})`", text)
    assert f"{Path(shown).stem}" in (ROOT / test).read_text()


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
