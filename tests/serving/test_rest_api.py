import concurrent.futures
import gzip
import http.client
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PREDICT = "/v1/models/toy:predict"


def error_of(server, body, path=PREDICT, **headers):
    status, reply, _ = server.ask(path, body, **headers)
    assert set(reply) == {"error"}, reply
    return status, reply["error"]


def test_row_format_of_one_input(server):
    assert server.predict({"instances": [1, 2, 5]}) == (
        200,
        {"predictions": [3.5, 4.0, 5.5]},
    )
    assert server.predict({"instances": [{"x": 1}]})[1] == {"predictions": [3.5]}


def test_column_format_of_one_input(server):
    assert server.predict({"inputs": {"x": [1, 2]}})[1] == {"outputs": [3.5, 4.0]}
    assert server.predict({"inputs": [7]})[1] == {"outputs": [6.5]}
    assert server.predict({"inputs": []}) == (200, {"outputs": []})


def test_row_and_column_format_of_several_inputs(server):
    rows = [
        {
            "flag": i == 0,
            "count": 10 * i,
            "pair": [i, -i],
            "small": 255 - i,
            "ratio": 1 / 3 + i,
            "word": "añ😀"[: i + 1],
        }
        for i in range(3)
    ]
    expected = [
        {**row, "flag": not row["flag"], "count": row["count"] + 1} for row in rows
    ]
    request = {"signature_name": "types", "instances": rows}
    assert server.predict(request) == (200, {"predictions": expected})
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    status, outputs = server.column("types", **columns)
    assert status == 200
    assert outputs == {name: [row[name] for row in expected] for name in rows[0]}


def test_strings_travel_as_text_and_as_base64(server):
    body = {"signature_name": "echo", "instances": ["é\n", {"b64": "/w=="}, ""]}
    status, reply = server.predict(body)
    assert status == 200
    assert reply["predictions"] == [
        {"text": "é\n", "raw_bytes": {"b64": "w6kK"}, "length": 3},
        {"text": "\ufffd", "raw_bytes": {"b64": "/w=="}, "length": 1},
        {"text": "", "raw_bytes": {"b64": ""}, "length": 0},
    ]


def test_numbers_are_written_as_tf_serving_does(server):
    values = [0.1, 1 / 3, 1e20, 9_000_000, -0.0, 16_777_215, 1e-5]
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    body = b'{"signature_name": "guarded", "inputs": [%s, -Infinity]}'
    scaled = b", ".join(b"%r" % -value for value in values)
    connection.request("POST", PREDICT, body % scaled)
    text = connection.getresponse().read().decode()
    connection.close()
    assert "".join(text.split()) == (
        '{"outputs":[-0.1,-0.333333343,-1e+20,-9e+06,0.0,-16777215.0,-1e-05,-Infinity]}'
    )


def test_nan_and_infinities_are_values_of_floats(server):
    status, reply = server.predict(b'{"inputs": [NaN, Infinity, -Infinity]}')
    assert status == 200
    np.testing.assert_array_equal(reply["outputs"], [np.nan, np.inf, -np.inf])


