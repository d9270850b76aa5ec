"""What is imported is declared, what is declared is pinned, pins carry digests."""

import ast
import configparser
import importlib.metadata
import pathlib
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+) \\$", re.MULTILINE)

# A folder of programs that write reference answers with other libraries.
MAKERS = "golden"
# Declared, yet not imported by name.
FOR_OTHERS = {
    "keras-nlp": "its backbones are what many users have",
    "tensorboard": "tf.summary writes events through it",
}


def declared() -> dict[str, list[Requirement]]:
    """Returns the requirements by extra; "" is what is always installed."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    groups = {"": config["options"]["install_requires"]}
    groups.update(config["options.extras_require"])
    return {
        extra: [
            Requirement(line)
            for line in lines.splitlines()
            if line and not line.startswith("#")
        ]
        for extra, lines in groups.items()
    }


def names(*extras: str) -> set[str]:
    every = declared()
    return {canonicalize_name(item.name) for extra in extras for item in every[extra]}


def imported_distributions(folder: str, *own: str) -> dict[str, str]:
    """Returns the distributions that a folder imports, but its `own`, and where."""
    owners = importlib.metadata.packages_distributions()
    found = {}
    for path in (ROOT / folder).rglob("*.py"):
        if path.parent.name == MAKERS:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top in own:
                    continue
                where = path.relative_to(ROOT).as_posix()
                assert top in owners, f"{where} imports {top}, which the lock lacks"
                found[canonicalize_name(owners[top][0])] = where
    return found


def test_the_package_imports_what_it_requires():
    found = imported_distributions("keras_llm", "keras_llm")
    # keras-nlp brings keras-hub.
    known = names("", "corpus", "gguf", "metrics", "plot") | {"keras-hub"}
    assert {name: found[name] for name in found.keys() - known} == {}
    assert names("") - found.keys() == set(FOR_OTHERS)


def test_the_tests_import_what_their_extras_require():
    found = imported_distributions("tests", "tests", "keras_llm", "benchmarks")
    # pytest brings packaging.
    missing = (
        found.keys()
        - names("", "test", "corpus", "gguf", "jax", "metrics", "plot", "search")
        - {"packaging", "keras-hub"}
    )
    assert {name: found[name] for name in missing} == {}


def lock() -> str:
    return (ROOT / "requirements.lock").read_text("utf-8")


@pytest.mark.parametrize(
    "extra", ["", "test", "dev", "corpus", "gguf", "jax", "metrics", "plot", "search"]
)
def test_the_lock_satisfies_every_requirement(extra):
    pins = {match["name"]: match["version"] for match in PIN.finditer(lock())}
    for item in declared()[extra]:
        version = pins[canonicalize_name(item.name)]
        assert item.specifier.contains(version), f"{item} is pinned at {version}"


def test_the_lock_holds_pins_with_digests_and_nothing_else():
    kinds = re.compile(
        r"^(#.*|[a-z0-9-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?|    # via .*|)$"
    )
    lines = lock().splitlines()
    assert [line for line in lines if not kinds.match(line)] == []
    for match in PIN.finditer(lock()):
        following = lock()[match.end() :].lstrip("\n")
        assert following.startswith("    --hash="), match["name"]
