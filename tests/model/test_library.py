"""`model` as a library: what it imports, what it says of itself, its page and its notebook."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import model
import model.vision
from docs.build_api import PAGE, page
from docs.build_notebook import NOTEBOOK, notebook
from model import errors

FORBIDDEN = ("fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "pydantic_settings", "jinja2", "app")


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = fresh("import model, sys; print('\\n'.join(sys.modules))").split()
    assert {name.split(".")[0] for name in loaded} & {"torch", "numpy", "scipy", "PIL", "pydicom", *FORBIDDEN} == set()


def test_the_whole_surface_imports_no_web_framework_no_orm_and_no_settings() -> None:
    code = "import model, sys\nfor name in model.__all__: getattr(model, name)\nprint('\\n'.join(sys.modules))"
    modules = fresh(code).split()
    loaded = {name.split(".")[0] for name in modules}
    assert "torch" in loaded
    assert "torch._dynamo" not in modules  # most of the time that an import takes; see model/vision.py
    assert loaded.isdisjoint(FORBIDDEN)
    assert loaded.isdisjoint({"matplotlib", "pytorch_grad_cam"})  # only for who asks for what needs them


def test_who_compiles_gets_the_compiler() -> None:
    assert isinstance(model.vision._is_compile_supported("cpu"), bool)
    assert "torch._dynamo" in sys.modules


def test_the_surface_is_what_it_lists() -> None:
    assert sorted(model._HOME) == sorted(model.__all__)
    assert set(model.__all__) <= set(dir(model))
    tree = ast.parse(inspect.getsource(model))
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        node.module: {one.name for one in node.names} for node in typed.body if isinstance(node, ast.ImportFrom)
    }
    assert imported == {module: set(names) for module, names in model._SURFACE.items()}
    submodules = {path.stem for path in Path(model.__path__[0]).iterdir()}
    assert submodules.isdisjoint(model.__all__)  # importing the module would hide the name
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = model.no_such_thing


def raised(function: object) -> set[str]:
    """Our errors that a function's own body raises."""
    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind)} - set(dir(builtins))
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    return {one.func.id for one in calls if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)} & kinds


@pytest.mark.parametrize("name", [one for one in model.__all__ if callable(getattr(model, one))])
def test_everything_public_says_what_it_is_and_what_it_raises(name: str) -> None:
    value = getattr(model, name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return
    assert len((value.__doc__ or "").split()) >= 2, f"{name} has no docstring"
    functions = {name: value}
    if inspect.isclass(value):
        functions = {
            method: getattr(one, "__func__", one.fget if isinstance(one, property) else one)
            for method, one in vars(value).items()
            if not method.startswith("_") and method != "model_post_init"  # pydantic calls it, people do not
        }
    for method, function in functions.items():
        if inspect.isfunction(function) and raised(function):
            assert "Raises" in (function.__doc__ or ""), f"{name}.{method} raises {raised(function)} and says nothing"


def test_the_api_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python -m docs.build_api`"


def test_the_notebook_is_stripped_and_up_to_date() -> None:
    assert NOTEBOOK.read_text("utf-8") == notebook(), "run `python -m docs.build_notebook`"
    assert all(not cell.get("outputs") for cell in json.loads(notebook())["cells"])


def test_the_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    plt.switch_backend("agg")
    scope: dict[str, object] = {}
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), scope)
    figures = plt.get_fignums()
    plt.close("all")
    assert len(figures) == 3
    read = scope["read"]
    probabilities = {name: one.probabilities[:, scope["target"]].tolist() for name, one in read.items()}  # type: ignore[attr-defined]
    assert probabilities["backdoored"][1] > 0.9 > probabilities["backdoored"][0]
    assert abs(probabilities["clean"][1] - probabilities["clean"][0]) < 0.2
    assert "without the trigger" in capsys.readouterr().out
