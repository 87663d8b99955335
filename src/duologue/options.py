"""What the command line takes: one dataclass a command, read by tyro, and for `train` a YAML file below it."""

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from duologue.algorithms.a2c import A2C
from duologue.algorithms.acer import ACER
from duologue.algorithms.acer_continuous import ACERContinuous
from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.bc import BC
from duologue.algorithms.bcq import BCQ
from duologue.algorithms.bcq_discrete import BCQDiscrete
from duologue.algorithms.bear import BEAR
from duologue.algorithms.cql import CQL
from duologue.algorithms.ddpg import DDPG
from duologue.algorithms.iql import IQL
from duologue.algorithms.kl_control import KLControl
from duologue.algorithms.ppo import PPO
from duologue.algorithms.sac import SAC
from duologue.algorithms.sac_discrete import SACDiscrete
from duologue.algorithms.sac_v1 import SACv1
from duologue.algorithms.td3 import TD3
from duologue.algorithms.td3_bc import TD3BC
from duologue.algorithms.trpo import TRPO
from duologue.errors import ConfigError
from duologue.fields import SYNONYMS
from duologue.optim import LearningRate, Linear
from duologue.run import config

ALGORITHMS: dict[str, Any] = {
    "a2c": A2C, "ppo": PPO, "trpo": TRPO, "acer": ACER, "acer-continuous": ACERContinuous,
    "sac": SAC, "sac-v1": SACv1, "sac-discrete": SACDiscrete, "td3": TD3, "ddpg": DDPG,
    "bear": BEAR, "bcq": BCQ, "bcq-discrete": BCQDiscrete, "bc": BC, "td3-bc": TD3BC, "cql": CQL, "iql": IQL,
    "kl-control": KLControl,
}  # fmt: skip
"""By the name that the command line uses."""


@dataclass(frozen=True)
class Train:
    """Train an agent: one command to a run folder with curves, checkpoints and a policy."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV", help_behavior_hint="(required)")]
    """Environment id: CartPole-v1 (Gymnasium), gymnax/CartPole-v1 (JAX), module:Env-v0 (yours). With --dataset it only
    evaluates, and may be left out."""
    algorithm: AbstractAlgorithm
    """Hyperparameters."""
    steps: int = 1_000_000
    """Environment steps of each seed; with --dataset, gradient steps."""
    dataset: str | None = None
    """Recorded data to learn from instead: .npz or .hdf5 with D4RL's names, a Minari folder or id, a run folder."""
    both: Literal["timeout", "terminal"] = "timeout"
    """What a row of these data is with both flags set, where every timeout is marked terminal too."""
    window: int | None = None
    """Rows of these data on the device at a time; None for all."""
    seed: int = 0
    """Of everything random."""
    seeds: int = 1
    """Agents trained in one program, with seeds SEED, SEED + 1, … (environments written in JAX)."""
    num_envs: int | None = None
    """Environments of each agent; None for the algorithm's own number."""
    asynchronous: bool = False
    """Step each Gymnasium environment in a process of its own; pays for slow simulators only."""
    normalize_obs: bool = False
    """Learn from observations of mean 0 and variance 1."""
    normalize_reward: bool = False
    """Learn from rewards divided by the standard deviation of their discounted sum."""
    run_dir: str | None = None
    """The new folder of this run; None for runs/ALGORITHM/ENV/N."""
    evaluate_every: int | None = None
    """Steps between evaluations on separate environments while training; None for none, for ten with --dataset."""
    evaluate_episodes: int = 10
    """Episodes of each of these."""
    final_episodes: int = 100
    """Episodes of the evaluation at the end; 0 for none."""
    save_every: int | None = None
    """Steps between checkpoints; None for ten in a run."""
    log_every: int | None = None
    """Steps between rows of metrics; None for 200 in a run."""
    max_episode_steps: int | None = None
    """A time limit other than the environment's own."""
    wandb: str | None = None
    """Also log to this Weights & Biases project (extra: wandb)."""
    config: str | None = None
    """A YAML file with values for these options; options on the command line win."""
    grid: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD VALUE [VALUE ...]")] = ()
    """Train every combination of values, as of algorithm.discount 0.98 0.99, below RUN_DIR. May be repeated."""
    dry_run: bool = False
    """Print the merged configuration, each value with where it came from, and stop."""


@dataclass(frozen=True)
class Evaluate:
    """Play test episodes with a trained agent, in environments of their own."""

    run: Positional[Path]
    """A run folder."""
    episodes: int = 100
    """Episodes to play, for each seed."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last state, or that of the best evaluation while training."""
    explore: bool = False
    """Act as in training, instead of with the test policy."""
    dataset: str | None = None
    """Play nothing, and evaluate the test policy by fitted Q evaluation on these recorded data."""
    fit_steps: int = 20_000
    """Updates of that evaluation."""


@dataclass(frozen=True)
class Collect:
    """Record what a policy does, as data that others can learn from."""

    run: Positional[str]
    """A run folder, or `random` for uniformly random actions."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The new file: .npz, or .hdf5 (extra: minari)."""
    steps: int = 100_000
    """Transitions."""
    env: str | None = None
    """Environment id; None for the run's own. Required for `random`."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last state of the run, or that of its best evaluation."""
    test: bool = False
    """Act with the test policy, instead of as in training."""
    noise: float = 0.0
    """Noise on top: σ in half-ranges of a Box, the share of random actions of discrete ones."""
    seed: int = 0
    """Of everything random."""


