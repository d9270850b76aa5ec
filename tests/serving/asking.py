"""Requests to a served language model."""

import base64

from keras_llm.generation import parameters

DEFAULTS = {**parameters.DEFAULTS, "stop": [], "max_new_tokens": 4}


def as_json(value):
    """Returns a text as JSON can carry it: bytes in base64."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value


def wire(row):
    """Returns a row's inputs of `generate`, with two stop strings, as JSON."""
    row = {**DEFAULTS, **row}
    stops = [as_json(stop) for stop in row["stop"]]
    return {**row, "prompt": as_json(row["prompt"]), "stop": (stops + ["", ""])[:2]}


def ask(server, rows):
    """Returns the answers of `generate` in row format."""
    body = {"signature_name": "generate", "instances": [wire(row) for row in rows]}
    status, reply = server.predict(body)
    assert status == 200, reply
    return reply["predictions"]
