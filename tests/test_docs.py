"""The documentation is true: links resolve, examples run, flags exist.

- A fenced `python` block runs; a page's blocks share one namespace, in order.
- A `bash test` block runs; a page's blocks share one scratch copy of the repository.
- Any other `bash` block is read: each command of ours must exist with its flags.
- The page of the config's fields is what its script makes of the dataclasses now.
"""

import dataclasses
import itertools
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
import typing

import pytest
import yaml

from keras_llm import training
from keras_llm.core import Config
from tests import forked
from tests.repository import look_like_the_repository

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

FENCE = re.compile(r"^```(?P<tag>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(?P<title>.+?) *$", re.MULTILINE)
OURS = re.compile(r"(?:python scripts/(?P<script>\w+)\.py|keras-llm (?P<verb>\w+))")
FLAG = re.compile(r"^--(?P<name>[^=]+)")


def page_id(page: pathlib.Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: pathlib.Path, *tags: str) -> list[str]:
    found = FENCE.finditer(page.read_text("utf-8"))
    return [match["body"] for match in found if match["tag"].strip() in tags]


def pages_with(*tags: str):
    pages = [page for page in PAGES if blocks(page, *tags)]
    return pytest.mark.parametrize("page", pages, ids=page_id)


def anchors(page: pathlib.Path) -> set[str]:
    """Returns the anchors that GitHub gives a page's headings."""
    text = FENCE.sub("", page.read_text("utf-8"))
    titles = [match["title"].lower() for match in HEADING.finditer(text)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_resolve(page):
    broken = []
    for match in LINK.finditer(FENCE.sub("", page.read_text("utf-8"))):
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            continue
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(match["target"])
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_fences_say_what_they_are(page):
    known = {"", "python", "bash", "bash test", "json", "text", "ini"}
    tags = {match["tag"] for match in FENCE.finditer(page.read_text("utf-8"))}
    assert tags <= known


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    linked = {match["target"] for match in LINK.finditer(index)}
    pages = {
        path.relative_to(ROOT / "docs").as_posix()
        for path in PAGES
        if "docs" in path.parts
    }
    wanted = {page for page in pages if "decisions/0" not in page} - {"README.md"}
    assert wanted <= linked


def test_every_decision_is_in_its_index():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    linked = {match["target"] for match in LINK.finditer(index)}
    assert linked == {path.name for path in folder.glob("0*.md")}


def dotted_fields(prefix, config, nested):
    """Returns the names of a config's fields, of configs within it too if asked."""
    found = []
    for name, hint in typing.get_type_hints(config).items():
        if name not in {field.name for field in dataclasses.fields(config)}:
            continue
        found.append(prefix + name)
        for kind in typing.get_args(hint):
            if nested and isinstance(kind, type) and issubclass(kind, Config):
                found += dotted_fields(f"{prefix}{name}.", kind, nested)
    return found


def test_the_configuration_page_is_up_to_date():
    from keras_llm import data, models, training

    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    made = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))["page"]()
    assert page == made, "Run `python docs/make_configuration.py`."
    configs = [
        ("", training.Experiment),
        ("tokenizer.", training.TokenizerConfig),
        ("data.", data.DataConfig),
        ("train.", training.TrainConfig),
        ("train.groups.", training.ParameterGroup),
        *(("adapter.", each) for each in (models.AdapterConfig, models.PromptConfig)),
        *(("task.", each) for each in training.TASKS.values()),
        *(("model.", each.config) for each in models.ARCHITECTURES.values()),
    ]
    listed = [
        name
        for prefix, config in configs
        for name in dotted_fields(prefix, config, nested=prefix == "model.")
    ]
    rows = re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(listed)


@pages_with("python")
def test_python_examples_run(page, tmp_path):
    (tmp_path / "page.py").write_text("\n".join(blocks(page, "python")))
    done = forked.run(tmp_path / "page.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pages_with("bash test")
def test_shell_examples_run(page, tmp_path):
    look_like_the_repository(tmp_path)
    run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks(page, "bash test"))],
        tmp_path,
    )


