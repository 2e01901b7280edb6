"""A browser tab that remembers what went wrong in it."""

from __future__ import annotations

import http.server
from pathlib import Path
from typing import Any

CHROMIUM_FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--autoplay-policy=no-user-gesture-required --use-fake-ui-for-media-stream --use-fake-device-for-media-stream "
    "--js-flags=--expose-gc --enable-precise-memory-info"
).split()

BLOCKS = 40
"""In how many blocks the engine must have compiled what frames need; it takes three to twelve, more on a slow machine.
What our code really leaves, it leaves in every block."""
MEASURE = f"""
  // Bytes of garbage, and bytes that stay, of each of 2,000 frames: in blocks, because the engine compiles during the
  // first ones and what it compiles stays. Ends with the first good block.
  const measure = (frame, garbageMatters) => {{
    const blocks = [];
    for (let block = 0; block < {BLOCKS}; block++) {{
      gc();
      const before = performance.memory.usedJSHeapSize;
      for (let i = 0; i < 2000; i++) frame();
      const dirty = performance.memory.usedJSHeapSize;
      gc();
      const garbage = (dirty - before) / 2000, stays = (performance.memory.usedJSHeapSize - before) / 2000;
      blocks.push(garbage, stays);
      if (stays < 0.25 && (!garbageMatters || (garbage >= 0 && garbage < 12))) break;
    }}
    return blocks;
  }};
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps silent about it."""

    def log_message(self, format: str, *args: object) -> None:
        pass


class Tab:
    """A page with what went wrong in it, and what it asked for."""

    def __init__(self, browser: Any, scripts: tuple[Path, ...] = ()) -> None:
        # Small: software GL would queue full frames faster than it draws them.
        self.context = browser.new_context(viewport={"width": 64, "height": 48}, permissions=["microphone"])
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        for script in scripts:
            self.page.add_init_script(path=str(script))

    def open(self, address: str) -> Any:
        """Load an export and wait for its player."""
        self.page.goto(address)
        self.page.wait_for_function("window.player || document.querySelector('#avatar > p')")
        assert self.page.evaluate("window.player !== undefined"), self.page.inner_text("body")
        return self.page

    def wrong(self) -> list[str]:
        """Errors and warnings, without what only software GL says."""
        return [e for e in self.errors if "GPU stall due to ReadPixels" not in e and "swiftshader" not in e.lower()]
