"""Writes docs/API.md from the docstrings of what may be imported: `python docs/api.py`. A test holds the two together."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {
    "Ask and look": "latentomni.runtime latentomni.trace latentomni.media latentomni.clock latentomni.config latentomni.events latentomni.errors",
    "What latents carry": "latentomni.evidence latentomni.interventions latentomni.reruns latentomni.attention",
    "Pictures": "visualizers visualizers.timeline visualizers.evidence visualizers.trajectory visualizers.attention visualizers.compare",
    "Models": "latentomni.checkpoints latentomni.adapters latentomni.plan latentomni.modeling",
    "Data": "latentomni.avworld latentomni.training.records latentomni.synthesis",
    "Training and evaluation": "latentomni.training.recipes latentomni.training.finetune latentomni.evaluation.causal latentomni.evaluation.benchmarks",
}
HEAD = """# The Python API

Every public name of the modules that a program may build on, with its docstring. Written by `python docs/api.py`; do not edit. `from latentomni import
ask, open_trace` is the short way in: `ask` is `latentomni.runtime.ask`, `open_trace` is `latentomni.trace.Trace.load`.

Dimensions: B batch, T tokens, S blocks, K latents per block, V visual, A audio, N evidence items, F frames, D hidden.
"""


def api_text() -> str:
    parts = [HEAD]
    for title, modules in MODULES.items():
        parts.append(f"## {title}\n")
        for module in modules.split():
            parts += _module(module)
    return "\n".join(parts)


def _module(name: str) -> Iterator[str]:
    tree = _tree(name)
    yield f"### {name}\n"
    yield f"{ast.get_docstring(tree)}\n"
    for public in _public(tree):
        home = _home(tree, public) or name
        node = next((n for n in _tree(home).body if getattr(n, "name", None) == public), None)
        if home != name:
            yield f"- `{public}`: of `{home}`.\n"
            if node is None or home in " ".join(MODULES.values()).split():
                continue
        if node is not None:
            yield from _described(node)


def _described(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        yield f"**class {node.name}{f'({bases})' if bases else ''}**\n"
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and not n.target.id.startswith("_")]
        if fields:
            yield "```python\n" + "\n".join(map(ast.unparse, fields)) + "\n```\n"
        yield from _docstring(node)
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and ast.get_docstring(method):
                yield from _function(method, f"{node.name}.")
    elif isinstance(node, ast.FunctionDef):
        yield from _function(node, "")


def _function(node: ast.FunctionDef, owner: str) -> Iterator[str]:
    is_property = any(ast.unparse(d).endswith("property") for d in node.decorator_list)
    node.args.args = [argument for argument in node.args.args if argument.arg not in ("self", "cls")]
    arguments = "" if is_property else f"({ast.unparse(node.args)})"
    yield f"**`{owner}{node.name}{arguments}{f' -> {ast.unparse(node.returns)}' if node.returns else ''}`**\n"
    yield from _docstring(node)


def _docstring(node: ast.AST) -> Iterator[str]:
    if text := ast.get_docstring(node):
        yield f"{text}\n"


def _public(tree: ast.Module) -> list[str]:
    return next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"), [])


def _home(tree: ast.Module, name: str) -> str | None:
    """The module that a name is imported from, where it is not made here."""
    return next((n.module for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names if alias.name == name), None)


def _tree(name: str) -> ast.Module:
    path = ROOT.joinpath(*name.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8"))


if __name__ == "__main__":
    (ROOT / "docs" / "API.md").write_text(api_text(), encoding="utf-8")
