"""Writes `docs/api.md` from the docstrings of the public surface: `python -m docs.build_api`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from enum import EnumType
from pathlib import Path

import model

PAGE = Path(__file__).parent / "api.md"
_HEAD = """# The library

`pip install .`, then `from model import …`. Research use, not for diagnosis.

Maps are at a layer's own grid and un-normalised; boxes are x, y, width, height in pixels; images are grey, 0 black to 1
white. Everything that is raised on purpose is an `OverreadError` with a stable `code`. [The notebook](overread.ipynb)
shows the surface at work. This page is made from the docstrings by `python -m docs.build_api`.
"""


def page() -> str:
    """The page as it should be."""
    parts = [_HEAD]
    for module, names in model._SURFACE.items():
        parts.append(f"## {module}\n")
        parts += [entry(name, getattr(model, name)) for name in names]
    return "\n".join(parts)


def entry(name: str, value: object) -> str:
    """One name: how it is called, and its docstring; of a constant its value."""
    value = inspect.unwrap(value) if callable(value) else value  # one that is kept is called as if it were not
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        shown = "a folder inside the package" if isinstance(value, Path) else f"`{value!r}`".replace("'", '"')
        return f"### `{name}`\n\n{shown}\n"
    lines = [f"### `{name}`\n", "```python", _heading(value), "```\n", inspect.getdoc(value) or "", ""]
    if inspect.isclass(value) and not isinstance(value, EnumType):
        for method, function in vars(value).items():
            target = getattr(function, "__func__", function.fget if isinstance(function, property) else function)
            if method.startswith("_") or not inspect.isfunction(target):
                continue
            summary = (inspect.getdoc(target) or "").replace("\n", " ")
            lines.append(f"- `{method}`: {summary}" if summary else f"- `{method}`")
        if lines[-1]:
            lines.append("")
    return "\n".join(lines)


def _heading(value: type | object) -> str:
    """The definition as it stands in the source: annotations as they were written, not as Python resolves them."""
    node = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]  # type: ignore[arg-type]
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        one_line = f"{node.name}({ast.unparse(node.args)}){returns}"
        return one_line if len(one_line) <= 100 else f"{node.name}(\n{_arguments(node.args)}){returns}"
    assert isinstance(node, ast.ClassDef)
    bases = f"({', '.join(ast.unparse(base) for base in node.bases)})" if node.bases else ""
    fields = [f"    {ast.unparse(one)}" for one in node.body if isinstance(one, ast.AnnAssign | ast.Assign)]
    return "\n".join([f"class {node.name}{bases}", *(line for line in fields if not line.strip().startswith("_"))])


def _arguments(arguments: ast.arguments) -> str:
    """One a line."""
    lines = []
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    for argument, default in zip(positional, defaults, strict=True):
        lines.append(ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else ""))
    if arguments.kwonlyargs:
        lines.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        lines.append(ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else ""))
    return "".join(f"    {line},\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