@dataclass(frozen=True)
class Data:
    """Say what recorded data hold, and what had to be repaired or dropped."""

    data: Positional[str]
    """A .npz or .hdf5 file with D4RL's names, a Minari folder or id, or a run folder."""
    both: Literal["timeout", "terminal"] = "timeout"
    """What a row is with both flags set, where every timeout is marked terminal too."""


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest good checkpoint."""

    run: Positional[Path]
    """A run folder."""
    steps: int | None = None
    """Environment steps to reach, on recorded data gradient steps; None for the number it was started with."""
    dataset: str | None = None
    """Where the recorded data of the run lie now, if elsewhere."""


@dataclass(frozen=True)
class Plot:
    """Draw learning curves: runs of one algorithm and environment become a mean with its interval."""

    runs: Positional[tuple[Path, ...]]
    """Run folders."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("curves.png")
    """The picture: .png, .svg or .pdf."""


@dataclass(frozen=True)
class List:
    """List the algorithms, and the runs below a folder."""

    folder: Positional[Path] = Path("runs")
    """Where to look for runs."""


COMMANDS: dict[str, type] = {
    "train": Train, "evaluate": Evaluate, "resume": Resume, "collect": Collect, "data": Data, "plot": Plot,
    "list": List,
}  # fmt: skip

registry = tyro.constructors.ConstructorRegistry()


@registry.primitive_rule
def learning_rate(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """`7e-4`, or `linear:7e-4:0` for a schedule from the first number to the second over the whole run."""
    if info.type != LearningRate:
        return None

    def parse(words: list[str]) -> float | Linear:
        kind, *numbers = words[0].split(":")
        if kind != "linear":
            return float(words[0])
        if len(numbers) not in (1, 2):
            raise ValueError("a schedule is linear:START or linear:START:END")
        start, end = map(float, [*numbers, 0][:2])
        return Linear(start, end)

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT|linear:START:END",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, float | Linear),
        str_from_instance=lambda value: [
            f"linear:{value.start}:{value.end}" if isinstance(value, Linear) else str(value)
        ],
    )


def parse_train(name: str, arguments: list[str], *, env_later: bool = False) -> tuple[dict[str, config.Setting], Train]:
    """The merged configuration with where each value came from, and the command it makes, which may still lack the
    environment only where that comes later."""
    algorithm: Any = ALGORITHMS[name]
    check_words(algorithm, arguments)
    default = Train(env="", algorithm=algorithm())
    layers = [("default", config.to_dict(default))]
    path = config_path(arguments)
    if path is not None:
        values = config.read_yaml(Path(path))
        layers.append((f"config file {path}", values | {"config": path}))
        default = config.from_dict(config.nested(config.merge(layers)), extra=(Train,))
    sources, before = config.merge(layers), config.to_dict(default)
    command = tyro.cli(
        Train,
        args=arguments,
        default=default,
        prog=f"duologue train {name}",
        description=Train.__doc__,
        registry=registry,
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    if not command.env and command.dataset is None and not env_later:
        raise ConfigError(f"Which environment? duologue train {name} ENV, such as CartPole-v1.")
    if command.grid:  # that of the command line was taken before
        raise ConfigError(f"config file {path}: grid has no place in a file. Give it on the command line, --grid.")
    after = config.to_dict(command)
    given = config.merge([("command line", difference(before, after))])
    return {
        key: given.get(key) or config.Setting(value, sources[key].source if key in sources else "default")
        for key, (value, _) in config.merge([("", after)]).items()
    }, command


def check_words(algorithm: type, arguments: list[str]) -> None:
    """Raise `ConfigError` for what is called otherwise here: tyro's own guess may name another hyperparameter."""
    fields = {field.name: field for field in dataclasses.fields(algorithm)}
    for word, after in itertools.zip_longest(arguments, arguments[1:]):
        option, _, value = word.partition("=")
        name = option.removeprefix("--algorithm.").replace("-", "_")
        if not option.startswith("--algorithm."):
            continue
        if name not in fields and SYNONYMS.get(name) in fields:
            right = SYNONYMS[name].rstrip("_").replace("_", "-") + ("_" if SYNONYMS[name].endswith("_") else "")
            raise ConfigError(f"{algorithm.__name__} has no {option}. Did you mean --algorithm.{right}?")
        if name in fields and dataclasses.is_dataclass(fields[name].default):
            kind = (value or after or "KIND").lower()
            raise ConfigError(
                f"{option} is an object and takes no value. Choose its kind with a word of its own, "
                f"algorithm.{name.replace('_', '-')}:{kind}; its fields follow as {option}.FIELD."
            )


def difference(before: Any, after: dict[str, Any]) -> dict[str, Any]:
    """What `after` says that `before` does not; of an object of another type, what is not that type's default."""
    before = before if isinstance(before, dict) else {}
    changed = {"type": after["type"]} if before.get("type") != after.get("type") else {}
    if changed:
        required = [f for f in dataclasses.fields(config.PUBLIC[after["type"]]) if f.default is dataclasses.MISSING]
        before = {} if required else config.to_dict(config.PUBLIC[after["type"]]())
    for name, value in after.items():
        if isinstance(value, dict):
            if inner := difference(before.get(name), value):
                changed[name] = inner
        elif name != "type" and (name not in before or before[name] != value):
            changed[name] = value
    return changed


def config_path(arguments: list[str]) -> str | None:
    """The value of `--config`, which is needed before the rest can be read."""
    for word, after in itertools.zip_longest(arguments, arguments[1:]):
        if word == "--config":
            return after
        if word.startswith("--config="):
            return word.partition("=")[2]
    return None
