"""A language model over HTTP whose tokens begin and end inside characters.

The model recites: after n tokens, whatever they are, it writes token n of a text.
So every answer is known from the text's bytes alone.
"""

import numpy as np
import pytest

from keras_llm import export, models, tokenizers
from tests.serving.asking import as_json, ask

TEXT = (
    "床前明月光，疑是地上霜。🐳🐋 明月明月 naïve 🐋🐳🐳 don't 举头望明月，低头思故乡。"
)
STRANGE = [b"\xff\xfe a", "明".encode()[:2], b"\x80\x80", "🐳".encode()[1:] + b" a"]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train_byte_bpe([TEXT, "明是明是 🐳🐋🐬", "naïve naïveté"], 285)


@pytest.fixture(scope="module")
def recital(tokenizer):
    """The ids that the model writes: the text, then the end."""
    end = tokenizer.special_ids["end"]
    return [*tokenizer.encode(TEXT).numpy().tolist(), end, end]


@pytest.fixture(scope="module")
def model(tokenizer, recital):
    config = models.GPT2Config(
        vocab_size=tokenizer.vocab_size,
        width=48,
        num_layers=1,
        num_heads=1,
        max_positions=len(recital),
    )
    model = models.build(config)
    for weight in model.get_layer("block_0").weights:
        weight.assign(0 * weight)
    table = np.random.default_rng(3).normal(size=(tokenizer.vocab_size, 48))
    model.get_layer("token_embedding").embeddings.assign(table)
    # A position outweighs the token that stands there.
    (positions,) = model.get_layer("position_embedding").weights
    positions.assign(4 * table[recital])
    return model


@pytest.fixture(scope="module")
def served(model, tokenizer, tmp_path_factory, start_server):
    base = tmp_path_factory.mktemp("byte_bpe") / "reciter"
    export.export(model, tokenizer, base / "1", verify=False)
    with start_server(base, "--max_batch_rows=256") as server:
        yield server


def pieces_after(tokenizer, recital, prompt):
    """Returns the bytes of each token that follows a prompt, and its tokens."""
    # An empty prompt is read as the end of the document before it.
    count = max(1, len(tokenizer.encode(prompt).numpy()))
    return [tokenizer.token_bytes[i] for i in recital[count - 1 :]], count


def test_tokens_begin_and_end_inside_characters(tokenizer, recital):
    def is_text(piece):
        return piece.decode(errors="ignore").encode() == piece

    pieces = [tokenizer.token_bytes[i] for i in recital[:-2]]
    assert b"".join(pieces) == TEXT.encode()
    assert any(len(piece) > 1 and not is_text(piece) for piece in pieces)
    assert any(is_text(p) and 1 < len(p.decode()) < len(p) for p in pieces)


def test_text_cut_inside_a_character_ends_in_a_replacement(served, tokenizer, recital):
    pieces, _ = pieces_after(tokenizer, recital, "")
    counts = range(len(pieces))
    rows = ask(served, [{"prompt": "", "max_new_tokens": count} for count in counts])
    texts = [row["text"] for row in rows]
    assert texts == [b"".join(pieces[:n]).decode(errors="replace") for n in counts]
    assert any("\ufffd" in text for text in texts)
    assert texts[-1] == TEXT
    assert [row["num_tokens"] for row in rows] == list(counts)
    assert {row["finish_reason"] for row in rows[:-1]} == {"length"}
    assert rows[-1]["finish_reason"] == "end"
    assert rows[-1]["token_ids"][: len(pieces) - 1] == recital[:-1]


def test_stop_strings_that_span_tokens(served, tokenizer, recital):
    pieces, _ = pieces_after(tokenizer, recital, "")
    ends = np.cumsum([len(piece) for piece in pieces])
    raw = TEXT.encode()
    # Bytes on both sides of the end of a token: whole characters or halves.
    stops = [raw[end - 2 : end + reach] for end in ends[1:-4] for reach in (1, 4)]
    asked = [
        {"prompt": "", "max_new_tokens": len(pieces) - 1, "stop": ["absent", stop]}
        for stop in stops
    ]
    for stop, row in zip(stops, ask(served, asked), strict=True):
        place = raw.find(stop)
        assert row["text"] == raw[:place].decode(errors="replace")
        assert row["finish_reason"] == "stop"
        assert row["num_tokens"] == 1 + np.searchsorted(ends, place + len(stop))


def test_prompts_that_are_not_text(served, tokenizer, recital):
    prompts = [*STRANGE, "明月", "🐳", ""]
    knobs = {"max_new_tokens": 6}
    together = ask(served, [{"prompt": prompt, **knobs} for prompt in prompts])
    for prompt, row in zip(prompts, together, strict=True):
        pieces, count = pieces_after(tokenizer, recital, prompt)
        assert row["prompt_tokens"] == count
        assert row["text"] == b"".join(pieces[:6]).decode(errors="replace")
        (alone,) = ask(served, [{"prompt": prompt, **knobs}])
        assert alone["text"] == row["text"]
        assert alone["token_ids"] == row["token_ids"]


def test_tokenize_gives_the_ids_of_any_bytes(served, tokenizer):
    texts = [TEXT, "", *STRANGE, "naïve 🐋"]
    body = {"signature_name": "tokenize", "instances": [as_json(x) for x in texts]}
    status, reply = served.predict(body)
    assert status == 200, reply
    expected = tokenizer.encode(texts).to_list()
    longest = max(len(ids) for ids in expected)
    for text, ids, row in zip(texts, expected, reply["predictions"], strict=True):
        assert row["token_ids"] == ids + [-1] * (longest - len(ids))
        assert row["num_tokens"] == len(ids)
        raw = text.encode() if isinstance(text, str) else text
        assert b"".join(tokenizer.token_bytes[i] for i in ids) == raw


def test_scores_count_bytes_and_sum_the_full_forward_pass(served, model, tokenizer):
    pairs = [("床前", "明月光"), ("", "🐳🐋"), (STRANGE[1], STRANGE[3])]
    rows = [{"prompt": as_json(a), "completion": as_json(b)} for a, b in pairs]
    status, reply = served.predict({"signature_name": "score", "instances": rows})
    assert status == 200, reply
    for (prompt, completion), row in zip(pairs, reply["predictions"], strict=True):
        before = tokenizer.encode(prompt).numpy().tolist()
        before = before or [tokenizer.special_ids["end"]]
        after = tokenizer.encode(completion).numpy().tolist()
        logits = np.asarray(model(np.array([before + after])))[0].astype("float64")
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = sum(
            logits[len(before) - 1 + i, token] for i, token in enumerate(after)
        )
        np.testing.assert_allclose(row["log_prob"], expected, rtol=1e-4)
        assert row["num_tokens"] == len(after)
        raw = completion.encode() if isinstance(completion, str) else completion
        bits = -expected / np.log(2) / len(raw)
        np.testing.assert_allclose(row["bits_per_byte"], bits, rtol=1e-4)
