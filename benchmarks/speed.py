"""How fast Duologue trains, beside its peers, on this machine.

    python benchmarks/speed.py [CASE ...] [--rounds 5] [--scale 1] [--out benchmarks]

Every measurement is a process of its own, and the contestants take turns: ours, peer, ours, peer, … for each round. A
ratio is taken within a round, where the machine was the same, and the median over rounds is quoted with the smallest
and the largest. Time runs from the first tenth of a run to its end, so that importing, compiling and starting
environments are excluded on both sides; logging and checkpoints of ours, at their defaults, are included.

The peers live in an environment of their own (`make peers`), whose Python is `$DUOLOGUE_PEERS` or `.peers/bin/python`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import HERE, Case, Round, circumstances, record, table, write

PEERS = Path(os.environ.get("DUOLOGUE_PEERS", HERE.parent / ".peers" / "bin" / "python"))


@dataclass(frozen=True)
class Contestant:
    """A process that measures once."""

    script: str
    steps: int
    """Environment steps of each seed."""
    options: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        return PEERS if self.script == "peers.py" or "d3rlpy" in self.options else Path(sys.executable)


CHEETAH = "HalfCheetah-v5"
ROLLOUT = 8 * 2048
"""Of PPO and TRPO."""
OFFLINE = {"bear": 300, "bcq": 100, "cql": 200, "iql": 1_000, "td3-bc": 1_500}
"""Algorithms on recorded data, and the updates that d3rlpy makes in some ten seconds."""
CONTESTANTS = {
    "host": Contestant("ours.py", 500_000, ("--env", "CartPole-v1")),
    "host, one core": Contestant("ours.py", 500_000, ("--env", "CartPole-v1", "--core", "0")),
    "compiled": Contestant("ours.py", 3_000_000, ("--env", "gymnax/CartPole-v1")),
    "compiled, one core": Contestant("ours.py", 3_000_000, ("--env", "gymnax/CartPole-v1", "--core", "0")),
    "16 seeds": Contestant("ours.py", 500_000, ("--env", "gymnax/CartPole-v1", "--seeds", "16", "--devices", "2")),
    "3 seeds in turn": Contestant("ours.py", 1_000_000, ("--env", "gymnax/CartPole-v1", "--turns", "3")),
    "SB3, 1 thread": Contestant("peers.py", 100_000, ("--env", "CartPole-v1", "--threads", "1")),
    "SB3, 2 threads": Contestant("peers.py", 100_000, ("--env", "CartPole-v1", "--threads", "2")),
    "SB3, one core": Contestant("peers.py", 100_000, ("--env", "CartPole-v1", "--threads", "1", "--core", "0")),
    **{
        f"{name.upper()}{case}": Contestant("ours.py", 8_000, ("--env", CHEETAH, "--algorithm", name, *options))
        for name in ("sac", "td3")
        for case, options in (("", ()), (", K = 8", ("--updates", "8" if name == "sac" else "4")))
    },
    "PPO": Contestant("ours.py", 30 * ROLLOUT, ("--env", "CartPole-v1", "--algorithm", "ppo")),
    "PPO, compiled": Contestant("ours.py", 50 * ROLLOUT, ("--env", "gymnax/CartPole-v1", "--algorithm", "ppo")),
    "SB3 PPO": Contestant(
        "peers.py", 4 * ROLLOUT, ("--env", "CartPole-v1", "--algorithm", "ppo", "--threads", "1")
    ),
    "SBX PPO": Contestant(
        "peers.py", 4 * ROLLOUT, ("--library", "sbx", "--env", "CartPole-v1", "--algorithm", "ppo", "--threads", "1"),
    ),
    "TRPO": Contestant("ours.py", 30 * ROLLOUT, ("--env", "CartPole-v1", "--algorithm", "trpo")),
    "SB3 TRPO": Contestant(
        "peers.py", 6 * ROLLOUT,
        ("--library", "contrib", "--env", "CartPole-v1", "--algorithm", "trpo", "--threads", "1"),
    ),
    "SAC, 4 seeds": Contestant(
        "ours.py", 4_000, ("--env", CHEETAH, "--algorithm", "sac", "--seeds", "4", "--devices", "2")
    ),
    **{
        f"{library.upper()} {name.upper()}": Contestant(
            "peers.py", 4_000,
            ("--library", library, "--env", CHEETAH, "--algorithm", name, "--threads", "2"),
        )
        for name in ("sac", "td3")
        for library in ("sb3", "sbx")
    },
    **{
        f"{label} {name}": Contestant("recorded.py", steps, ("--algorithm", name, "--library", library, *options))
        for name, updates in OFFLINE.items()
        for label, library, options, steps in (
            ("recorded", "duologue", (), 4 * updates),
            ("d3rlpy", "d3rlpy", (), updates),
            ("own sizes", "duologue", ("--own",), 2 * updates),
        )
    },
    "4 seeds iql": Contestant(
        "recorded.py", 4_000,
        ("--algorithm", "iql", "--library", "duologue", "--seeds", "4", "--devices", "2"),
    ),
}  # fmt: skip

SB3 = ("SB3, 1 thread", "SB3, 2 threads")
TURNS = ("3 seeds in turn",)
CASES = (
    Case("a2c-host", "A2C, CartPole-v1, host loop, against Stable-Baselines3", "host", SB3, 4),
    Case("a2c-host", "the same, both on one core", "host, one core", ("SB3, one core",), 4),
    Case("a2c-compiled", "A2C, gymnax/CartPole-v1, compiled loop, against Stable-Baselines3", "compiled", SB3, 25),
    Case("a2c-compiled", "compiled loop, both on one core", "compiled, one core", ("SB3, one core",), 25),
    Case("a2c-seeds", "16 seeds in one program, two devices, against 16 runs in turn", "16 seeds", TURNS),
    Case("ppo", "PPO, CartPole-v1, host loop, against Stable-Baselines3", "PPO", ("SB3 PPO",), 5),
    Case("ppo", "PPO, CartPole-v1, host loop, against SBX", "PPO", ("SBX PPO",), 3),
    Case("ppo", "PPO, gymnax/CartPole-v1, compiled, against Stable-Baselines3", "PPO, compiled", ("SB3 PPO",), 15),
    Case("trpo", "TRPO, CartPole-v1, host loop, against sb3-contrib", "TRPO", ("SB3 TRPO",)),
    Case("sac", "SAC, HalfCheetah-v5, against Stable-Baselines3", "SAC", ("SB3 SAC",), 1.9),
    Case("sac", "SAC, HalfCheetah-v5, against SBX", "SAC", ("SBX SAC",), 1.25),
    Case("sac", "SAC, 8 updates after every 8 steps, against SBX", "SAC, K = 8", ("SBX SAC",)),
    Case("td3", "TD3, HalfCheetah-v5, against Stable-Baselines3", "TD3", ("SB3 TD3",), 1.9),
    Case("td3", "TD3, HalfCheetah-v5, against SBX", "TD3", ("SBX TD3",), 1.25),
    Case("td3", "TD3, 8 updates of the critics after every 8 steps, against SBX", "TD3, K = 8", ("SBX TD3",)),
    Case("sac-seeds", "SAC, 4 seeds in one program, two devices, against one seed", "SAC, 4 seeds", ("SAC",), 1.4),
    *(
        Case("offline", f"{name}, recorded data, against d3rlpy", f"recorded {name}", (f"d3rlpy {name}",), target)
        for name, target in (("bear", 2), ("bcq", 1.1), ("cql", 1.1), ("iql", 2), ("td3-bc", 2))
    ),
    *(
        Case("offline-own", f"{name} at our own defaults, against d3rlpy's", f"own sizes {name}", (f"d3rlpy {name}",))
        for name in OFFLINE
    ),
    Case("offline-seeds", "IQL, 4 seeds in one program, two devices, against one", "4 seeds iql", ("recorded iql",)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(case.name for case in CASES))
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"by default all: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times the steps of every run; below 1 for a trial")
    parser.add_argument("--out", type=Path, default=HERE, help="where results/speed.json and RESULTS.md are")
    options = parser.parse_args(arguments)
    unknown = set(options.cases) - set(names)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    cases = [case for case in CASES if case.name in (options.cases or names)]
    rounds = measure(contestants(cases), rounds=options.rounds, scale=options.scale)
    measured = [case for case in cases if any(case.ours in one for one in rounds)]
    records = [{**record(case, rounds), **circumstances(rounds), "scale": options.scale} for case in measured]
    write(options.out, records, order=[case.what for case in CASES])
    print(f"\n{table(records)}\n")
    if not PEERS.exists():
        print(f"Stable-Baselines3 was left out: there is no {PEERS}. To measure beside it: make peers")
    print(f"wrote {options.out / 'results' / 'speed.json'} and {options.out / 'RESULTS.md'}")
    return 0 if measured == cases else 1


def contestants(cases: Sequence[Case]) -> list[str]:
    """Who takes part, each once, ours and its peers beside each other; peers only where they are installed."""
    names = dict.fromkeys(name for case in cases for name in (case.ours, *case.others))
    return [name for name in names if CONTESTANTS[name].python.exists()]


def measure(names: Sequence[str], *, rounds: int, scale: float) -> list[Round]:
    """One dictionary a round, from contestants to what their processes said. A contestant that fails is left out."""
    results = []
    for index in range(rounds):
        results.append({})
        for name in names:
            result = child(CONTESTANTS[name], scale)
            if result is not None:
                results[-1][name] = result
                print(
                    f"round {index + 1} of {rounds}   {name:<18}{result['steps_per_second']:>12,.0f} steps/s",
                    flush=True,
                )
    return results


def child(contestant: Contestant, scale: float) -> dict[str, Any] | None:
    """What the process printed last, or `None` with its own words on the screen where it failed."""
    steps = str(int(contestant.steps * scale))
    command = [str(contestant.python), str(HERE / contestant.script), "--steps", steps, *contestant.options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"failed with exit code {done.returncode}: {' '.join(command)}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
