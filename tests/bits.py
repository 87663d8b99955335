"""Record the bits that runs compute, to compare two versions: `python tests/bits.py OUT.json [WORD ...]`.

For every algorithm and every loop that serves it: one seed, three seeds in one program, and a run that is interrupted
and resumed, of some 200 steps each. A case has a hash of the arrays of the last checkpoint (without their names), of
the rows of metrics (without the clock), and of the actions and values of the trained agent. Bits depend on the machine
and the number of its threads, so compare two versions on one machine. Words select cases by their names.
`python tests/bits.py --compare BEFORE.json AFTER.json` prints what differs.

The script uses the public names of the package alone.
"""

import hashlib
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from safetensors.numpy import load_file

import duologue as dl

STEPS, SEEDS = 240, 3
NETWORKS = dl.Networks(hidden_sizes=(16, 16), shared_trunk=False)
ROLLOUT = dict(networks=NETWORKS, rollout_length=4, num_envs=3)
EPOCHS = dict(**ROLLOUT, minibatch_size=6, epochs=2)
REPLAY = dict(networks=NETWORKS, batch_size=6, num_envs=3, replay_capacity=120, learning_starts=30, start_steps=12)
SEQUENCES = dict(networks=NETWORKS, rollout_length=4, num_envs=3, batch_size=5, replay_capacity=120, learning_starts=30)
DATA = dict(networks=NETWORKS, batch_size=6)
BOTH = dict(networks=NETWORKS, batch_size=6, num_envs=3, replay_capacity=120)
SACX = dl.SACX(
    networks=NETWORKS, sequence_length=4, batch_size=5, num_envs=3, replay_capacity=120, learning_starts=30,
    target_period=3,
)  # fmt: skip

DISCRETE = ["CartPole-v1", "gymnax/CartPole-v1"]
BOX = ["Pendulum-v1", "gymnax/Pendulum-v1"]
CAR = ["MountainCarContinuous-v0", "gymnax/MountainCarContinuous-v0"]
CASES = {
    "a2c": (dl.A2C(**ROLLOUT), DISCRETE + BOX),
    "a2c-schedule": (dl.A2C(**ROLLOUT, learning_rate=dl.Linear(1e-3, 0.0), optimizer=dl.Adam()), DISCRETE),
    "a2c-shared": (
        dl.A2C(networks=dl.Networks(hidden_sizes=(16,), shared_trunk=True), rollout_length=4, num_envs=3),
        [*DISCRETE, "gymnax/Breakout-MinAtar"],
    ),
    "normalized-a2c": (dl.Normalized(dl.A2C(**ROLLOUT)), DISCRETE),
    "ppo": (dl.PPO(**EPOCHS), DISCRETE + BOX),
    "ppo-penalty": (dl.PPO(**EPOCHS, objective=dl.KLPenalty(), target_kl=0.01, value_clip=0.2), BOX),
    "normalized-ppo": (dl.Normalized(dl.PPO(**EPOCHS)), BOX),
    "trpo": (dl.TRPO(**EPOCHS), DISCRETE + BOX),
    "acer": (dl.ACER(**SEQUENCES), [*DISCRETE, "gymnax/Breakout-MinAtar"]),
    "acer-continuous": (dl.ACERContinuous(**SEQUENCES), BOX),
    "sac": (dl.SAC(**REPLAY), [*BOX, "data"]),
    "sac-fixed": (dl.SAC(**REPLAY, alpha=dl.temperature.Fixed(0.1), n_step=2), BOX),
    "normalized-sac": (dl.Normalized(dl.SAC(**REPLAY)), [*BOX, "data"]),
    "sac-v1": (dl.SACv1(**REPLAY), BOX),
    "sac-discrete": (dl.SACDiscrete(**REPLAY), [*DISCRETE, "gymnax/Breakout-MinAtar"]),
    "td3": (dl.TD3(**REPLAY), [*BOX, "data"]),
    "ddpg": (dl.DDPG(**REPLAY), [*BOX, "data"]),
    "sac-x": (SACX, CAR),
    "sac-q": (dl.SACX(networks=NETWORKS, scheduler=dl.task_schedulers.QTable()), CAR[:1]),
    "normalized-sac-x": (dl.Normalized(SACX, reward=False), CAR[:1]),
    "bc": (dl.BC(**DATA), ["data", "discrete data"]),
    "bcq": (dl.BCQ(**DATA, vae_networks=NETWORKS, candidates=3, target_candidates=3), ["data"]),
    "bcq-discrete": (dl.BCQDiscrete(**DATA), ["discrete data"]),
    "bear": (dl.BEAR(**DATA, vae_networks=NETWORKS, mask_probability=0.8, warm_start=2, candidates=3), ["data"]),
    "bear-kl": (dl.BEAR(**DATA, vae_networks=NETWORKS, distance=dl.KL(), candidates=0), ["data"]),
    "cql": (dl.CQL(**BOTH, proposals=2), ["data", *BOX]),
    "iql": (dl.IQL(**BOTH), ["data", *BOX]),
    "normalized-iql": (dl.Normalized(dl.IQL(**BOTH)), ["data"]),
    "kl-control": (dl.KLControl(**DATA), ["data"]),
    "td3-bc": (dl.TD3BC(**BOTH), ["data", *BOX]),
}


