"""The rules of the code's shape, read from its syntax: imports, packages, sizes, the README's map."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("experts", "moe", "router", "benchmarks")
"""Lowest first: a package imports itself and those before it."""

COMMAND_LINE = {"moe.cli", "moe.commands"}
"""The command line may import every package, and nothing imports it."""

LAZY_IMPORTS_ALLOWED = {"moe.cli", "moe.commands"}
"""Modules that may import inside functions: a command's help must not wait for torch."""

OPTIONAL_LIBRARIES = {
    *("fastapi", "llguidance", "prometheus_client", "pydantic", "starlette", "uvicorn"),
    *("hypothesis", "schemathesis"),
    *("arelle", "edgar", "httpx", "ipywidgets", "lm_eval", "nevergrad", "ray", "wandb"),
    *("cryptography", "dp_accounting", "ezkl", "flwr", "onnx", "opacus", "py_ecc"),
}
"""Libraries that a plain installation lacks, so they may be imported where they are used."""

IMPORT_NAMES = {"scikit_learn": "sklearn"}
"""Libraries that are imported under another name than they are installed by."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
ALL_PYTHON = SOURCES + sorted((ROOT / "tests").rglob("*.py"))


def module_name(path: Path) -> str:
    """The dotted name below `finlora`, such as `experts.tasks.task`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> Iterator[tuple[str, int]]:
    """Every module of ours that a file imports, as a name below `finlora`, with its line."""
    package = ["finlora", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            anchor = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*anchor, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("finlora."):
                yield name.removeprefix("finlora."), node.lineno


def is_within(module: str, parents: set[str]) -> bool:
    """Whether a module is one of the parents or lies below one."""
    return any(module == parent or module.startswith(f"{parent}.") for parent in parents)


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_the_library_was_found() -> None:
    """The rules below would hold for no files at all."""
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(LAYERS)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    """Benchmarks import router, router moe, moe experts; the command line sees all, and nothing sees it."""
    module = module_name(path)
    layer = LAYERS.index(module.split(".")[0])
    faults = []
    for imported, line in imported_modules(path):
        if is_within(imported, COMMAND_LINE) and not is_within(module, COMMAND_LINE):
            faults.append(f"{path}:{line} imports the command line ({imported})")
        if LAYERS.index(imported.split(".")[0]) > layer and not is_within(module, COMMAND_LINE):
            faults.append(f"{path}:{line} imports upward ({imported})")
    assert not faults, "\n".join(faults)


def test_no_module_imports_itself_through_others() -> None:
    """Module-level imports have no cycle."""
    modules = {module_name(path): path for path in SOURCES}
    graph = {
        name: {
            target for imported, _ in imported_modules(path) if (target := resolve(imported, modules)) != name
        }
        for name, path in modules.items()
    }
    finished: set[str] = set()
    for name in graph:
        cycle = find_cycle(name, graph, finished, trail=[])
        assert cycle is None, " -> ".join(cycle or [])


def resolve(imported: str, modules: dict[str, Path]) -> str:
    """The module that an imported name lives in: the name itself, or its parent for a class or function."""
    return imported if imported in modules else imported.rpartition(".")[0]


def find_cycle(
    name: str, graph: dict[str, set[str]], finished: set[str], *, trail: list[str]
) -> list[str] | None:
    """The first chain of imports that returns to where it began, depth first."""
    if name in trail:
        return [*trail[trail.index(name) :], name]
    if name not in finished:
        for target in sorted(graph.get(name, ())):
            if cycle := find_cycle(target, graph, finished, trail=[*trail, name]):
                return cycle
        finished.add(name)
    return None


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_stand_at_the_top(path: Path) -> None:
    """A function imports nothing, except an optional library, and except in the command line."""
    if is_within(module_name(path), LAZY_IMPORTS_ALLOWED):
        return
    faults = []
    for function in functions_of(path):
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                libraries = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                libraries = {(node.module or "").split(".")[0]}
            else:
                continue
            if not libraries <= OPTIONAL_LIBRARIES:
                faults.append(f"{path}:{node.lineno} {ast.unparse(node)}")
    assert not faults, "\n".join(faults)


def test_every_folder_is_packaged() -> None:
    """A folder missing from `packages` is missing from the wheel, though an editable install hides it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {"finlora." + ".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES}
    assert set(settings["packages"]) == folders
    assert all((path.parent / "__init__.py").is_file() for path in SOURCES)
    assert settings["package-dir"] == {f"finlora.{layer}": layer for layer in LAYERS}


def test_every_imported_library_is_declared() -> None:
    """A library that comes only with another one may go with its next version."""
    declared = declared_libraries()
    imported = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").split(".")[0])
    importable = {IMPORT_NAMES.get(name, name) for name in declared}
    assert imported - set(sys.stdlib_module_names) - OPTIONAL_LIBRARIES <= importable


def declared_libraries() -> set[str]:
    """Names of the dependencies in pyproject.toml, as they are imported."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "dependencies"
    ]
    return {re.split(r"[<>=!~\[;]", entry)[0].strip().replace("-", "_") for entry in dependencies}


def test_every_dependency_is_pinned() -> None:
    """The constraints name one version of each dependency, and no build of it for one kind of machine."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pinned = {line.partition("==")[0].lower().replace("-", "_") for line in lines}
    assert {name.lower() for name in declared_libraries()} <= pinned
    assert not [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]


@pytest.mark.parametrize("path", ALL_PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    """A reader holds one file and one function in the head."""
    faults = [
        f"{path}:{function.lineno} {function.name} has {length} lines"
        for function in functions_of(path)
        if (length := (function.end_lineno or function.lineno) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > MAX_FILE_LINES:
        faults.append(f"{path} has {lines} lines")
    assert not faults, "\n".join(faults)


def map_of_the_readme() -> set[str]:
    """Paths in the README's annotated tree, whose lines are `path   # what it is`, indented by folder."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- map -->\n```text\n(.*?)```", readme, flags=re.DOTALL)
    assert block, "README.md has no map of the folders"
    named, folders = set(), []
    for line in block.group(1).splitlines():
        name = line.split("#")[0].rstrip()
        depth = (len(name) - len(name.lstrip())) // 2
        folders[depth:] = [name.strip()]
        named.add("".join(folders))
    return named


def test_the_readme_maps_every_file() -> None:
    """The map names each module that exists, and nothing else."""
    existing = set()
    for path in SOURCES:
        relative = path.relative_to(ROOT)
        existing |= {f"{parent}/" for parent in relative.parents if parent.name}
        if path.name != "__init__.py":
            existing.add(str(relative))
    mapped = {
        name for name in map_of_the_readme() if name.split("/")[0] in LAYERS and not is_data_folder(name)
    }
    assert mapped == existing


def is_data_folder(name: str) -> bool:
    """Whether a mapped name is a folder that holds files but no modules, such as the embedded base."""
    folder = ROOT / name
    return folder.is_dir() and any(folder.iterdir()) and not any(folder.rglob("*.py"))
