"""Writes docs/results.md: what runs came to, from the records in docs/results/.

Example: python docs/make_results.py
"""

import json
import pathlib
from typing import Any

FOLDER = pathlib.Path(__file__).with_name("results")
PAGE = pathlib.Path(__file__).with_name("results.md")

_HEAD = """# Results of runs

Every row was written by `python benchmarks/record_result.py` from the run's folder, and
this page by `python docs/make_results.py` from the records in `docs/results/`. Figures
are of held-out data. Seconds are the training's, evaluations and checkpoints included.
"""


def records(folder: pathlib.Path = FOLDER) -> list[dict[str, Any]]:
    """Returns every record, by name."""
    return [
        json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    ]


def page(results: list[dict[str, Any]]) -> str:
    """Returns the whole page in Markdown: a section for each question."""
    by_question: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_question.setdefault(result["what"], []).append(result)
    sections = [_section(what, group) for what, group in by_question.items()]
    return "\n".join([_HEAD, *(sections or ["No run is on record yet.\n"])])


def _section(what: str, group: list[dict[str, Any]]) -> str:
    parts = [f"## {what}", _said(group, "data"), _table(group), _said(group, "machine")]
    notes = [f"- `{r['name']}`: {r['note']}" for r in group if r["note"]]
    parts += ["\n".join(notes)] if notes else []
    # The same command with several seeds is shown with each.
    commands = "\n".join(f"# {r['name']}\n{r['command']}" for r in group)
    return "\n\n".join([*parts, f"```bash\n{commands}\n```\n"])


def _said(group: list[dict[str, Any]], member: str) -> str:
    """Returns a member that all share in one line, else in one for each."""
    texts = [result[member] for result in group]
    if len(set(texts)) == 1:
        return f"{member.capitalize()}: {texts[0]}"
    return "\n".join(f"- {member} of `{r['name']}`: {r[member]}" for r in group)


def _table(group: list[dict[str, Any]]) -> str:
    baselines = {
        json.dumps(result["baseline"], sort_keys=True): result["baseline"]
        for result in group
        if result["baseline"]
    }
    names: dict[str, None] = {}  # In the order of their first mention.
    for scored in (*group, *baselines.values()):
        names.update(dict.fromkeys(scored["metrics"]))
    head = ["run", "config", "seed", "parameters", "steps", "seconds", *names]
    rows = [head, ["---"] * len(head)]
    for result in group:
        name = result["name"]
        rows.append(
            [
                f"[{name}](results/{name}.json)",
                f"`{pathlib.PurePath(result['config']).stem}`",
                str(result["seed"]),
                f"{result['parameters']:,}",
                f"{result['steps']:,}",
                f"{result['seconds']:,.0f}",
                *(_figure(result["metrics"].get(name)) for name in names),
            ]
        )
    for baseline in baselines.values():
        figures = (_figure(baseline["metrics"].get(name)) for name in names)
        rows.append([f"baseline: {baseline['what']}", "", "", "", "", "", *figures])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


if __name__ == "__main__":
    PAGE.write_text(page(records()), encoding="utf-8")