@pages_with("bash", "bash test")
def test_commands_have_the_flags_that_are_shown(page):
    unknown = []
    for body in blocks(page, "bash", "bash test"):
        for line in body.replace("\\\n", " ").splitlines():
            match = OURS.search(line)
            if match is None:
                continue
            verb = match["script"] or match["verb"]
            words = shlex.split(line[match.end() :], comments=True)
            for before, word in itertools.pairwise(["", *words]):
                # What follows `--` is a verb that this one runs, and its flags.
                verb = word if before == "--" else verb
                shown, flag = verb_flags(verb), FLAG.match(word)
                # A dotted flag overrides a field, which the command itself checks.
                if flag and "." not in flag["name"] and flag["name"] not in shown:
                    unknown.append(f"{verb} {word}")
    assert not unknown


def test_a_slurm_script_can_be_read_and_its_flags_exist():
    script = ROOT / "docs" / "examples" / "slurm.sh"
    run(["bash", "-n", str(script)], ROOT)
    check_train_flags(script.read_text("utf-8").partition("keras-llm train")[2])


@pytest.mark.parametrize(
    ("status", "restarts", "again"),
    [(75, 9, True), (69, 9, True), (137, 5, True), (137, 6, False), (1, 0, False)]
    + [(0, 0, False)],
)
def test_a_slurm_job_is_queued_again_where_that_helps(
    status, restarts, again, tmp_path
):
    for name, line in (("srun", f"exit {status}"), ("scontrol", 'echo "$@" >> asked')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "docs" / "examples" / "slurm.sh")],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": str(restarts),
        },
    )
    assert done.returncode == status
    asked = tmp_path / "asked"
    assert asked.exists() == again
    assert not again or asked.read_text() == "requeue 7\n"


def test_a_kubernetes_job_is_read_and_its_flags_exist():
    manifest = ROOT / "docs" / "examples" / "kubernetes_job.yaml"
    service, job = yaml.safe_load_all(manifest.read_text("utf-8"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    check_train_flags(container["args"][0])
    hosts = re.search(r"--worker_hosts=(\S+)", container["args"][0])[1].split(",")
    name, port = job["metadata"]["name"], container["ports"][0]["containerPort"]
    wanted = range(job["spec"]["completions"])
    # A pod of an Indexed Job is found as JOB-INDEX.SUBDOMAIN.
    assert hosts == [f"{name}-{i}.{service['metadata']['name']}:{port}" for i in wanted]
    ignored, disrupted, failing = job["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget"}]
    statuses = [training.LOST_WORKER, training.EXIT_CODE]
    assert ignored["onExitCodes"]["values"] == statuses
    assert failing["onExitCodes"]["values"] == [1]


def check_train_flags(command):
    words = [word for word in command.split() if word.startswith("--")]
    assert words
    for word in words:
        assert FLAG.match(word)["name"] in verb_flags("train")


KNOWN: dict[str, set[str]] = {}


def verb_flags(verb: str) -> set[str]:
    """Returns the names of a verb's flags, as its --help lists them."""
    if verb not in KNOWN:
        script = ROOT / "scripts" / f"{verb}.py"
        assert script.exists(), f"no command {verb}"
        shown = subprocess.run(
            [sys.executable, str(script), "--help"], capture_output=True, text=True
        ).stdout
        names = re.findall(r"^ +(?:-\w,)?--(\[no\])?(\w+):", shown, re.MULTILINE)
        KNOWN[verb] = {name for _, name in names} | {
            f"no{name}" for negatable, name in names if negatable
        }
    return KNOWN[verb]


def run(command: list[str], folder: pathlib.Path) -> None:
    """Runs a command where `python` and `keras-llm` are those of this run."""
    path = os.pathsep.join(
        [str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
    )
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
