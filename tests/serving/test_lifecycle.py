import concurrent.futures
import http.client
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from keras_llm.core.folders import write_manifest
from keras_llm.core.prediction_log import WARMUP_PATH, write_warmup
from keras_llm.serving import ServerOptions, serve

FOREVER = 2**31 - 1  # Steps of `spin`.


@pytest.fixture(scope="module")
def changing(tmp_path_factory, write_version, start_server):
    """A server with few places, whose versions the tests below change."""
    base = tmp_path_factory.mktemp("changing") / "toy"
    base.mkdir()
    write_version(base, 1)
    with start_server(
        base,
        "--rest_api_num_threads=1",
        "--max_waiting_requests=1",
        "--rest_api_timeout_in_ms=3000",
        "--file_system_poll_wait_seconds=0.1",
    ) as started:
        yield started


def spin(server, steps):
    return server.ask(
        "/v1/models/toy:predict", {"signature_name": "spin", "instances": [steps]}
    )


def steps_of_half_a_second(server):
    steps, taken = 500, 0.0
    while taken < 0.5:
        steps *= 2
        started = time.monotonic()
        assert spin(server, steps)[0] == 200
        taken = time.monotonic() - started
    return steps


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_too_late_is_504_and_too_many_is_503(changing):
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        running = threads.submit(spin, changing, FOREVER)
        time.sleep(0.5)
        waiting = threads.submit(spin, changing, FOREVER)
        time.sleep(0.5)
        status, reply, headers = spin(changing, 1)
        assert (status, headers["retry-after"]) == (503, "1"), reply
        # What is wrong is refused at once, however busy the model is.
        assert changing.predict({"instances": ["a"]})[0] == 400
        assert (running.result()[0], waiting.result()[0]) == (504, 504)
    # TensorFlow has stopped the run: the one thread is free again.
    assert changing.predict({"instances": [1]}) == (200, {"predictions": [3.5]})


def test_a_client_that_leaves_gives_its_place_back(changing):
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        running = threads.submit(spin, changing, FOREVER)
        time.sleep(0.5)
        body = '{"signature_name": "spin", "instances": [1]}'
        for _ in range(5):  # Each takes the one waiting place, and leaves.
            connection = http.client.HTTPConnection("127.0.0.1", changing.port)
            connection.request("POST", "/v1/models/toy:predict", body)
            time.sleep(0.1)
            connection.close()
            time.sleep(0.1)
        assert spin(changing, 1)[0] in (200, 504)  # It could wait.
        assert running.result()[0] == 504


def test_versions_change_without_a_failed_request(changing, write_version):
    replies, done = [], threading.Event()

    def ask():
        while not done.is_set():
            status, versions = changing.column("which", x=[0, 0])
            replies.append((status, *versions))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    for name in ("other", ".9.tmp", "9.5", "-9"):
        (changing.base / name).mkdir()
    (changing.base / "99").touch()
    for version in (2, 3):
        write_version(changing.base, version)
        wait_for(lambda v=version: replies[-1] == (200, v, v))
    broken = changing.base / "4"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"\x0a\xff junk")
    wait_for(lambda: changing.versions().get("4", {}).get("state") == "END")
    assert replies[-1] == (200, 3, 3)
    write_version(changing.base, 5)
    wait_for(lambda: replies[-1] == (200, 5, 5))
    done.set()
    for thread in asking:
        thread.join()
    # One thread per list would be sorted; two may overtake each other at a change.
    assert {reply[0] for reply in replies} == {200}
    assert {reply[1:] for reply in replies} == {(v, v) for v in (1, 2, 3, 5)}
    states = {number: entry["state"] for number, entry in changing.versions().items()}
    assert states["5"] == "AVAILABLE"
    assert states["4"] == "END"
    assert "saved_model.pb" in changing.versions()["4"]["status"]["error_message"]
    assert str(changing.base) not in str(changing.versions())
    wait_for(lambda: changing.versions()["1"]["state"] == "END")
    # A broken version is tried again when it changes, and the folder's removal is
    # the way back.
    shutil.rmtree(broken)
    shutil.rmtree(changing.base / "5")
    wait_for(lambda: changing.column("which", x=[0]) == (200, [3]))


