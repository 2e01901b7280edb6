"""Times the kernels of two or more checkouts against each other: the way to judge a change on a shared machine.

    git worktree add ../before main~10
    python benchmarks/versus.py ../before . --scenes 20k/512/0 60k/512/0 --rigs 60000

Each checkout runs in a process of its own; they take turns, work by work, so that a drift of the machine's speed hits
all alike. Prints medians (minima) in ms and the ratio of the last checkout to the first.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def serve(root: str, scenes: list[str], rigs: list[int]) -> None:
    """In a child: runs the work that each line of stdin names, and prints its time in ms."""
    sys.path[:0] = [root, str(HERE)]
    import raster

    works: raster.Works = {}
    for scene in scenes:
        count, size, degree = (int(part.replace("k", "000")) for part in scene.split("/"))
        own = raster.raster_works(*raster.head_scene(count, size, degree))
        works |= {f"{scene} {name}": work for name, work in own.items() if name.startswith("native")}
    for count in rigs:
        own = raster.part_works(count, 512)
        works |= {f"{count} {name}": work for name, work in own.items() if name.startswith("native")}
    for work in works.values():
        work()
    print("|".join(works), flush=True)
    for line in sys.stdin:
        work = works[line.strip()]
        work()  # caches and threads are this process's again
        start = time.perf_counter()
        work()
        print(1e3 * (time.perf_counter() - start), flush=True)


def compare(roots: list[Path], scenes: list[str], rigs: list[int], repeats: int) -> None:
    """Starts one child per checkout and lets them take turns."""
    given = ["--scenes", *scenes, "--rigs", *map(str, rigs), "--serve"]
    children = [
        subprocess.Popen(
            [sys.executable, __file__, str(root.resolve()), *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for root in roots
    ]

    def ask(child: subprocess.Popen[str], name: str | None = None) -> str:
        assert child.stdin is not None and child.stdout is not None
        if name is not None:
            child.stdin.write(name + "\n")
            child.stdin.flush()
        answer = child.stdout.readline().strip()
        assert answer, f"{child.args} ended; see above"
        return answer

    names = [ask(child).split("|") for child in children][0]
    times: dict[str, list[list[float]]] = {name: [[] for _ in children] for name in names}
    for _ in range(repeats):
        for name in names:
            for child, row in zip(children, times[name], strict=True):
                row.append(float(ask(child, name)))
                time.sleep(0.003)  # until this child's idle threads stop spinning
    for name, rows in times.items():
        medians = [statistics.median(row) for row in rows]
        figures = "".join(f"{median:9.2f} ({min(row):.2f})" for median, row in zip(medians, rows, strict=True))
        print(f"{name:36}{figures}   x {medians[-1] / medians[0]:.2f}")
    for child in children:
        child.communicate()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", type=Path, help="checkouts, oldest first")
    parser.add_argument("--scenes", nargs="*", default=["20k/256/0", "20k/512/0", "60k/512/0"], help="as in raster.py")
    parser.add_argument("--rigs", nargs="*", type=int, default=[60000], help="splats for rig, loss and training step")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(str(args.roots[0]), args.scenes, args.rigs)
    else:
        compare(args.roots, args.scenes, args.rigs, args.repeats)


if __name__ == "__main__":
    main()
