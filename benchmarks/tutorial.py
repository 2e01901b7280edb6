"""Follows docs/tutorial.md to the letter: ``python benchmarks/tutorial.py CLIP [--work FOLDER]``.

Clones what is committed, and runs every shell command of the page there, in the order of the page, with the clip as
me.mp4 and nothing else given. What serves pages is waited for, opened in a headless Chromium (playwright is wanted for
that) and ended as a user does. Prints the seconds of each command; ends at the first one that fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs/tutorial.md")
SERVERS = ("gsth view", "python -m http.server")
ADDRESS = re.compile(r"http://[\d.]+:(\d+)")
ENVIRONMENT = "gsth-env/bin/activate"
CHROMIUM = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE_S = 60.0


def commands(page: str) -> list[str]:
    """The lines of all bash blocks."""
    return [line for block in re.findall(r"```bash\n(.*?)```", page, re.S) for line in block.splitlines() if line]


def shell(line: str) -> list[str]:
    """The line for a shell in which the page's environment is active, once there is one."""
    return ["bash", "-c", f"if [[ -e {ENVIRONMENT} ]]; then . {ENVIRONMENT}; fi; {line}"]


@contextmanager
def serving(line: str, folder: Path) -> Iterator[str]:
    """The address at which a command says that it serves."""
    said = folder / "served.txt"
    at_once = {**os.environ, "PYTHONUNBUFFERED": "1"}  # to a terminal Python writes at once, to a file it does not
    with said.open("w") as out:
        program = subprocess.Popen(shell(line), cwd=folder, env=at_once, stdout=out, stderr=out, start_new_session=True)
    try:
        end = time.monotonic() + PATIENCE_S
        while not (found := ADDRESS.search(said.read_text())):
            if program.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{line}\nserves nothing:\n{said.read_text()}")
            time.sleep(0.1)
        yield f"http://localhost:{found[1]}"
    finally:
        os.killpg(program.pid, signal.SIGINT)
        program.wait(PATIENCE_S)


def opened(address: str, picture: Path) -> None:
    """Load the page, wait until it draws, press Speak where there is such a button, and keep what is seen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM))
        tab = browser.new_page(viewport={"width": 960, "height": 640})
        tab.set_default_timeout(PATIENCE_S * 1000)
        tab.goto(address)
        tab.wait_for_selector("canvas")
        if speak := tab.query_selector("button:has-text('Speak')"):
            speak.click()
        tab.wait_for_timeout(3000)
        tab.screenshot(path=str(picture))
        browser.close()


def walk(clip: Path, work: Path) -> None:
    """Run the page in ``work``, which must be empty."""
    folder = work / "gsth"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    shutil.copy(clip, folder / "me.mp4")
    page = (folder / PAGE).read_text()
    total = 0.0
    for line in commands(page):
        began = time.monotonic()
        if line.startswith(SERVERS):
            with serving(line, folder) as address:
                opened(address, work / f"{'view' if 'view' in line else 'web'}.png")
        else:
            run = subprocess.run(shell(line), cwd=folder, capture_output=True, text=True)
            if run.returncode != 0:
                raise SystemExit(f"{line}\nfailed with {run.returncode}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
        took = time.monotonic() - began
        total += took
        print(f"{took:7.1f} s  {line}", flush=True)
    print(f"{total:7.1f} s  all of it; films, pages and pictures are in {work}")


def main() -> None:
    """Walk, in the folder of ``--work`` or in one that is removed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--work", type=Path, help="empty folder that keeps all that was made")
    args = parser.parse_args()
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
        walk(args.clip, args.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        walk(args.clip, Path(folder))


if __name__ == "__main__":
    main()
