"""Lists and compares runs: `runs [FOLDER ...]`, by default those below runs/.

The best validation loss comes first. --compare shows the fields of the configs that
differ, --plot draws the losses of all of them.

Examples: python scripts/runs.py
    python scripts/runs.py runs/whale runs/wide --compare --plot=losses.png
"""

import json
import math

from absl import app, flags

from keras_llm.commands import _run_rows, _table
from keras_llm.core.run_plots import plot_runs

USES_TENSORFLOW = False

_JSON = flags.DEFINE_bool("json", False, "Print one JSON object a line.")
_COMPARE = flags.DEFINE_bool(
    "compare", False, "Show the config fields that differ as well."
)
_PLOT = flags.DEFINE_string("plot", None, "File to draw the losses to, a PNG.")


def main(argv: list[str]) -> None:
    """Reads the folders and prints a table."""
    folders = argv[1:] or ["runs"]
    runs = _run_rows.find_runs(folders)
    if not runs:
        raise app.UsageError(
            f"No run lies at or below {', '.join(folders)}. Give the folder of a run, "
            "or one that holds some."
        )
    rows = sorted(
        map(_run_rows.row, runs),
        key=lambda row: math.inf if row["best"] is None else row["best"],
    )
    if _JSON.value:
        print("\n".join(json.dumps(row) for row in rows))
    else:
        print(_table.table(_without_empty_columns(rows)))
    if _COMPARE.value:
        fields = _run_rows.differing(runs)
        print()
        print(_table.table(fields) if fields else "The configs are alike.")
    if _PLOT.value:
        lines = {str(run.folder): run.lines for run in runs}
        if not plot_runs(lines, _PLOT.value):
            raise app.UsageError(
                "A plot needs matplotlib, which is not installed: pip install "
                "keras_llm[plot]."
            )


def _without_empty_columns(rows):
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return [{name: row[name] for name in names} for row in rows]