def test_status_and_metadata(server):
    expected = {
        "version": "123",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path in ("/v1/models/toy", "/V1/Models/toy/versions/123"):
        assert server.ask(path)[:2] == (200, {"model_version_status": [expected]})
    status, reply, _ = server.ask("/v1/models/toy/metadata")
    assert status == 200
    assert reply["model_spec"] == {
        "name": "toy",
        "signature_name": "",
        "version": "123",
    }
    signatures = reply["metadata"]["signature_def"]["signature_def"]
    x = signatures["serving_default"]["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert x["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]
    assert signatures["echo"]["method_name"] == "tensorflow/serving/predict"
    assert set(signatures["types"]["outputs"]) == {
        *("flag", "count", "pair", "small", "ratio", "word")
    }


def test_health_and_metrics(server):
    assert server.ask("/livez")[:2] == (200, "ok\n")
    assert server.ask("/readyz")[:2] == (200, "ok\n")
    server.predict({"instances": [1]})
    status, text, headers = server.ask("/monitoring/prometheus/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    count = ':tensorflow:serving:request_count{model_name="toy",status="OK"}'
    total = ':tensorflow:serving:request_latency_count{model_name="toy",'
    assert int(figures[count]) >= 1
    assert any(name.startswith(total) for name in figures)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/models/toy/versions/9:predict", {}, 404, "Specific(toy, 9)"),
        ("/v1/models/zzz:predict", {"instances": [1]}, 404, "Latest(zzz)"),
        ("/v1/models/zzz", None, 404, "Could not find any versions of model zzz"),
        ("/v1/models/toy/versions/9", None, 404, "Could not find version 9"),
        ("/v1/models/toy/labels/stable:predict", {}, 400, "label: stable"),
        ("/v1/models/toy/versions/" + "9" * 30, None, 400, "to numeric"),
        (PREDICT, None, 400, "Malformed request: GET /v1/models/toy:predict"),
        (PREDICT + "?a=1", {}, 400, "Malformed request: POST"),
        (PREDICT + "/", {}, 400, "Malformed request: POST"),
        ("/v1/models/toy:translate", {}, 400, "Malformed request: POST"),
        ("/v1/models/toy:classify", {"examples": [1]}, 400, "serving/classify"),
        ("/v1/models/toy:regress", {"examples": [1]}, 400, "serving/regress"),
        ("/elsewhere", None, 400, "Malformed request: GET /elsewhere"),
        (PREDICT, b"", 400, "JSON Parse error: The document is empty"),
        (PREDICT, b'{"instances": [1.0,]}', 400, "at offset: 19"),
        (PREDICT, b"[1]", 400, "not an object"),
        (PREDICT, {}, 400, "Missing 'inputs' or 'instances' key"),
        (PREDICT, {"inputs": [1], "instances": [1]}, 400, "not both"),
        (PREDICT, {"instances": []}, 400, "at least one"),
        (PREDICT, {"instances": 3}, 400, "must be a list"),
        (PREDICT, {"instances": [1], "signature": "echo"}, 400, "Unknown key"),
        (PREDICT, {"instances": [1], "signature_name": 3}, 400, "must be a string"),
        (
            PREDICT,
            {"instances": [1], "signature_name": "nope"},
            400,
            'Serving signature name: "nope" not found in signature def',
        ),
        (PREDICT, {"instances": ["a"]}, 400, "is not of expected type: float"),
        (PREDICT, {"instances": [True]}, 400, "is not of expected type: float"),
        (PREDICT, {"instances": [None]}, 400, "is not of expected type: float"),
        (PREDICT, {"instances": [{"b64": "AA=="}]}, 400, "of expected type: float"),
        (
            PREDICT,
            {"instances": [{"x": 1}, {"z": 1, "é": 2}]},
            400,
            'element: 1 of \'instances\' list. JSON object: {"z": 1, "é": 2} keys must '
            'be equal to: x. Missing: x. Unknown: "z", "é".',
        ),
        (
            PREDICT,
            {"instances": [{"x": 1, **dict.fromkeys("abcdefghi", "q" * 99)}]},
            400,
            'equal to: x. Unknown: "a", "b", "c", "d", "e", "f", "g", "h", ....',
        ),
        (PREDICT, {"instances": [{"x": 1}, 2]}, 400, "at item 1"),
        (PREDICT, {"instances": [[1], [2]]}, 400, "must have shape"),
        (PREDICT, {"instances": [1, [2]]}, 400, "process element: 1"),
        (PREDICT, {"inputs": [[1], [2, 3]]}, 400, "must have shape [?]"),
        (PREDICT, {"inputs": 5}, 400, "must have shape [?]"),
        (PREDICT, {"inputs": {"z": [1]}}, 400, "Missing named input: x"),
        (
            PREDICT,
            {"signature_name": "types", "inputs": {"flag": [], "word": [], "z": 1}},
            400,
            "in 'inputs' object. Missing: count, pair, ratio, small. Unknown: \"z\".",
        ),
        (PREDICT, {"inputs": {"x": [1], "z": [1]}}, 400, "Unknown named input"),
        (PREDICT, {"instances": [1e39]}, 400, "without loss of precision"),
        (PREDICT, {"instances": [2**24 + 1]}, 400, "without loss of precision"),
        (PREDICT, {"instances": [10**4000]}, 400, "without loss of precision"),
        (PREDICT, {"instances": [1] * 257}, 400, "64 rows at most"),
        (
            PREDICT,
            {"signature_name": "echo", "instances": ["a" * 5001]},
            400,
            "5,000 bytes at most",
        ),
        (
            PREDICT,
            {"signature_name": "echo", "instances": [{"b64": "*"}]},
            400,
            "Unable to base64 decode",
        ),
        (
            PREDICT,
            {"signature_name": "spin", "instances": [1.5]},
            400,
            "is not of expected type: int32",
        ),
        (
            PREDICT,
            {"signature_name": "spin", "instances": [2**31]},
            400,
            "is not of expected type: int32",
        ),
        (
            PREDICT,
            {"signature_name": "types", "instances": [1]},
            400,
            "must be a list of objects",
        ),
        (
            PREDICT,
            {"signature_name": "odd", "instances": [1]},
            400,
            "batches of one size",
        ),
        (
            PREDICT,
            {"signature_name": "brief", "instances": [1]},
            501,
            "cannot be sent as JSON",
        ),
    ],
)
def test_refusals(server, path, body, status, words):
    found, message = error_of(server, body, path)
    assert (found, words in message) == (status, True), message


def test_a_failed_assertion_speaks_for_itself(server):
    request = {"signature_name": "guarded", "inputs": [1, 101]}
    assert error_of(server, request) == (
        400,
        "assertion failed: [`x` must be at most 100. Received:] [1 101]",
    )


