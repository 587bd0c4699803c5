"""Runs twelve slow toy jobs in the folder that is given, on Ray if asked: a process for a test to kill."""

import sys
from functools import partial
from pathlib import Path

from toy_jobs import Counter, write

from finlora.benchmarks.pool import Job, run_jobs
from finlora.benchmarks.process_crew import ProcessCrew
from finlora.benchmarks.ray_crew import LOCAL, RayCrew


def main() -> None:
    """Run the jobs, each needing the one two before it."""
    folder = Path(sys.argv[1])
    jobs = [
        Job(
            name=f"job-{index}",
            is_done=(folder / f"job-{index}").exists,
            action=partial(write, name=f"job-{index}", text=f"result {index}", seconds=0.25),
            needs=(f"job-{index - 2}",) if index > 1 else (),
        )
        for index in range(12)
    ]
    run_jobs(
        jobs,
        make_state=partial(Counter, str(folder)),
        workers=2,
        log_folder=folder / "log",
        hire=partial(RayCrew, LOCAL) if "ray" in sys.argv else ProcessCrew,
    )


if __name__ == "__main__":
    main()
