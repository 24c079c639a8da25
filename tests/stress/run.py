"""Every fault many times: prints `faults survived / tried`, writes results/stress.json.

    python tests/stress/run.py [--seed 0] [--only killed]

Five minutes on one core; a run that was stopped goes on with the scenario it was in.  The moments,
bits and limits are drawn from the seed.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from stress import scenarios as s

from sahelpers.config import CHECKOUT


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="scenarios whose name begins so")
    options = parser.parse_args()
    os.environ["SA_PROGRESS"] = "0"
    torch.set_num_threads(1)
    draw, size, begin = random.Random(), s.Size(), time.perf_counter()
    target = CHECKOUT / "results" / "stress.json"
    report = json.loads(target.read_text()) if target.exists() and not options.only else {}
    if report.get("finished", True) or report["seed"] != options.seed:
        report = {"command": "make stress", "seed": options.seed, "minutes": 0.0, "scenarios": {}}
    counts: dict[str, dict[str, int]] = report["scenarios"]
    earlier = report["minutes"]

    def write(finished: bool) -> None:
        for key in ("survived", "tried"):
            report[key] = sum(count[key] for count in counts.values())
        report["minutes"] = round(earlier + (time.perf_counter() - begin) / 60, 1)
        report["finished"] = finished
        if not options.only:
            target.write_text(json.dumps(report, indent=2) + "\n")

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        expected, seconds = s.undisturbed(root / "undisturbed", size)
        made = root / "undisturbed" / "again" / "checkpoints"
        print(f"undisturbed: {seconds:.1f} s", flush=True)

        def attempt(what: str, times: int, trial: Callable[[Path], bool | None]) -> None:
            """Count trials; one that returns False missed its moment and is repeated."""
            if not what.startswith(options.only) or what in counts:
                return
            draw.seed(f"{options.seed} {what}")
            count, missed = {"survived": 0, "tried": 0}, 0
            while count["tried"] < times and missed < 3 * times:
                folder = root / f"{what}-{count['tried']}-{missed}"
                try:
                    if trial(folder) is False:
                        missed += 1
                        continue
                    count["survived"] += 1
                except AssertionError:
                    traceback.print_exc()
                count["tried"] += 1
            print(f"{what:45} {count['survived']:3} / {count['tried']}", flush=True)
            counts[what] = count
            write(finished=False)

        def moment(share: float = 1.0) -> float:
            return draw.uniform(0, share * seconds)

        attempt("killed in training", 20, lambda f: s.killed_training(f, size, expected, moment()))
        attempt(
            "killed in the Fisher and after",
            20,
            lambda f: s.killed_fisher(f, size, expected, moment(0.5), made),
        )
        attempt("killed while saving", 20, lambda f: s.killed_saving(f, size, draw.uniform(0, 0.5)))
        attempt("killed in a table", 20, lambda f: s.killed_journal(f, size, draw.uniform(0, 0.8)))
        attempt(
            "disk full, file size limit",
            5,
            lambda f: s.full_disk(f, size, expected, draw.randrange(1000, 200_000)),
        )
        attempt("disk full, tmpfs", 1, lambda f: s.full_tmpfs(f, size, expected))
        attempt("read-only folder", 1, lambda f: s.read_only_folder(size, expected, made))
        for which in ("baseline", "fisher", "judge"):
            attempt(
                f"bit flipped, {which}",
                10,
                lambda f, w=which: s.flipped_bit(f, size, expected, made, w, draw.random()),
            )
        attempt(
            "bit flipped, unfinished training",
            5,
            lambda f: s.flipped_part(f, size, expected, moment(0.7), draw.random()),
        )
        attempt("bit flipped, data", 10, lambda f: s.flipped_data(f, draw.random()))
        attempt("two processes at once", 5, lambda f: s.two_at_once(f, size, expected))
        attempt("four processes at once", 1, lambda f: s.two_at_once(f, size, expected, 4))
        attempt("first of two killed", 5, lambda f: s.holder_killed(f, size, expected, moment(0.5)))
        for now, words in ((0, "1970"), (4_000_000_000, "2096")):
            attempt(
                f"clock shows {words}",
                3,
                lambda f, n=now: s.clock_set_back(f, size, expected, moment(0.7), n),
            )
        limits = [2**k for k in range(10, 30)]
        ran_out: list[bool] = []
        attempt(
            "out of memory",
            len(limits),
            lambda f: ran_out.append(s.out_of_memory(f, size, expected, made, limits.pop())),
        )
        print(f"memory ran out in {sum(ran_out)} of these", flush=True)
    write(finished=True)
    print(f"{'faults survived / tried':45} {report['survived']:3} / {report['tried']}")
    return int(report["survived"] < report["tried"])


if __name__ == "__main__":
    sys.exit(main())
