"""All benchmarks in one command, and the README's table from their results.

    python benchmarks/run_all.py CLIP [CLIP ...] --speaks STEM ...   # runs what is missing, writes results, README
    python benchmarks/run_all.py CLIP [CLIP ...] --plan              # what it would do, and about how long it takes
    python benchmarks/run_all.py --table                             # the README's table again from the newest results
    python benchmarks/run_all.py --check                             # do the README's figures equal the newest results?

Every step writes its own file in the work folder when it is whole; an interrupted run goes on. The end is
``benchmarks/results/<machine>-<date>.json``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS, README = HERE / "results", HERE.parent / "README.md"
BEGIN, END = "<!-- results: written by benchmarks/run_all.py -->", "<!-- end of results -->"
NOTHING = "*No results are committed yet: `python benchmarks/run_all.py CLIP ...` measures and writes this table.*"
MINUTES = {"quick": 5.0, "standard": 25.0, "high": 60.0}
"""Training and scoring one clip on two cores, about."""


@dataclass(frozen=True)
class Job:
    """One script and the file it leaves."""

    name: str
    command: tuple[str, ...]
    out: Path
    minutes: float


def jobs(args: argparse.Namespace) -> list[Job]:
    """What has to be run, in order; a script that is not there is left out."""
    work, found = args.work, []
    clips = [str(c) for c in args.clips]
    for preset in args.presets:
        out = work / f"fidelity-{preset}.json"
        options = ["--preset", preset, "--work", str(work), "--json", str(out), "--speaks", *args.speaks]
        count = len(clips) + 1
        command = ("fidelity.py", *clips, "--actor", *options)
        found.append(Job(f"fidelity {preset}", command, out, count * MINUTES.get(preset, 30.0)))
    speaking = [c for c in clips if Path(c).stem in args.speaks]
    lips = next((n for n in ("lips.py", "speech.py") if (HERE / n).exists()), None)
    if lips and speaking:
        out = work / "lips.json"
        found.append(Job("lips", (lips, *speaking, "--json", str(out)), out, 2.0 * len(speaking)))
    if (HERE / "tracking.py").exists():
        out = work / "tracking.json"
        found.append(Job("tracking", ("tracking.py", *clips, "--out", str(out)), out, 3.0 * (len(clips) + 1)))
    out = work / "raster.json"
    found.append(Job("speed", ("raster.py", "--peer-repeats", "1", "--out", str(out)), out, 4.0))
    return found


def machine() -> dict[str, Any]:
    """Which machine the figures are of."""
    cpu = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        cpu = found[1].strip()
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def slug(about: dict[str, Any]) -> str:
    """A machine as a part of a file name."""
    words = re.sub(r"\(R\)|\(TM\)|CPU|@.*", " ", about["cpu"]).lower()
    return "-".join([*re.findall(r"[a-z0-9.]+", words)[:4], f"{about['cores']}cores"])


def newest(folder: Path) -> Path | None:
    """The newest results, by the date in their names."""
    dated = [(found[0], p) for p in folder.glob("*.json") if (found := re.search(r"\d{4}-\d\d-\d\d", p.name))]
    return max(dated)[1] if dated else None


def figures(entry: dict[str, Any]) -> dict[str, str]:
    """One clip's cells of the table, by the heads of their columns."""
    rows, seconds = entry["track"]["rows"], entry["train_seconds"]
    mine, heard = rows["avatar"], entry.get("audio", {}).get("rows", {}).get("avatar", {})
    free = [rows[b]["psnr_db"] for b in ("last_frame", "mean_frame", "nearest_frame", "textured_mesh")]
    return {
        "PSNR, dB": _cell(mine["psnr_db"], 2),
        "SSIM": _cell(mine["ssim"], 3),
        "face PSNR, dB": _cell(mine["face_psnr_db"], 2),
        "ST-LPIPS": _cell(mine["st_lpips"], 3),
        "lips, % of eye distance": _cell(mine["lips_pct_iod"], 2),
        "refined PSNR, dB": _cell(rows.get("refined", {}).get("psnr_db"), 2),
        "best baseline PSNR, dB": _cell(max(free), 2),
        "by its own sound: lip correlation (lag, frames)": _at_lag(heard),
        "lips by sound, % of eye distance": _cell(heard.get("lips_pct_iod"), 2),
        "lip opening by sound, of the true spread": _cell(heard.get("lip_ratio"), 2),
        "training, min": _cell(None if seconds is None else seconds / 60, 1),
    }


