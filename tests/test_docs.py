"""The documentation is true: its Python runs, its commands parse, its links lead somewhere, the examples work."""

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import tyro
from tyro.conf import Positional

from duologue.cli import commands
from duologue.cli import main as cli
from duologue.cli.listing import List

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(<!-- not run -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """The fenced blocks of all pages in these languages, without those marked as not run."""
    return [
        Block(page.name, text.count("\n", 0, match.start()) + 1, match[2], match[3])
        for page in PAGES
        for text in [page.read_text()]
        for match in FENCE.finditer(text)
        if match[2] in languages and not match[1]
    ]


def marked(item: object, name: str, text: str):
    """A parameter of a test, which needs gymnax where its text makes an environment of that package."""
    return pytest.param(item, id=name, marks=[pytest.mark.needs("gymnax")] if "gymnax/" in text else [])


def command_lines(block: Block) -> list[list[str]]:
    """The words of each line that starts with a prompt, without comments."""
    return [shlex.split(line[2:], comments=True) for line in block.text.splitlines() if line.startswith("$ ")]


def run(path: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("block", [marked(block, str(block), block.text) for block in blocks("python")])
def test_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "block.py"
    script.write_text(block.text)
    run(script, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    "block", [marked(block, str(block), block.text) for block in blocks("console", "shell", "bash")]
)
def test_commands_exist(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment.yaml").write_text("".join(other.text for other in blocks("yaml")))
    assert command_lines(block), "a block of shell without a line that starts with $"
    for program, *arguments in command_lines(block):
        match program:
            case "duologue" if arguments[0] == "train":
                assert cli.run([*arguments, "--dry-run"]) == 0
            case "duologue" if arguments[0] != "--version":
                tyro.cli((commands.COMMANDS | {"list": Positional[List]})[arguments[0]], args=arguments[1:])
            case "duologue":
                assert arguments == ["--version"]
            case "make":
                target = re.escape(arguments[0])
                assert re.search(rf"^{target}\b.*:", (ROOT / "Makefile").read_text(), re.MULTILINE), arguments[0]
            case _:
                pytest.fail(f"what does {program} do? Mark the block with <!-- not run -->")


@pytest.mark.parametrize(
    "path", [marked(path, path.stem, path.read_text()) for path in sorted((ROOT / "examples").glob("*.py"))]
)
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    run(path, "--steps", "500", monkeypatch=monkeypatch)
    assert re.search(r"over \d+ (episodes|seeds)", capsys.readouterr().out)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = LINK.findall(page.read_text())
    missing = [link for link in links if not (page.parent / link).exists() and Path(link).name != "RESULTS.md"]
    assert not missing


def test_every_option_of_a2c_is_in_its_table():
    page = (ROOT / "docs" / "a2c.md").read_text()
    table = page[page.index("## Options") : page.index("## Details")]
    documented = set(re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE))
    algorithm = commands.default_algorithm("a2c")
    fields = {name: algorithm for name in algorithm.__dataclass_fields__}
    for part in ("networks", "optimizer"):
        held = getattr(algorithm, part)
        fields |= {f"{type(held).__name__}.{name}": held for name in held.__dataclass_fields__}
    assert documented == fields.keys()
    for name, holder in fields.items():
        value = getattr(holder, name.rpartition(".")[2])
        default = re.search(rf"^\| `{re.escape(name)}` \| `?\"?(.*?)\"?`? \|", table, re.MULTILINE)
        shown = default[1] if default else ""
        if isinstance(value, float):
            assert float(shown) == value, name
        else:
            assert shown in (str(value), repr(value), f"{type(value).__name__}()"), name


@pytest.mark.parametrize("name", ["ppo", "trpo", "acer", "acer-continuous", "cql", "iql", "sac-x", "td3"])
def test_every_option_is_on_its_page(name: str):
    """Its name at least; and nothing in the first column is one that there is not."""
    page = (ROOT / "docs" / f"{name.removesuffix('-continuous')}.md").read_text()
    options = page[page.index("## Options") : page.index("## Details")]
    fields = set(commands.default_algorithm(name).__dataclass_fields__)
    assert fields <= set(re.findall(r"`(\w+)`", options))
    both = fields | (set(commands.default_algorithm("acer").__dataclass_fields__) if name.startswith("acer") else set())
    named = [row.split("|")[1] for row in options.splitlines() if row.startswith("|")]
    assert set(re.findall(r"`(\w+)`", " ".join(named))) <= both


def test_the_page_shows_the_algorithm_of_the_example():
    script = (ROOT / "examples" / "own_algorithm.py").read_text()
    shown = script[script.index("import equinox") : script.index("\n\ndef main")].rstrip()
    assert shown in (ROOT / "docs" / "your-own-algorithm.md").read_text()
