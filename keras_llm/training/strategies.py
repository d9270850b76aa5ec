"""Which tf.distribute strategy a run uses, from flags and what a scheduler sets."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_llm.core import checks
from keras_llm.training.arrival import await_workers

STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu")

_REFUSED = {
    "parameter_server": "its replicas do not step together, and Keras 3 cannot fit it",
    "central_storage": "it gives wrong figures with Keras 3",
    "keras_distribution": "Keras ignores it on TensorFlow; it works on the JAX backend",
}
# What TensorFlow raises: of a machine without a TPU, of a name that it cannot look up.
_OF_NO_TPU = (tf.errors.OpError, OSError, ImportError, RuntimeError, ValueError)
# A name, an IPv4 address or an IPv6 address in brackets; digits of ASCII alone.
_ADDRESS = re.compile(r"(?:[^\s:/\[\]]+|\[[^\s/\[\]]+\]):([0-9]{1,5})")
# What else the resolver reads of a Slurm step.
_OF_SLURM = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")


def choose_strategy(
    kind: str = "auto",
    cpu_replicas: int = 1,
    worker_hosts: Sequence[str] = (),
    task_index: int | None = None,
    environment: Mapping[str, str] | None = None,
    start_timeout_s: float = 600.0,
) -> tf.distribute.Strategy:
    """Returns a strategy. Call it before anything else of TensorFlow.

    "auto" takes several workers where `worker_hosts`, `TF_CONFIG` or Slurm name them, a
    TPU where `TPU_NAME` does, else all GPUs or CPU replicas, else one device.

    Args:
        kind: One of STRATEGIES.
        cpu_replicas: Above 1, the CPU is split into so many logical devices.
        worker_hosts: `host:port` of every worker, the same list at each.
        task_index: This worker's place in the list, from 0.
        environment: Where `TF_CONFIG`, `SLURM_*` and `TPU_NAME` are looked up; None
            for the process's own.
        start_timeout_s: How long the other workers are waited for.

    Raises:
        LostWorkerError: Another worker did not come.
        ValueError: A strategy that is not supported, or one that does not fit what
            the flags, the environment or the machine say.
    """
    environment = os.environ if environment is None else environment
    if kind in _REFUSED:
        raise ValueError(
            f"Strategy {kind!r} is not supported: {_REFUSED[kind]}. Use one of "
            f"{', '.join(STRATEGIES)}."
        )
    checks.check_choice("strategy", kind, STRATEGIES)
    checks.check_positive("cpu_replicas", cpu_replicas)
    resolver = cluster(worker_hosts, task_index, environment)
    if kind == "auto":
        kind = _found(resolver, cpu_replicas, environment)
    _check_fit(kind, cpu_replicas, resolver, environment)
    if kind == "tpu":
        return _tpu(environment["TPU_NAME"])
    cpus = _split_cpu(cpu_replicas)
    if kind == "multi_worker":
        await_workers(resolver, start_timeout_s)
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    if kind == "mirrored":
        return tf.distribute.MirroredStrategy(cpus or None)
    return tf.distribute.get_strategy()


def _found(resolver: Any, cpu_replicas: int, environment: Mapping[str, str]) -> str:
    if resolver is not None:
        return "multi_worker"
    if environment.get("TPU_NAME"):
        return "tpu"
    several = cpu_replicas > 1 or len(tf.config.list_physical_devices("GPU")) > 1
    return "mirrored" if several else "one"


def _check_fit(
    kind: str, cpu_replicas: int, resolver: Any, environment: Mapping[str, str]
) -> None:
    """Raises ValueError where a named strategy contradicts the rest."""
    if kind == "multi_worker" and resolver is None:
        raise ValueError(
            "Several workers must know of one another. Received: strategy "
            "'multi_worker', but neither --worker_hosts, TF_CONFIG nor Slurm names "
            "more than one. Start one process a worker with one of them, or use "
            "`keras-llm launch`."
        )
    if kind != "multi_worker" and resolver is not None:
        raise ValueError(
            "Where several workers are named, they train together; each alone would "
            f"write the same run. Received: strategy {kind!r}, "
            f"{resolver.cluster_spec().as_dict()}. Take 'multi_worker' or 'auto'."
        )
    if kind == "tpu" and not environment.get("TPU_NAME"):
        raise ValueError(
            "A TPU is found by its name. Received: strategy 'tpu', no TPU_NAME in the "
            "environment. Set it ('local' on a TPU's own machine)."
        )
    if cpu_replicas > 1 and kind != "mirrored":
        raise ValueError(
            "CPU replicas are of strategy 'mirrored'. Received: "
            f"cpu_replicas={cpu_replicas}, strategy {kind!r}. Leave one of them out."
        )
    gpus = len(tf.config.list_physical_devices("GPU"))
    if kind == "mirrored" and cpu_replicas == 1 and gpus < 2:
        raise ValueError(
            "Replicas need a device each. Received: strategy 'mirrored' on a machine "
            f"with {gpus} GPUs. Take strategy 'one', or --cpu_replicas=2 to try "
            "replicas on the CPU."
        )


def _split_cpu(replicas: int) -> list[str]:
    """Makes logical devices of the CPU; returns their names, none for one."""
    if replicas == 1:
        return []
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * replicas,
    )
    return [f"CPU:{i}" for i in range(replicas)]


def _tpu(name: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except _OF_NO_TPU as error:
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(
            "TPU_NAME names a TPU that can be reached from here. Received: "
            f"{name!r} ({type(error).__name__}: {reason}). Unset it where there is no "
            "TPU; on a TPU's own machine set it to 'local'."
        ) from error


def cluster(
    worker_hosts: Sequence[str],
    task_index: int | None,
    environment: Mapping[str, str],
) -> Any:
    """Returns the resolver of several workers, or None where there is one.

    Its workers are numbered through, a chief first.

    Args:
        worker_hosts: As in `choose_strategy`.
        task_index: Likewise.
        environment: Likewise.

    Raises:
        ValueError: They are named in a way that cannot be right.
    """
    if worker_hosts or task_index is not None:
        if environment.get("TF_CONFIG"):
            raise ValueError(
                "Workers are named once. Received: --worker_hosts or --task_index "
                "beside TF_CONFIG. Leave one of them out."
            )
        return _resolver_of(list(worker_hosts), task_index, "--worker_hosts")
    if environment.get("TF_CONFIG"):
        return _resolver_of_tf_config(environment["TF_CONFIG"])
    tasks = _slurm_tasks(environment)
    if tasks > 1:
        # Slurm gives each task its GPUs (--gpus-per-task): what is seen is its own. The
        # resolver wants numbers that are not zero, and uses them to number the tasks.
        return tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=tasks,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
    return None


def _slurm_tasks(environment: Mapping[str, str]) -> int:
    """Returns the tasks of the Slurm step that this process is one of; 1 without.

    Raises:
        ValueError: What Slurm sets is not all there, or no number.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if not (tasks.isascii() and tasks.isdecimal()):
        raise ValueError(
            "SLURM_STEP_NUM_TASKS is a number. Received: "
            f"{tasks!r}. Start the workers by srun, or unset it."
        )
    missing = [name for name in _OF_SLURM if name not in environment]
    if int(tasks) > 1 and missing:
        raise ValueError(
            "Slurm's step is told by "
            f"SLURM_STEP_NUM_TASKS, {', '.join(_OF_SLURM)}. Received: {tasks} tasks, "
            f"without {', '.join(missing)}. Start the workers by srun, or unset it."
        )
    return int(tasks)