def table(results: dict[str, Any]) -> str:
    """The README's table, in Markdown."""
    m = results["machine"]
    clips = [(f"{c}, `{p}`", entry) for p, found in results["fidelity"].items() for c, entry in found.items()]
    cells = {name: {"clip, preset": name, **figures(entry)} for name, entry in clips}
    heads = list(next(iter(cells.values()), {"clip, preset": ""}))
    lines = [
        f"Held-out frames (never trained on) against the raw video, on {m['cpu']}, {m['cores']} cores, no GPU, "
        f"{results['date']}. *Refined*: the motion of those frames fitted against the finished avatar, an upper bound.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(row.values())} |" for row in cells.values()),
    ]
    lost = [
        f"* {name}: worse than a baseline in {', '.join(sorted(entry['track']['beaten_by']))}"
        for name, entry in clips
        if entry["track"]["beaten_by"]
    ]
    return "\n".join([*lines, *(["", *lost] if lost else [])])


def _at_lag(heard: dict[str, Any]) -> str:
    """The correlation of the lips and the lag at which it was found; said where the search ended there."""
    from gsth.metrics import MAX_LAG

    correlation, lag = heard.get("lip_correlation"), heard.get("lip_lag_frames")
    if correlation is None or lag is None:
        return "-"
    return f"{correlation:.2f} ({lag:+.0f}{', end of search' if abs(lag) >= MAX_LAG else ''})"


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def with_table(readme: str, text: str) -> str:
    """The README with another table between its markers; ValueError where it has none."""
    start, end = readme.find(BEGIN), readme.find(END)
    if start < 0 or end < start:
        raise ValueError(f"README.md lacks the lines {BEGIN!r} and {END!r}")
    return f"{readme[: start + len(BEGIN)]}\n{text}\n{readme[end:]}"


def difference(readme: str, folder: Path) -> str | None:
    """What is wrong with the README's table; None where it equals the newest results."""
    path = newest(folder)
    if path is None:
        shown = with_table(readme, NOTHING) == readme
        return None if shown else f"README.md shows figures, but there are no results in {folder}"
    if with_table(readme, table(json.loads(path.read_text()))) != readme:
        return f"README.md does not show the figures of {path.name}; run benchmarks/run_all.py --table"
    return None


def write_table() -> None:
    """Put the newest results into the README."""
    path = newest(RESULTS)
    if path is None:
        sys.exit(f"there are no results in {RESULTS}")
    readme = README.read_text()
    _write(README, with_table(readme, table(json.loads(path.read_text()))))
    print(f"README.md: {path.name}")


def run(todo: Sequence[Job], args: argparse.Namespace) -> None:
    """Run what is missing and gather all results."""
    args.work.mkdir(parents=True, exist_ok=True)
    for job in todo:
        if job.out.exists() and not args.again:
            print(f"{job.name}: is done ({job.out})")
            continue
        print(f"{job.name}: about {job.minutes:.0f} min", flush=True)
        subprocess.run([sys.executable, str(HERE / job.command[0]), *job.command[1:]], check=True)
    about, date = machine(), datetime.date.today().isoformat()
    found = {job.name: json.loads(job.out.read_text()) for job in todo}
    results: dict[str, Any] = {"machine": about, "date": date, "fidelity": {}}
    for name, value in found.items():
        kind, _, preset = name.partition(" ")
        if kind == "fidelity":
            results["fidelity"][preset] = value
        else:
            results[kind] = value
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"{slug(about)}-{date}.json"
    _write(out, json.dumps(results, indent=1) + "\n")
    print(f"saved {out}")
    write_table()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)


def main() -> None:
    """Parse and do one of the four things."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--presets", nargs="+", default=["quick"])
    parser.add_argument("--speaks", nargs="*", default=[], help="stems of the clips whose sound is their own speech")
    parser.add_argument("--work", type=Path, default=HERE.parent / "benchmarks.avatar.work")
    parser.add_argument("--again", action="store_true", help="run also what is done")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        sys.exit(difference(README.read_text(), RESULTS))
    if args.table:
        return write_table()
    todo = jobs(args)
    if not args.plan:
        return run(todo, args)
    for job in todo:
        state = "done" if job.out.exists() else f"about {job.minutes:.0f} min"
        print(f"{job.name:<20}{state:<16}python benchmarks/{' '.join(job.command)}")
    print(f"left: about {sum(j.minutes for j in todo if not j.out.exists()):.0f} min on two cores")


if __name__ == "__main__":
    main()
