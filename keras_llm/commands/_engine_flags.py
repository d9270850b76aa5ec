"""The flags of the verbs that work on many files at once, adopted by each."""

import logging

from absl import flags

from keras_llm.commands import _idle_flags

_ENGINE = flags.DEFINE_enum(
    "engine",
    "local",
    ["local", "dask"],
    "What runs the work: processes of this machine, or Dask.",
)
_PROCESSES = flags.DEFINE_integer(
    "processes", 1, "How many processes work, on this machine."
)
_SCHEDULER = flags.DEFINE_string(
    "scheduler",
    None,
    "With --engine=dask, a running cluster's, such as tcp://10.0.0.1:8786; by default "
    "Dask starts workers here.",
)


def given():
    """Returns the engine that the flags name, or None for this process alone.

    Raises:
        absl.app.UsageError: A flag that would change nothing.
    """
    from keras_llm import data

    if _ENGINE.value == "local":
        _idle_flags.refuse([_SCHEDULER], "with --engine=local")
        alone = _PROCESSES.value == 1
        return None if alone else data.Local(_PROCESSES.value)
    if _SCHEDULER.value is not None:
        _idle_flags.refuse([_PROCESSES], "where a cluster is running")
    # It tells of every worker that comes and goes.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    return data.Dask(_SCHEDULER.value, _PROCESSES.value)
