"""Which strategy flags and environment lead to, and what they may not say."""

import json
import socket
import time
import urllib.error
from concurrent import futures

import pytest
import tensorflow as tf

from keras_llm.commands import launch
from keras_llm.training import arrival, strategies
from tests import forked


def tf_config(cluster, kind="worker", index=0):
    task = {"type": kind, "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


TWO = {"worker": ["a:1", "b:2"]}
WITH_CHIEF = {"chief": ["a:1"], "worker": ["b:2", "c:3"]}


@pytest.mark.parametrize(
    ("hosts", "index", "environment", "place"),
    [
        (["a:1", "b:2", "c:3"], 2, {}, 2),
        ([], None, tf_config({"worker": ["a:1", "b:2", "c:3"]}, index=1), 1),
        ([], None, tf_config({"worker": ["a:1", "b:2", "c:3"]}, index="1"), 1),
        ([], None, tf_config({"chief": ["a:1"], "worker": ["b:2", "c:3"]}), 1),
        (
            [],
            None,
            tf_config({"worker": ["b:2", "c:3"], "chief": ["a:1"]}, "chief"),
            0,
        ),
    ],
    ids=["flags", "TF_CONFIG", "index in quotes", "worker after chief", "chief"],
)
def test_workers_are_numbered_through(hosts, index, environment, place):
    resolver = strategies.cluster(hosts, index, environment)
    jobs = resolver.cluster_spec().as_dict()
    assert jobs == {"worker": ["a:1", "b:2", "c:3"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", place)


def test_slurm_names_the_workers_of_its_step(monkeypatch):
    slurm = {
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "node[7-8]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    resolver = strategies.cluster([], None, slurm)
    jobs = resolver.cluster_spec().as_dict()
    assert jobs == {"worker": ["node7:8888", "node7:8889", "node8:8888"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)


@pytest.mark.parametrize(
    "environment",
    [{}, tf_config({"worker": ["a:1"]}), {"SLURM_STEP_NUM_TASKS": "1"}],
    ids=["nothing", "TF_CONFIG of one", "Slurm's one task"],
)
def test_one_worker_is_no_cluster(environment):
    assert strategies.cluster([], None, environment) is None
    alone = strategies.choose_strategy(environment=environment)
    assert alone.num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("hosts", "index", "environment", "reason"),
    [
        (["a:1", "b"], 0, {}, r"as host:port. Received: 'b'"),
        (["a:1", "b:99999"], 0, {}, r"as host:port. Received: 'b:99999'"),
        (["a:1", " b:2"], 0, {}, "as host:port. Received: ' b:2'"),
        (["a:1", "b:2\n"], 0, {}, r"as host:port. Received: 'b:2\\n'"),
        (["grpc://a:1", "b:2"], 0, {}, "as host:port. Received: 'grpc://a:1'"),
        (["a:1", "b:٢"], 0, {}, "as host:port. Received: 'b:٢'"),
        (["a:1", "b:0"], 0, {}, "as host:port. Received: 'b:0'"),
        (["a:1", "::1:2"], 0, {}, "as host:port. Received: '::1:2'"),
        (["a:1", ":2"], 0, {}, "as host:port. Received: ':2'"),
        (["a:1", "a:1"], 0, {}, "lists each worker once"),
        (["a:1", "b:2"], None, {}, "needs to know its place .* Received: None"),
        (["a:1", "b:2"], 2, {}, "Received: 2 of 2 workers"),
        (["a:1", "b:2"], -1, {}, "Received: -1 of 2 workers"),
        ([], 1, {}, "Received: 1 of 0 workers"),
        (["a:1", "b:2"], 0, tf_config(TWO), "Workers are named once"),
        ([], None, {"TF_CONFIG": "{"}, "TF_CONFIG is a JSON object"),
        ([], None, {"TF_CONFIG": "[]"}, "TF_CONFIG is a JSON object"),
        ([], None, {"TF_CONFIG": '{"cluster": {}}'}, "KeyError: 'task'"),
        ([], None, tf_config(TWO, "ps"), "Received: 'ps'"),
        ([], None, tf_config(TWO, "evaluator"), "Received: 'evaluator'"),
        ([], None, tf_config({**TWO, "ps": ["c:3"]}), "Received: 'ps'"),
        ([], None, tf_config(TWO, index=2), "Received: 2 of 2 workers"),
        ([], None, tf_config(TWO, index=True), "Received: True"),
        ([], None, tf_config(TWO, ["worker"]), "TF_CONFIG is a JSON object"),
        ([], None, tf_config(WITH_CHIEF, index=-1), "Received: -1 of 2"),
        ([], None, tf_config(WITH_CHIEF, "chief", 1), "Received: 1 of 1"),
        ([], None, {"SLURM_STEP_NUM_TASKS": "x"}, "is a number. Received: 'x'"),
        ([], None, {"SLURM_STEP_NUM_TASKS": ""}, "is a number. Received: ''"),
        ([], None, {"SLURM_STEP_NUM_TASKS": "2"}, "without SLURM_PROCID"),
        ([], None, tf_config({"worker": ["a:1", 7]}), "Received: 7"),
    ],
)
def test_a_cluster_that_cannot_be_right_is_refused(hosts, index, environment, reason):
    with pytest.raises(ValueError, match=reason):
        strategies.cluster(hosts, index, environment)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kind": "parameter_server"}, "not supported: its replicas do not step"),
        ({"kind": "central_storage"}, "not supported: it gives wrong figures"),
        ({"kind": "keras_distribution"}, "not supported: Keras ignores it"),
        ({"kind": "mirored"}, "Received: strategy='mirored'"),
        ({"kind": "multi_worker"}, "neither --worker_hosts, TF_CONFIG nor Slurm"),
        ({"kind": "tpu"}, "no TPU_NAME"),
        ({"kind": "mirrored"}, "a machine with 0 GPUs"),
        ({"kind": "one", "cpu_replicas": 2}, "cpu_replicas=2, strategy 'one'"),
        ({"cpu_replicas": 0}, "`cpu_replicas`"),
        ({"kind": "one", "environment": tf_config(TWO)}, "they train together"),
        ({"cpu_replicas": 2, "environment": tf_config(TWO)}, "strategy 'multi_worker'"),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused(monkeypatch, options, reason):
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind: [] if kind == "GPU" else [1]
    )
    with pytest.raises(ValueError, match=reason):
        strategies.choose_strategy(**{"environment": {}, **options})


def test_an_address_may_be_of_ipv6():
    resolver = strategies.cluster(["[fe80::1%eth0]:2222", "10.0.0.2:65535"], 0, {})
    jobs = resolver.cluster_spec().as_dict()
    assert jobs == {"worker": ["[fe80::1%eth0]:2222", "10.0.0.2:65535"]}


def test_a_tpu_that_is_not_there_is_told_in_one_line(tmp_path):
    """In a process of its own: TensorFlow stays as the attempt leaves it."""
    script = tmp_path / "tpu.py"
    script.write_text(
        "from keras_llm.training import strategies\n"
        "try:\n"
        "    strategies.choose_strategy(environment={'TPU_NAME': 'local'})\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = forked.run(script)
    assert done.stdout.startswith("TPU_NAME names a TPU that can be reached"), done
    assert "Received: 'local' (NotFoundError: TPUs not found in" in done.stdout
    assert "Unset it" in done.stdout and done.stdout.count("\n") == 1


def test_a_tpu_whose_name_is_not_known_is_told(monkeypatch):
    def unknown(tpu):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", unknown)
    with pytest.raises(ValueError, match=r"Received: 'mine' \(URLError: .*Unset it"):
        strategies.choose_strategy(environment={"TPU_NAME": "mine"})


def test_two_workers_in_one_place_are_refused():
    """The second would end in a traceback, and the first wait for another."""
    with socket.create_server(("", 0)) as first:
        port = first.getsockname()[1]
        resolver = strategies.cluster([f"localhost:{port}", "b:2"], 0, {})
        with pytest.raises(ValueError, match=f"localhost:{port}, where a process list"):
            arrival.await_workers(resolver, 9.0)


def test_workers_wait_for_one_another(monkeypatch, caplog):
    addresses = launch.free_addresses(3)
    resolvers = [strategies.cluster(addresses, i, {}) for i in range(3)]
    monkeypatch.setattr(arrival, "_WORD_S", 0.3)
    with pytest.raises(arrival.LostWorkerError, match=f"from {addresses[2]} in 1 s"):
        # The second one is there, and the third is not.
        with socket.create_server(("127.0.0.1", int(addresses[1].split(":")[1]))):
            arrival.await_workers(resolvers[0], 1.0)
    assert f"Waiting for {addresses[2]}." in caplog.text
    with futures.ThreadPoolExecutor() as pool:
        waits = []
        for resolver in resolvers:  # One after the other, the last a while later.
            waits.append(pool.submit(arrival.await_workers, resolver, 60.0))
            time.sleep(0.5)
            assert len(waits) == 3 or not waits[0].done()
        # As the server of each takes its address when it has left.
        servers = []
        while not all(wait.done() for wait in waits):
            for wait, address in zip(waits, addresses, strict=True):
                if wait.done() and address not in [a for a, _ in servers]:
                    port = int(address.split(":")[1])
                    servers.append((address, socket.create_server(("", port))))
        assert [wait.result() for wait in waits] == [None] * 3
        for _, server in servers:
            server.close()
