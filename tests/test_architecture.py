"""The package's shape: who imports whom, how long things are, what is public."""

import ast
import graphlib
import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_llm"

# A folder imports from itself and from those before it.
RANKED = (
    "core",
    "ops",
    "tokenizers",
    "layers",
    "data",
    "cleaning",
    "models",
    "generation",
    "training",
    "evaluation",
    "convert",
    "export",
    "serving",
    "configs",
    "commands",
)
# The export is the whole contract between these and the rest of the package.
CORE_ONLY = ("serving",)
# Plain Keras: what is here runs on every backend.
BACKEND_FREE = ("ops", "layers", "models")
ASKS_BACKEND = (
    "keras_llm/ops/eight_bits.py",
    "keras_llm/ops/few_nodes.py",
    "keras_llm/ops/in_place.py",
    "keras_llm/ops/replica.py",
)

MAX_FILE_LINES = {"keras_llm": 400, "scripts": 400, "tests": 500}
MAX_FUNCTION_LINES = 50  # Without the docstring.
# "path" or "path:function" to the reason why it is longer.
LONGER = {
    "tests/serving/conftest.py:toy_module": "One class: a function per signature.",
}

HEAVY = ("tensorflow", "keras", "jax", "keras_hub", "tokenizers", "numpy")


def source_files(*folders: str) -> list[pathlib.Path]:
    return sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {path: ast.parse(path.read_text("utf-8")) for path in source_files("keras_llm")}
MODULES = {module_name(path): path for path in TREES}


def imported(node: ast.AST) -> list[tuple[str, str]]:
    """Returns (module, bound name) of an import statement, submodules resolved."""
    if isinstance(node, ast.Import):
        return [(alias.name, alias.asname or "") for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, "imports are absolute"
    found = []
    for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        module = whole if whole in MODULES else str(node.module)
        found.append((module, alias.asname or alias.name))
    return found


def folder_of(module: str) -> str | None:
    """Returns the sub-package that a module lies in, None for foreign ones."""
    parts = module.split(".")
    return parts[1] if parts[0] == "keras_llm" and len(parts) > 1 else None


def every_import(path: pathlib.Path) -> list[tuple[str, str]]:
    return [pair for node in ast.walk(TREES[path]) for pair in imported(node)]


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_folders_are_ranked():
    folders = {
        path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()
    }
    assert folders == set(RANKED)


def test_imports_point_to_equal_or_earlier_folders():
    wrong = []
    for path in TREES:
        own = folder_of(module_name(path))
        for module, _ in every_import(path):
            other = folder_of(module)
            if own is None or other is None:
                continue
            later = RANKED.index(other) > RANKED.index(own)
            if later or (own in CORE_ONLY and other not in ("core", own)):
                wrong.append(f"{relative(path)} imports {module}")
    assert not wrong


def test_modules_import_without_cycles():
    graph = {
        module_name(path): {
            module
            for node in ast.walk(tree)
            for module, _ in imported(node)
            if module in MODULES
        }
        for path, tree in TREES.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())


def test_plain_keras_folders_ask_no_backend():
    wrong = [
        f"{relative(path)} imports {module}"
        for path in source_files(*(f"keras_llm/{name}" for name in BACKEND_FREE))
        for module, _ in every_import(path)
        if module.split(".")[0] in ("tensorflow", "tensorflow_text", "jax", "torch")
        and relative(path) not in ASKS_BACKEND
    ]
    assert not wrong


def test_only_public_interfaces_of_libraries():
    wrong = [
        f"{relative(path)} imports {module}"
        for path in TREES
        for module, _ in every_import(path)
        if module.startswith(("keras.src", "tensorflow.python", "keras_hub.src"))
    ]
    assert not wrong


def test_nothing_private_crosses_folders():
    wrong = []
    for path, tree in TREES.items():
        own = folder_of(module_name(path))
        foreign = set()
        for module, name in every_import(path):
            if folder_of(module) in (None, own):
                continue
            foreign.add(name)
            if any(is_private(part) for part in [*module.split("."), name]):
                wrong.append(f"{relative(path)} imports {module}: {name}")
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in foreign
                and is_private(node.attr)
            ):
                wrong.append(f"{relative(path)} reads {node.value.id}.{node.attr}")
    assert not wrong


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_no_module_is_a_drawer():
    drawers = {"utils", "util", "helpers", "misc", "common"}
    found = [
        relative(path) for path in TREES if drawers & set(path.with_suffix("").parts)
    ]
    assert not found


def lengths(path: pathlib.Path) -> dict[str, int]:
    """Returns the lines of a file and of each of its functions."""
    text = path.read_text("utf-8")
    found = {relative(path): text.count("\n")}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            found[f"{relative(path)}:{node.name}"] = lines
    return found


def test_files_and_functions_are_short():
    long = {
        name: lines
        for folder, most in MAX_FILE_LINES.items()
        for path in source_files(folder)
        for name, lines in lengths(path).items()
        if lines > (MAX_FUNCTION_LINES if ":" in name else most)
    }
    assert {name: long[name] for name in long if name not in LONGER} == {}
    assert set(LONGER) <= set(long), "an excused length that is no longer needed"


@pytest.mark.parametrize("folder", RANKED)
def test_public_names_exist_and_say_what_they_are(folder):
    package = importlib.import_module(f"keras_llm.{folder}")
    assert package.__doc__
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            # A dataclass without a docstring is given its signature as one.
            own = value.__doc__ or ""
            assert own and not own.startswith(f"{name}("), f"keras_llm.{folder}.{name}"


def test_importing_the_package_is_light():
    run_python("import keras_llm, sys", *HEAVY)


def test_a_sub_package_is_imported_when_named():
    run_python("import keras_llm, sys; keras_llm.core.Config", "tensorflow", "keras")


def verbs() -> list[str]:
    return sorted(path.stem for path in (PACKAGE / "commands").glob("[a-z]*.py"))


def test_every_verb_has_a_script():
    assert sorted(path.stem for path in (ROOT / "scripts").glob("*.py")) == verbs()


@pytest.mark.parametrize("verb", verbs())
def test_help_answers_without_importing_anything_heavy(verb):
    script = ROOT / "scripts" / f"{verb}.py"
    assert len(script.read_text("utf-8").splitlines()) <= 15
    shown = run_python(
        f"""
import runpy, sys
sys.argv = [{str(script)!r}, "--help"]
try:
    runpy.run_path({str(script)!r}, run_name="__main__")
except SystemExit as end:
    assert end.code == 0
""",
        "tensorflow",
        "keras",
        "jax",
        "keras_hub",
    )
    module = TREES[PACKAGE / "commands" / f"{verb}.py"]
    assert ast.get_docstring(module).splitlines()[0] in shown
    assert "\n  --" in shown, "the verb's flags are listed"


def test_the_command_lists_every_verb():
    shown = run_python(
        "import sys; sys.argv = ['keras-llm', '--help']\n"
        "from keras_llm import commands\n"
        "try: commands.run()\n"
        "except SystemExit: pass"
    )
    for verb in verbs():
        assert f"\n  {verb} " in shown


def run_python(code: str, *unwanted: str) -> str:
    """Returns what `code` prints in a fresh process that imports no `unwanted`."""
    check = (
        f"\nimport sys; print('HEAVY', sorted(set({unwanted!r}) & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code + check],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "HEAVY []" in result.stdout, result.stdout
    return result.stdout