def recorded(discrete: bool) -> dl.DataSet:
    """Rows of ten episodes of 30 steps, the same in every process."""
    generator = np.random.default_rng(7)
    n = 300
    ends = np.arange(n) % 30 == 29
    obs, after = generator.normal(size=(2, n, 3)).astype(np.float32)
    actions = generator.integers(0, 3, n) if discrete else generator.uniform(-1, 1, (n, 2)).astype(np.float32)
    columns = {
        "observations": obs, "actions": actions, "rewards": generator.normal(size=n).astype(np.float32),
        "terminals": ends & (np.arange(n) % 60 == 29), "timeouts": ends & (np.arange(n) % 60 == 59),
        "next_observations": after,
    }  # fmt: skip
    return dl.from_columns(columns)


def digest(arrays) -> str:
    """One hash of many arrays, whatever their order."""
    each = sorted(
        hashlib.sha256(f"{x.dtype}{x.shape}".encode() + np.ascontiguousarray(x).tobytes()).hexdigest() for x in arrays
    )
    return hashlib.sha256("".join(each).encode()).hexdigest()[:16]


def answers(run) -> dict[str, str]:
    """What each seed's agent answers at a few observations."""
    found: dict[str, list[np.ndarray]] = {}
    for one in [run] if isinstance(run, dl.Run) else run:
        space = one.plan.spec.observation
        obs = np.random.default_rng(1).normal(size=(5, *space.shape)).astype(space.dtype)
        action = one.policy(obs)
        asked = {
            "policy": lambda one=one, obs=obs: one.policy(obs),
            "sample": lambda one=one, obs=obs: one.sample(obs, step=2),
            "log_prob": lambda one=one, obs=obs, action=action: one.log_prob(obs, action),
            "q": lambda one=one, obs=obs, action=action: one.q(obs, action),
            "v": lambda one=one, obs=obs: one.v(obs),
        }
        for name, answer in asked.items():
            try:
                found.setdefault(name, []).append(np.asarray(answer()))
            except dl.ConfigError:
                found.setdefault(name, []).append(np.zeros(0))
    return {name: digest(values) for name, values in found.items()}


def described(run) -> dict[str, str]:
    """The hashes of one run."""
    (newest,) = sorted((run.path / "checkpoints" / "latest").glob("step-*"), key=lambda p: int(p.name[5:]))[-1:]
    arrays = [x for file in sorted(newest.glob("*.safetensors")) for x in load_file(file).values()]
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    clock = {"time", "time/fps"}
    text = json.dumps([{k: v for k, v in sorted(row.items()) if k not in clock} for row in rows])
    metrics = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"state": digest(arrays), "arrays": str(len(arrays)), "metrics": metrics} | answers(run)


def runs_of(name: str, algorithm, where: str):
    """The hashes of every kind of run of one case."""
    if where.endswith("data"):
        source = {"dataset": recorded(where.startswith("discrete"))}
        steps, again = 120, {"dataset": source["dataset"]}
    else:
        source, steps, again = {"env": where}, STEPS, {}
        if "MountainCarContinuous" in where:
            source["tasks"] = "mountain-car"
    quiet = dict(console=Console(file=io.StringIO()), log_every=60)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        alone = dl.train(algorithm, steps=steps, seed=3, run_dir=path / "one", **source, **quiet)
        yield f"{name} | {where} | one seed", described(alone)
        several = dl.train(algorithm, steps=steps, seed=3, seeds=SEEDS, run_dir=path / "several", **source, **quiet)
        yield f"{name} | {where} | three seeds", described(several)
        dl.train(algorithm, steps=steps // 2, seed=3, run_dir=path / "resumed", **source, **quiet)
        resumed = dl.resume(path / "resumed", steps=steps, console=quiet["console"], **again)
        yield f"{name} | {where} | resumed", described(resumed)


def compare(before: Path, after: Path) -> int:
    """Print every case whose hashes differ or are missing; the number of these."""
    one, other = (json.loads(path.read_text()) for path in (before, after))
    wrong = 0
    for case in sorted({*one, *other}):
        a, b = one.get(case), other.get(case)
        if a != b:
            wrong += 1
            keys = [key for key in {**(a or {}), **(b or {})} if (a or {}).get(key) != (b or {}).get(key)]
            print(f"{case}: {', '.join(keys)} differ" if a and b else f"{case}: only in one of the files")
    print(f"{len({*one, *other})} cases, {wrong} differ")
    return wrong


def main(out: str, *words: str) -> None:
    path, found = Path(out), {}
    for name, (algorithm, places) in CASES.items():
        for where in places:
            if words and name not in words:
                continue
            for case, hashes in runs_of(name, algorithm, where):
                found[case] = hashes
                print(case, hashes["state"], flush=True)
            path.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        sys.exit(compare(*map(Path, sys.argv[2:4])) > 0)
    main(*sys.argv[1:])