def test_output_that_is_not_utf8_becomes_valid_json(server):
    status, outputs = server.column("odd", x=[1, 2])
    assert (status, outputs) == (200, {"whole": 3.0, "not_utf8": ["a\ufffd"]})


HOSTILE = {
    "deep arrays": b'{"instances": ' + b"[" * 250_000 + b"]" * 250_000 + b"}",
    "deep objects": b'{"a":' * 150_000 + b"1" + b"}" * 150_000,
    "deep and open": b"[" * 250_000,
    "brackets in an open string": b'{"instances": ["' + b"[" * 250_000,
    "quotes in an open string": b'["' + b'\\"' * 250_000 + b"[" * 40,
    "too many arrays": b'{"instances": [' + b"[]," * 300_000 + b"[]]}",
    "a number beyond double": b'{"instances": [1e999]}',
    "a negative number beyond double": b'{"instances": [-1e999]}',
    "5,000 digits": b'{"instances": [' + b"9" * 5_000 + b"]}",
    "half a surrogate pair": b'{"signature_name": "echo", "instances": ["\\ud800"]}',
    "half a pair in a key": b'{"instances": [{"\\uDFFF": 1}]}',
    "half a pair in UTF-8": b'{"instances": ["\xed\xa0\x80"]}',
    "not UTF-8": b'{"instances": ["\xff"]}',
    "a repeated key": b'{"instances": [1], "instances": [2]}',
    "a repeated inner key": b'{"instances": [{"x": 1, "x": 1}]}',
    "NaN as a name": b'{"instances": [1], "signature_name": NaN}',
    "NaN for an integer": b'{"signature_name": "spin", "instances": [NaN]}',
    "NaN as the request": b"NaN",
    "a control character": b'{"instances": ["\x01"]}',
    "text after the value": b'{"instances": [1]} 2',
    "a comment": b'{"instances": [1] /* one */}',
    "single quotes": b"{'instances': [1]}",
    "UTF-16": '{"instances": [1]}'.encode("utf-16"),
    "NUL bytes": b"\0" * 1000,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_json_is_refused(server, body):
    assert error_of(server, body)[0] == 400


def test_brackets_in_strings_do_not_count(server):
    text = "[{" * 1000 + '\\"'
    request = {"signature_name": "echo", "instances": [text]}
    assert server.predict(request)[1]["predictions"][0]["text"] == text


def test_a_proper_surrogate_pair_is_a_character(server):
    body = b'{"signature_name": "echo", "inputs": ["\\ud83d\\ude00"]}'
    assert server.predict(body)[1]["outputs"]["text"] == ["😀"]


def test_gzip_bodies(server):
    body = gzip.compress(b'{"inputs": [1]}') + gzip.compress(b" ")
    assert server.predict(body, content_encoding="gzip") == (200, {"outputs": [3.5]})
    for broken in (body[:-12], b"{}", body + b"junk"):
        assert error_of(server, broken, content_encoding="gzip")[0] == 400
    assert error_of(server, body, content_encoding="br")[0] == 415


def test_large_bodies_are_refused_unread(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", PREDICT)
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    # Chunked: its length is known when it is there.
    chunks = (b" " * 2**16 for _ in range(17))
    connection.request("POST", PREDICT, chunks, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_gzip_bombs_take_no_memory(server):
    bomb = gzip.compress(bytes(100 * 2**20))
    assert len(bomb) < 2**17

    def peak_mib():
        facts = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
        return int(facts.partition("VmHWM:")[2].split()[0]) / 1024

    before = peak_mib()
    with concurrent.futures.ThreadPoolExecutor(32) as threads:
        replies = threads.map(
            lambda _: error_of(server, bomb, content_encoding="gzip")[0], range(100)
        )
        assert set(replies) == {413}
    assert peak_mib() - before <= 64


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from([{"b64": "AA=="}, 2**63, -1, 1e308, "x"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "text", "b64", "y"]), inner, max_size=3)
    ),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "instances": JSON | st.lists(JSON, max_size=4),
        "inputs": JSON,
        "signature_name": st.sampled_from(["", "echo", "types", "guarded", "odd"])
        | JSON,
    },
)


@settings(max_examples=250)
@given(body=REQUESTS | st.binary(max_size=64))
def test_no_generated_body_is_the_servers_fault(server, body):
    status, reply, _ = server.ask(PREDICT, body)
    assert status in (200, 400), (status, reply)
    assert ("error" in reply) == (status == 400)


def test_one_bad_request_fails_alone(server):
    requests = [
        {"instances": [i]} if i % 3 else {"instances": ["a"]} for i in range(60)
    ]
    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(server.predict, requests))
    for i, (status, reply) in enumerate(replies):
        if i % 3:
            assert (status, reply) == (200, {"predictions": [i / 2 + 3]})
        else:
            assert status == 400
