"""The shape of the code, read from its syntax trees: direction of imports, doors, cycles, names and lengths."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("latentomni", "visualizers", "app")

# Nothing on the left may know what stands to its right. What no entry names belongs to the model.
CHAIN = ("foundation", "media", "model", "runtime", "visualizers", "app")
FOUNDATION = {f"latentomni.{name}" for name in ("arms", "bundle", "clock", "config", "errors", "events", "evidence", "trace", "truth")}
RUNTIME = {f"latentomni.{name}" for name in ("replays", "reruns", "runtime", "variants")}
LEAVES = {f"latentomni.{name}" for name in ("avworld", "bench", "commands", "evaluation", "study", "synthesis", "training")}
COMPOSITION = {"latentomni.cli", "latentomni.__main__"}
SHOWN = {"app": {"latentomni.avworld"}}  # its self test draws a world
MEASURED = {
    "latentomni.bench": {"latentomni.synthesis", "latentomni.training"},
    "latentomni.study": {"latentomni.training", "latentomni.evaluation"},
    "latentomni.synthesis": {"latentomni.training"},  # what it makes is held against their schema
}

DOORS = {
    "anywidget": ("visualizers.notebook",),
    "av": ("latentomni.media", "latentomni.tracks"),
    "bitsandbytes": ("latentomni.checkpoints",),
    "gradio": ("app",),
    "gradio_client": ("latentomni.bench",),  # whose users come over the network
    "huggingface_hub": ("latentomni.checkpoints", "latentomni.commands.space", "latentomni.hub"),  # which reads a card as the Hub does
    "lmms_eval": ("latentomni.evaluation.lmms",),
    "moviepy": ("latentomni.avworld.writing", "latentomni.bench", "visualizers.reel"),  # the bench reads with it, as a peer
    "openai": ("latentomni.synthesis.endpoint",),
    "peft": ("latentomni.adapters",),
    "plotly": ("visualizers",),
    "pyarrow": ("latentomni.evaluation.benchmarks",),
    "ray": ("latentomni.synthesis.engines",),
    "spaces": ("app.lent",),  # there on Spaces of Hugging Face only
    "starlette": ("app.service",),  # what gradio serves with
    "transformers": (
        "latentomni.checkpoint_files",
        "latentomni.checkpoints",
        "latentomni.layouts",
        "latentomni.modeling",
        "latentomni.prefix",  # its cache
        "latentomni.training",
        "latentomni.window_grammar",  # its tokenizer's type
    ),
    "umap": ("visualizers",),
}
HEAVY = ("torch", "transformers", "av", "PIL", "gradio", "plotly", "moviepy", "tqdm")
WITHOUT_TORCH = (*sorted(FOUNDATION), "latentomni.cli", "latentomni.commands.inspect", "visualizers.notebook", "visualizers.page")

# one name per kind of component, text, setting, event
MANY_NAMES = {"app.components": 15, "app.copy": 8, "latentomni.config": 9, "latentomni.errors": 8, "latentomni.events": 10}
# of an extra, asked for where they are needed, or comes with one
OPTIONAL = {"anywidget", "lmms_eval", "openai", "playwright", "pyarrow", "pydantic", "ray", "spaces", "traitlets"}
DISTRIBUTIONS = {  # whose name is another than the import's
    "gradio_client": "gradio-client",
    "huggingface_hub": "huggingface-hub",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "umap": "umap-learn",
}


@dataclass(frozen=True)
class Import:
    """`at_start`: the import runs when the module is imported."""

    target: str
    at_start: bool


@cache
def modules() -> dict[str, Path]:
    """Name -> file of every module; the root's app.py, which the package app hides, is not among them."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What a module imports, but for type checkers; a module of ours by its full name."""
    return tuple(_imports(tree(module), at_start=True))


