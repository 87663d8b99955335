"""What the algorithms learn: `python reproductions/reproduce.py [--only TASK ...] [--seeds 0 1 2 3 4] [--peer]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import a2c
import acer
import off_policy
import offline
import on_policy
import recordings
import sac_x
from cells import ROOT, Cell, PeerCell, read, run_cells, run_peer_cells, unfinished
from table import results

import duologue as dl
from duologue.runs.jax_setup import prepare_jax

HERE = Path(__file__).resolve().parent
RESULTS, RUNS, TABLE = HERE / "results", ROOT / "runs" / "reproductions", HERE / "RESULTS.md"
COMMAND = "python reproductions/reproduce.py"
LISTS = {
    "a2c": a2c.TASKS, "acer": acer.TASKS, "on_policy": on_policy.TASKS, "off_policy": off_policy.TASKS,
    "offline": offline.TASKS, "sac_x": sac_x.TASKS,
}  # fmt: skip
"""Tasks by the file of results/ that their cells are in."""
PEERS = RESULTS / "peers.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [task.name for tasks in LISTS.values() for task in tasks]
    parser.add_argument(
        "--only", nargs="+", metavar="TASK", default=names, help=f"their beginnings; of {', '.join(names)}"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, help="by default 0 1 2 3 4 (0 1 2 on data), and 0 1 2 for the peer (0 on data)"
    )
    parser.add_argument("--peer", action="store_true", help="have SBX or d3rlpy learn them, where they are asked to")
    parser.add_argument(
        "--in-one",
        action="store_true",
        help="train the seeds of a task side by side in one program, as a GPU likes it, and begin anew what was begun "
        "one by one",
    )
    parser.add_argument(
        "--data", type=Path, help=f"a folder with {recordings.EXPERT}; by default our own agents record all data"
    )
    parser.add_argument("--list", action="store_true", help="say which cells are finished, and stop")
    parser.add_argument("--table", action="store_true", help="write RESULTS.md from what is finished, and stop")
    options = parser.parse_args(arguments)
    unknown = [start for start in options.only if not any(name.startswith(start) for name in names)]
    if unknown:
        parser.error(f"no task {', '.join(unknown)}; there are {', '.join(names)}")

    again = COMMAND if options.data is None else f"{COMMAND} --data FOLDER"

    def data(name: str) -> Path:
        return recordings.made(name, ROOT / "runs" / "data", given=options.data, runs=RUNS)

    try:
        for name, tasks in LISTS.items():
            asked = [task for task in tasks if task.name.startswith(tuple(options.only))]
            ours = [
                Cell(task, seed)
                for seed in options.seeds or range(5)
                for task in asked
                if options.seeds or seed in task.seeds
            ]
            theirs = [
                PeerCell(task, seed)
                for seed in options.seeds or range(3)
                for task in asked
                if task.peer is not None and (options.seeds or seed in ((0,) if task.data else (0, 1, 2)))
            ]
            cells, out = (theirs, PEERS) if options.peer else (ours, RESULTS / f"{name}.jsonl")
            if options.list:
                left = unfinished(cells, read(out))
                for cell in cells:
                    print(f"{'to do   ' if cell in left else 'finished'}  {cell.task.name}, seed {cell.seed}")
            elif not options.table and options.peer:
                run_peer_cells(theirs, out=PEERS, command=again, data=data)
            elif not options.table and ours:
                prepare_jax([cell.task.algorithm for cell in ours])
                run_cells(ours, out=out, runs=RUNS, command=again, data=data, in_one=options.in_one)
    except dl.DuologueError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; what is finished stays, the rest goes on with: {again}", file=sys.stderr)
        return 130
    finally:
        if not options.list:
            done = {name: (tasks, read(RESULTS / f"{name}.jsonl")) for name, tasks in LISTS.items()}
            TABLE.write_text(results(done, read(PEERS), command=COMMAND))
    if not options.list:
        print(f"wrote {TABLE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