def _resolver_of(hosts: list[str], index: Any, source: str) -> Any:
    for host in hosts:
        found = _ADDRESS.fullmatch(host) if isinstance(host, str) else None
        if not found or not 0 < int(found[1]) < 65_536:
            raise ValueError(
                f"{source} lists each worker as host:port. Received: {host!r}. Write "
                "for instance 'node1:2222', without spaces and without 'grpc://'; an "
                "address of IPv6 in brackets."
            )
    if len(set(hosts)) != len(hosts):
        raise ValueError(
            f"{source} lists each worker once. Received: {hosts}. Give each an address "
            "of its own."
        )
    _check_place(index, len(hosts), source)
    if len(hosts) == 1:
        return None
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": hosts}),
        task_type="worker",
        task_id=index,
        rpc_layer="grpc",
    )


def _check_place(index: Any, number: int, source: str) -> None:
    """Raises ValueError unless a place is one of so many, from 0."""
    if not isinstance(index, int) or isinstance(index, bool):
        raise ValueError(
            f"A worker needs to know its place in {source}, from 0. Received: "
            f"{index!r}. Give each process its own."
        )
    if not 0 <= index < number:
        raise ValueError(
            f"A worker's place in {source} lies from 0 to the number of workers - 1. "
            f"Received: {index} of {number} workers. Give each process its own."
        )


def _resolver_of_tf_config(text: str) -> Any:
    """Returns the resolver of TF_CONFIG's workers; None of one."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index = task["type"], task["index"]
        jobs = {name: list(hosts) for name, hosts in cluster.items()}
        unknown = sorted(set(jobs) - {"chief", "worker"} | {kind} - set(jobs))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "TF_CONFIG is a JSON object like {'cluster': {'worker': ['a:2222', "
            "'b:2222']}, 'task': {'type': 'worker', 'index': 0}}. Received: "
            f"{text[:200]!r} ({type(error).__name__}: {error}). Mend or unset it."
        ) from error
    if unknown:
        raise ValueError(
            "In TF_CONFIG the kinds 'chief' and 'worker' train together, and the task "
            f"is one of the cluster. Received: {unknown[0]!r}. There are no parameter "
            "servers and no evaluators here: leave them out."
        )
    if isinstance(index, str) and index.isdecimal():
        index = int(index)  # As some operators write it.
    hosts = jobs.get("chief", []) + jobs.get("worker", [])
    _check_place(index, len(jobs[kind]), f"TF_CONFIG's {kind!r}")
    if kind == "worker":
        index += len(jobs.get("chief", []))
    return _resolver_of(hosts, index, "TF_CONFIG")