def _imports(node: ast.AST, at_start: bool):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (Import(name.name, at_start) for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import in line {child.lineno}"
            for name in child.names:
                inner = f"{child.module}.{name.name}"
                yield Import(inner if inner in modules() else child.module, at_start)
        is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _imports(child, at_start and not is_function)


def within(module: str, prefixes) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def place(module: str) -> str:
    if module in FOUNDATION or module == "latentomni":
        return "foundation"
    if module in ("latentomni.isolation", "latentomni.media", "latentomni.tracks"):
        return "media"
    if module in RUNTIME:
        return "runtime"
    top = module.partition(".")[0]
    return "model" if top == "latentomni" else top


def chain() -> list[str]:
    return [m for m in modules() if not within(m, LEAVES | COMPOSITION)]


def test_the_walk_sees_this_project():
    assert {"latentomni.runtime", "latentomni.trace", "visualizers.view", "app.ui"} <= set(modules())
    assert Import("latentomni.generation", True) in imports("latentomni.runtime")
    assert Import("plotly.subplots", False) in imports("visualizers.timeline")


@pytest.mark.parametrize("module", chain())
def test_nothing_knows_what_stands_to_its_right(module):
    rank = CHAIN.index(place(module))
    ours = [i.target for i in imports(module) if within(i.target, PACKAGES)]
    assert [t for t in ours if within(t, LEAVES - SHOWN.get(place(module), set()) | COMPOSITION)] == []
    assert [t for t in ours if CHAIN.index(place(t)) > rank] == []


@pytest.mark.parametrize("module", [m for m in modules() if within(m, LEAVES - {"latentomni.commands"})])
def test_leaves_know_neither_each_other_nor_what_is_shown(module):
    own = ".".join(module.split(".")[:2])
    others = LEAVES - {own, "latentomni.avworld", *MEASURED.get(own, ())} | COMPOSITION | {"visualizers", "app"}
    assert [i.target for i in imports(module) if within(i.target, others)] == []


def test_nothing_imports_the_composition_root():
    importers = [m for m in modules() for i in imports(m) if within(i.target, COMPOSITION)]
    assert importers == ["latentomni.__main__"]


@pytest.mark.parametrize("package", sorted(DOORS))
def test_a_heavy_package_has_one_door(package):
    importers = {m for m in modules() for i in imports(m) if within(i.target, [package])}
    assert {m for m in importers if not within(m, DOORS[package])} == set()


def test_the_plug_in_is_imported_by_its_host_alone():
    plug_in = "latentomni.evaluation.lmms"
    assert {m for m in modules() for i in imports(m) if within(i.target, [plug_in]) and not within(m, [plug_in])} == set()


def test_imports_at_start_have_no_cycle():
    graph = {m: {i.target for i in imports(m) if i.at_start and i.target in modules()} - {m} for m in modules()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules())  # CycleError names the cycle


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_opens_traces_needs_numpy_alone(module):
    seen, stack = set(), [module]
    while stack:
        at_start = {i.target for i in imports(stack.pop()) if i.at_start} - seen
        seen |= at_start
        stack += [target for target in at_start if target in modules()]
    foreign = {name.partition(".")[0] for name in seen} - set(PACKAGES) - set(sys.stdlib_module_names)
    assert foreign <= {"numpy", "safetensors"}


def test_traces_open_where_torch_and_all_else_is_missing():
    """In a process of its own, where importing a heavy package fails."""
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); import {', '.join(WITHOUT_TORCH)}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", modules())
def test_names_say_what_a_module_is_for(module):
    assert not {"utils", "util", "common", "helper", "helpers", "misc"} & set(module.split("."))


@pytest.mark.parametrize("module", modules())
def test_files_and_functions_are_short(module):
    assert len(modules()[module].read_text(encoding="utf-8").splitlines()) <= 400
    functions = [n for n in ast.walk(tree(module)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [f.name for f in functions if f.end_lineno - f.lineno >= 60] == []


@pytest.mark.parametrize("module", modules())
def test_public_names_are_few_and_sorted(module):
    """Constants, then classes, then functions, each in alphabetical order, as ruff sorts them."""
    lists = [n.value for n in tree(module).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    names = [ast.literal_eval(value) for value in lists]
    assert len(names) <= 1
    for public in names:
        assert 1 <= len(public) <= MANY_NAMES.get(module, 7)
        assert public == sorted(set(public), key=lambda n: (not n.isupper(), not n[0].isupper(), n))


def test_the_app_file_holds_no_logic():
    text = (ROOT / "app.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    logic = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While)
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, logic)]


def test_every_package_that_is_imported_is_required():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = {re.match(r"[\w-]+", line)[0] for line in lines if line and not line.startswith("#")}
    used = {i.target.partition(".")[0] for m in modules() for i in imports(m)}
    used -= {*PACKAGES, *sys.stdlib_module_names, *OPTIONAL}
    assert {DISTRIBUTIONS.get(name, name) for name in used} <= required


def test_every_requirement_has_a_floor_and_a_ceiling():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z-]+>=[\d.]+,<[\d.]+", line) for line in wanted), wanted
    nine = {"gradio", "torch", "transformers", "bitsandbytes", "accelerate", "moviepy", "plotly", "umap-learn",
            "huggingface-hub"}  # fmt: skip
    assert nine <= {line.partition(">")[0] for line in wanted}