def test_a_request_ends_on_the_version_it_began_on(changing, write_version):
    steps = 2 * steps_of_half_a_second(changing)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        running = threads.submit(spin, changing, steps)
        time.sleep(0.2)
        write_version(changing.base, 6)
        wait_for(lambda: changing.versions().get("6", {}).get("state") == "AVAILABLE")
        assert running.result()[:2] == (200, {"predictions": [steps]})


def test_sigterm_finishes_what_has_begun(tmp_path, write_version, start_server_anew):
    base = tmp_path / "toy"
    base.mkdir()
    write_version(base, 1)
    with start_server_anew(base) as server:
        steps = 4 * steps_of_half_a_second(server)
        idle = http.client.HTTPConnection("127.0.0.1", server.port)
        idle.request("GET", "/readyz")
        assert idle.getresponse().read() == b"ok\n"
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            running = threads.submit(spin, server, steps)
            time.sleep(0.3)
            assert not running.done()
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not listens(server.port))
            assert running.result()[:2] == (200, {"predictions": [steps]})
        with pytest.raises((http.client.HTTPException, OSError)):
            idle.request("GET", "/readyz")
            idle.getresponse()
        idle.close()
        assert server.process.wait(timeout=60) == 0
        assert "Traceback" not in server.stderr.read_text()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def version_1(tmp_path, write_version):
    base = tmp_path / "toy"
    base.mkdir()
    return write_version(base, 1)


def refusal(folder, **options):
    """Returns why a server does not start."""
    with pytest.raises((ValueError, OSError)) as caught:
        serve(ServerOptions(model_base_path=str(folder), rest_api_port=0, **options))
    return str(caught.value)


def test_no_version_to_begin_with(tmp_path):
    assert "must be a folder" in refusal(tmp_path / "absent")
    (tmp_path / "latest").mkdir()
    assert "version number" in refusal(tmp_path)


def test_a_broken_first_version(version_1):
    graph = version_1 / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])
    assert "Version 1" in refusal(version_1.parent)
    graph.unlink()
    assert "saved_model.pb" in refusal(version_1.parent)


def test_a_file_that_differs_from_the_manifest(version_1):
    write_manifest(version_1)
    variables = version_1 / "variables" / "variables.index"
    content = bytearray(variables.read_bytes())
    content[len(content) // 2] ^= 1
    variables.write_bytes(content)
    assert "variables.index differs from its manifest" in refusal(version_1.parent)


def test_a_warm_up_request_that_fails(version_1):
    path = version_1 / WARMUP_PATH
    write_warmup(path, [("guarded", {"x": np.array([101.0], "f4")})])
    assert "Warm-up request 0 failed" in refusal(version_1.parent)
    write_warmup(path, [("absent", {"x": np.array([1.0], "f4")})])
    assert "absent" in refusal(version_1.parent)


def test_a_forbidden_op(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    module.read = tf.function(
        lambda path: {"text": tf.map_fn(tf.io.read_file, path)},
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    tf.saved_model.save(module, tmp_path / "1", signatures=module.read)
    assert "Op 'ReadFile' is not allowed" in refusal(tmp_path)


def test_a_port_that_is_taken(version_1):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ServerOptions(
            model_base_path=str(version_1.parent), rest_api_port=port
        )
        with pytest.raises(OSError, match=f"rest_api_port={port}"):
            serve(options)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_name", ""),
        ("model_name", "a/b"),
        ("rest_api_port", 65_536),
        ("rest_api_timeout_in_ms", 0),
        ("rest_api_num_threads", -1),
        ("file_system_poll_wait_seconds", float("nan")),
        ("max_batch_rows", 0),
        ("max_body_bytes", 2**40),
    ],
)
def test_options_that_make_no_sense(field, value):
    with pytest.raises(ValueError, match=field):
        ServerOptions(model_base_path="x", **{field: value})


def test_a_mistake_on_the_command_line_is_one_line(tmp_path):
    script = __file__.rpartition("/tests/")[0] + "/scripts/serve.py"
    ended = subprocess.run(
        [sys.executable, script, f"--model_base_path={tmp_path / 'absent'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "must be a folder" in ended.stderr
