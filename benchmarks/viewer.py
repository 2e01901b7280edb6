"""How quick the live viewer is: the session alone, and one page in headless Chromium while the avatar speaks.

    python benchmarks/viewer.py me.avatar --out benchmarks/results/viewer.json

Prints a table: time until the page shows the avatar, frames per second that the session gives and that reach the page,
time from a slider's change to a changed picture in the page, and how far sound and clock are apart. Pictures are 512
px high and stay so, but for the line that says otherwise. What reaches the page cannot be quicker than the session's
pictures (30 a second; a motion of fewer frames is shown between them, too). Chromium draws its page in software on the
same cores, which takes more of them than the server does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import torch
from run_all import machine

from gsth.avatar import Avatar
from gsth.serve import _view
from gsth.serve._optics import Optics
from gsth.serve._paint import Painter
from gsth.serve._panel_drive import Playable
from gsth.serve.app import Page, ViewConfig
from gsth.serve.session import Session, Style

FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking --use-gl=angle "
    "--use-angle=swiftshader --enable-unsafe-swiftshader --autoplay-policy=no-user-gesture-required"
).split()
SENTENCE = "Hello! I was made on a laptop, from a few seconds of video. Nobody ever filmed me saying this sentence."
SIDE, SECONDS, MOVES = 512, 10.0, 12
COUNT = """() => {
  window.pictures = [];
  const made = URL.createObjectURL;
  const seen = WebSocket.prototype;
  const real = window.createImageBitmap;
  window.createImageBitmap = (...a) => { window.pictures.push(performance.now()); return real(...a); };
  URL.createObjectURL = (blob) => {
    if (blob.type === "image/jpeg") window.pictures.push(performance.now());
    return made(blob);
  };
}"""
"""Notes when a picture begins to be decoded in the page, whichever way the page does it."""


def session_rate(avatar: Avatar, frames: int = 60) -> tuple[float, float, float]:
    """Frames per second without a page, and ms of posing and drawing in one."""
    session = Session(avatar, Style(max_height=SIDE))
    painter = Painter(Optics.of(avatar))
    orbit = painter.optics.home(SIDE, SIDE)
    poses, draws = [], []
    for i in range(frames + 5):
        moment = session.moment_at(i % session.frames)
        start = time.perf_counter()
        session.splats(moment)
        posed = time.perf_counter()
        painter.paint(session, moment, orbit, (SIDE, SIDE))
        poses.append(posed - start)
        draws.append(time.perf_counter() - posed)
    pose, draw = sum(poses[5:]) / frames, sum(draws[5:]) / frames
    return 1 / (pose + draw), 1e3 * pose, 1e3 * draw


def page_figures(avatar: Avatar) -> dict[str, float]:
    """What one page in Chromium gets."""
    from playwright.sync_api import sync_playwright

    from gsth.drive import offline, text

    driver = text.Config(SENTENCE).build(avatar)
    spoken = Playable(offline(driver), driver.sound, loop=True)
    usual, _view.FRAME_BUDGET_S = _view.FRAME_BUDGET_S, 10.0  # never smaller than asked for
    with Page(avatar, ViewConfig(port=0, max_height=SIDE)) as page, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        warm = browser.new_page()  # the program's own start is not the page's
        warm.close()
        tab = browser.new_page(viewport={"width": SIDE + 322, "height": SIDE})
        tab.add_init_script(f"({COUNT})()")
        start = time.perf_counter()
        tab.goto(page.url)
        tab.wait_for_function("window.pictures.length > 0", timeout=60_000)
        up = time.perf_counter() - start
        time.sleep(2)
        page.room.panel.drive.add("sentence", spoken)
        time.sleep(1)
        tab.evaluate("window.pictures.length = 0")
        time.sleep(SECONDS)
        rate = tab.evaluate("window.pictures.length") / SECONDS
        _view.FRAME_BUDGET_S = usual
        time.sleep(1)
        tab.evaluate("window.pictures.length = 0")
        time.sleep(SECONDS)
        free, shown = tab.evaluate("window.pictures.length") / SECONDS, page.room.panel.stats.content
        height = float(shown.split(" x ")[1].split()[0])
        off = statistics.median(abs(tab.evaluate("gsthPage.sound.currentTime - gsthPage.expected()")) for _ in range(9))
        page.session.pause()
        time.sleep(1.5)
        delays = [_delay(page, tab, i) for i in range(MOVES)]
        browser.close()
    return {
        "page up, s": up,
        "frames/s of the spoken motion": spoken.motion.fps,
        "pictures/s delivered while speaking": rate,
        "the same, as it usually adapts": free,
        "  to this height, px": height,
        "slider to picture, ms, median": 1e3 * statistics.median(delays),
        "slider to picture, ms, worst": 1e3 * max(delays),
        "sound beside the clock, ms, median": 1e3 * off,
    }


def _delay(page: Page, tab: Any, i: int) -> float:
    """From a change of an expression, as a slider makes it, until the page has the picture."""
    tab.evaluate("window.pictures.length = 0")
    # Both clocks are compared by a round trip, so neither has to be right.
    before = time.perf_counter()
    there = tab.evaluate("performance.now()")
    offset = (before + time.perf_counter()) / 2 - there / 1e3
    changed = time.perf_counter()
    threading.Thread(target=page.session.express, args=("jawOpen", 0.1 + 0.05 * i)).start()
    tab.wait_for_function("window.pictures.length > 0", timeout=20_000, polling=5)
    arrived = tab.evaluate("window.pictures[0]") / 1e3 + offset
    time.sleep(0.4)
    return arrived - changed


BARS = {
    "session alone, frames/s": (">=", 45.0),
    "page up, s": ("<=", 5.0),
    "pictures/s delivered while speaking": (">=", 25.0),
    "slider to picture, ms, median": ("<=", 120.0),
}
"""What was promised, on two cores at 512 px."""


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description="How quick the live viewer is.")
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    avatar = Avatar.load(args.avatar)
    load = os.getloadavg()[0]
    rate, pose, draw = session_rate(avatar)
    rows = {
        "splats": float(len(avatar.splats.face_ids)),
        "session alone, frames/s": rate,
        "  pose, ms": pose,
        "  draw, ms": draw,
        **page_figures(avatar),
    }
    about = {**machine(), "threads": torch.get_num_threads(), "load_before": load, "browser_on_same_cores": True}
    about["priority"] = os.nice(0)  # Chromium raises a process of its own above a server that is raised too
    print(
        f"{about['cpu']}, {about['cores']} cores, {SIDE} px, the browser draws in software on the same cores, "
        f"priority {about['priority']}"
    )
    for name, value in rows.items():
        sign, bar = BARS.get(name, ("", None))
        print(f"{name:40} {value:9.1f}" + (f"   (bar {sign} {bar:g})" if bar is not None else ""))
    if args.out is not None:
        told = {"machine": about, "avatar": args.avatar.stem, "side_px": SIDE, "figures": rows, "bars": BARS}
        args.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
