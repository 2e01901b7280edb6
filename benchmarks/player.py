"""What a page weighs, and what a frame costs its processor: rig and sort of the web player, in headless Chromium.

    python benchmarks/player.py me.avatar           # a table; writes benchmarks/results/player.json

Drawing is left out: without a GPU the browser draws in software, which says nothing about any device that people use.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import http.server
import json
import platform
import shutil
import tempfile
import threading
import time
from pathlib import Path

import torch

from gsth.avatar import Avatar, Correctives
from gsth.export import onnx
from gsth.export.web import Config
from gsth.types import RiggedSplats

RESULTS = Path(__file__).parent / "results" / "player.json"
SCRIPT = """
async (given) => {
  const file = await gsth.AvatarFile.parse(await (await fetch("avatar.gsth.bin")).arrayBuffer());
  const track = new gsth.Track(file), out = {};
  for (const simd of [true, false]) {
    const rig = await gsth.Rig.make(file, simd);
    const pose = { expr: new Float32Array(rig.expressions.length), joints: new Float32Array(rig.jointPlaces.length * 4),
                   place: new Float32Array(7) };
    const view = { radial: true, eye: new Float32Array(3), direction: new Float32Array([0, 0, 1]), cullCosine: 2 };
    const times = { rig: [], sort: [] };
    for (let i = 0; i < given.frames + 50; i++) {
      track.time = (i / track.fps) % track.seconds;
      track.sample(pose);
      for (let e = 0; e < pose.expr.length; e++) pose.expr[e] = Math.max(pose.expr[e], 0.01); // all shapes at work
      const a = performance.now();
      rig.pose(pose);
      const b = performance.now();
      rig.sort(view);
      if (i >= 50) { times.rig.push(b - a); times.sort.push(performance.now() - b); }
    }
    const at = (x, q) => x.sort((a, b) => a - b)[Math.floor(q * (x.length - 1))];
    for (const part of ["rig", "sort"]) {
      out[`${part} ${simd ? "SIMD" : "plain"}`] = [at(times[part], 0.5), at(times[part], 0.95)];
    }
  }
  return [out, player.stats.splats, file.shape("faces")[0], file.shape("basis_vert")[0]];
}
"""


def thinned(avatar: Avatar, count: int) -> Avatar:
    """At most ``count`` splats, evenly taken."""
    n = len(avatar.splats.face_ids)
    if n <= count:
        return avatar
    keep = torch.linspace(0, n - 1, count).round().long()
    splats = RiggedSplats(**{k: v[keep] for k, v in vars(avatar.splats).items()})
    c = avatar.correctives
    if c is not None:
        c = Correctives(c.mean, c.basis, c.means_delta[keep], c.sh_delta[keep])
    return dataclasses.replace(avatar, splats=splats, correctives=c)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--splats", type=int, default=40_000)
    parser.add_argument("--frames", type=int, default=600)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "page"
        avatar = thinned(Avatar.load(args.avatar), args.splats)
        began = time.perf_counter()
        list(Config().build().write(avatar, out))
        seconds = time.perf_counter() - began
        sizes = {p.name: p.stat().st_size / 1e6 for p in sorted(out.iterdir())}
        list(Config(single_file=True).build().write(avatar, Path(folder) / "me.html"))
        list(onnx.Config().build().write(avatar, Path(folder) / "voice"))
        extra = {
            "single file": (Path(folder) / "me.html").stat().st_size / 1e6,
            "onnx": sum(p.stat().st_size for p in (Path(folder) / "voice").iterdir()) / 1e6,
        }
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as p:
            flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
            browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
            page = browser.new_page(viewport={"width": 32, "height": 32})
            page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            page.wait_for_function("window.player")
            page.evaluate("player.renderer.setAnimationLoop(null)")
            times, splats, faces, moves = page.evaluate(SCRIPT, {"frames": args.frames})
            version = browser.version
            browser.close()
        server.shutdown()
    processor = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "")
    report = {
        "machine": f"{platform.machine()}, {processor.split(':')[-1].strip()}; Chromium {version}",
        "seconds to export": round(seconds, 2),
        "frames": args.frames,
        "splats": splats,
        "triangles": faces,
        "moves of vertices by expressions": moves,
        "ms, median and 95th percentile": times,
        "megabytes": sizes | {"page": sum(sizes.values())} | extra,
    }
    for name, value in report.items():
        print(name, json.dumps(value) if not isinstance(value, dict) else "")
        for row, figures in value.items() if isinstance(value, dict) else ():
            print("   ", row, *(f"{x:.2f}" for x in (figures if isinstance(figures, list) else [figures])))
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
