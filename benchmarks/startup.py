"""How long help takes: ``python benchmarks/startup.py [--out FILE]``.

Each round starts every command once in a new process, in turn, beside Python alone and beside ``import tyro``, the
library that prints the help; processor time and wall time are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

COMMANDS = {
    "python alone": ["-c", "pass"],
    "import tyro": ["-c", "import tyro"],
    "gsth --help": ["-m", "gsth", "--help"],
    "gsth drive --help": ["-m", "gsth", "drive", "--help"],
    "gsth train --help": ["-m", "gsth", "train", "--help"],
    "gsth export A glb --help": ["-m", "gsth", "export", "A", "glb", "--help"],
}


def seconds(argv: list[str]) -> tuple[float, float]:
    """Processor and wall time of one process, seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *argv], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(args.rounds + 1):
        for name, argv in COMMANDS.items():
            taken[name].append(seconds(argv))
    rows = {
        name: {"cpu_s": statistics.median(c for c, _ in some[1:]), "wall_s": statistics.median(w for _, w in some[1:])}
        for name, some in taken.items()  # the first round compiles bytecode and fills the disk's cache
    }
    print(f"{'command':<26} {'processor s':>11} {'wall s':>8} {'x import tyro':>14}")
    for name, row in rows.items():
        ratio = row["cpu_s"] / rows["import tyro"]["cpu_s"]
        print(f"{name:<26} {row['cpu_s']:>11.3f} {row['wall_s']:>8.3f} {ratio:>14.2f}")
    if args.out is not None:
        about = {"cpu": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
        info = Path("/proc/cpuinfo")
        if info.exists():
            about["cpu"] = next(line.split(":")[1].strip() for line in info.open() if line.startswith("model name"))
        versions = {"python": platform.python_version(), "tyro": version("tyro")}
        made = {"machine": about, "versions": versions, "rounds": args.rounds, "commands": rows}
        args.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
