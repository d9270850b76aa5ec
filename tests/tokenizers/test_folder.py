"""Saving, loading, and files that contradict themselves."""

import json

import pytest

from keras_llm import tokenizers

pytestmark = pytest.mark.usefixtures("eager_functions")

TEXT = "the white whale's the 床前明月光 whale " * 5


@pytest.fixture(scope="module")
def bpe():
    return tokenizers.train_byte_bpe([TEXT], vocab_size=280)


def test_every_kind_comes_back(bpe, tmp_path):
    for tokenizer in (
        tokenizers.ByteTokenizer(),
        tokenizers.CharacterTokenizer.train([TEXT]),
        bpe,
        tokenizers.train_wordpiece([TEXT], 70, lower_case=False, strip_accents=True),
        tokenizers.train_sentencepiece([TEXT], 40, "bpe", extra_ids=3),
    ):
        folder = tmp_path / tokenizer.kind
        tokenizer.save(folder)
        loaded = tokenizers.load(folder)
        assert type(loaded) is type(tokenizer)
        assert loaded.special_ids == tokenizer.special_ids
        assert loaded.vocab_size == tokenizer.vocab_size
        assert loaded.token_bytes.tolist() == tokenizer.token_bytes.tolist()
        texts = [TEXT, "unseen \ud7ff <|endoftext|>", ""]
        assert loaded.encode(texts).to_list() == tokenizer.encode(texts).to_list()
        again = tmp_path / "again"
        loaded.save(again)
        for path in folder.iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes()
            (again / path.name).unlink()


def test_gpt2_comes_back(gpt2, tmp_path):
    gpt2.save(tmp_path / "gpt2")
    loaded = tokenizers.load(tmp_path / "gpt2")
    assert loaded.merges == gpt2.merges
    assert loaded.encode(TEXT).numpy().tolist() == gpt2.encode(TEXT).numpy().tolist()
    with pytest.raises(ValueError, match="Use tokenizers.load"):
        tokenizers.ByteTokenizer.load(tmp_path / "gpt2")


def test_other_libraries_read_the_vocabulary(bpe, tmp_path):
    import tokenizers as library

    bpe.save(tmp_path)
    model = library.models.BPE.from_file(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    )
    reference = library.Tokenizer(model)
    reference.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = TEXT + "cherry whiskers, thewhalethe 月光光"
    assert bpe.encode(text).numpy().tolist() == reference.encode(text).ids


def edit_json(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_vocabulary(change):
    return lambda folder: edit_json(folder / "vocab.json", change)


def edit_description(change):
    return lambda folder: edit_json(folder / "tokenizer.json", change)


def edit_merges(change):
    def edit(folder):
        path = folder / "merges.txt"
        path.write_text("\n".join(change(path.read_text().split("\n"))))

    return edit


DAMAGE = {
    "ids out of range": (
        edit_vocabulary(lambda v: v.update(a=10_000)),
        "whole numbers from 0 to 279",
    ),
    "negative id": (edit_vocabulary(lambda v: v.update(a=-1)), "whole numbers"),
    "id that is no number": (edit_vocabulary(lambda v: v.update(a="1")), "whole"),
    "id that is a truth value": (edit_vocabulary(lambda v: v.update(a=True)), "whole"),
    "repeated id": (edit_vocabulary(lambda v: v.update(a=v["b"])), "both have id"),
    "no object": (lambda f: (f / "vocab.json").write_text("[1]"), "JSON object"),
    "not JSON": (lambda f: (f / "vocab.json").write_text("{"), "Not a JSON file"),
    "character that is no byte": (
        edit_vocabulary(lambda v: v.update({"床": v.pop("the")})),
        "stands for no byte",
    ),
    "byte that is missing": (
        edit_vocabulary(lambda v: v.update({"zzz": v.pop("Ń")})),
        "without 1 of them, the first being 0xad",
    ),
    "merged token that is missing": (
        edit_vocabulary(lambda v: v.update({"zzz": v.pop("the")})),
        "is not in the vocabulary",
    ),
    "merge of unknown tokens": (
        edit_merges(lambda lines: [*lines, "q qq"]),
        "is not in the vocabulary",
    ),
    "merge of three": (edit_merges(lambda lines: [*lines, "a b c"]), "one space"),
    "merge of one": (edit_merges(lambda lines: [*lines, "a"]), "one space"),
    "merge twice": (edit_merges(lambda lines: [*lines, lines[-2]]), "repeats merge"),
    "unknown split": (
        edit_description(lambda d: d.update(split="llama4")),
        "`split` must be one of",
    ),
    "merges not UTF-8": (
        lambda f: (f / "merges.txt").write_bytes(b"\xff \xfe"),
        "must be UTF-8",
    ),
    "unknown kind": (edit_description(lambda d: d.update(kind="morse")), "one of"),
    "kind that is a list": (edit_description(lambda d: d.update(kind=[1])), "one of"),
    "no kind": (edit_description(lambda d: d.pop("kind")), "no field `kind`"),
    "later format": (edit_description(lambda d: d.update(format=2)), "format 1"),
    "other size": (edit_description(lambda d: d.update(vocab_size=9)), "contradicts"),
    "other end": (
        edit_description(lambda d: d.update(special_ids={"end": 3})),
        "contradicts",
    ),
    "no end": (
        edit_description(lambda d: d.update(special_tokens={})),
        'needs a special id for the role "end"',
    ),
    "end that is no token": (
        edit_description(lambda d: d.update(special_tokens={"end": "<e>"})),
        "to a token of the vocabulary",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(bpe, tmp_path, damage):
    edit, message = DAMAGE[damage]
    bpe.save(tmp_path)
    edit(tmp_path)
    with pytest.raises(ValueError, match=message):
        tokenizers.load(tmp_path)


def test_damaged_wordpiece_is_refused(tmp_path):
    tokenizers.train_wordpiece([TEXT], 70).save(tmp_path)
    vocabulary = (tmp_path / "vocab.txt").read_text()
    (tmp_path / "vocab.txt").write_text(vocabulary.replace("[UNK]", "[unk]"))
    with pytest.raises(ValueError, match=r"without \[UNK\]"):
        tokenizers.load(tmp_path)
    (tmp_path / "vocab.txt").write_text(vocabulary + "more\n")
    with pytest.raises(ValueError, match="contradicts"):
        tokenizers.load(tmp_path)
    (tmp_path / "vocab.txt").write_text(vocabulary)
    edit_description(lambda d: d.update(lower_case="no"))(tmp_path)
    with pytest.raises(ValueError, match="true or false"):
        tokenizers.load(tmp_path)


def test_damaged_sentencepiece_is_refused(tmp_path):
    tokenizers.train_sentencepiece([TEXT], 40, extra_ids=3).save(tmp_path)
    edit_description(lambda d: d.update(extra_ids=4))(tmp_path)
    with pytest.raises(ValueError, match="contradicts"):
        tokenizers.load(tmp_path)
    edit_description(lambda d: d.pop("extra_ids"))(tmp_path)
    with pytest.raises(ValueError, match="`extra_ids` must be"):
        tokenizers.load(tmp_path)
    model = (tmp_path / "sentencepiece.model").read_bytes()
    (tmp_path / "sentencepiece.model").write_bytes(model[:200])
    with pytest.raises(ValueError, match="cut short"):
        tokenizers.load(tmp_path)


def test_no_tokenizer_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        tokenizers.load(tmp_path / "nothing")


def test_characters_must_be_one_string(tmp_path):
    tokenizers.CharacterTokenizer("abc").save(tmp_path)
    (tmp_path / "characters.json").write_text('["a", "b"]')
    with pytest.raises(ValueError, match="one string"):
        tokenizers.load(tmp_path)


def test_a_vocabulary_without_its_end_token_is_refused(tmp_path, bpe):
    bpe.save(tmp_path)
    with pytest.raises(ValueError, match="end token must be in the vocabulary"):
        tokenizers.ByteBPETokenizer.from_gpt2_files(
            tmp_path / "vocab.json", tmp_path / "merges.txt", end_token="</s>"
        )


def test_two_ids_with_the_same_bytes_are_refused():
    alphabet = [bytes([byte]) for byte in range(256)]
    with pytest.raises(ValueError, match="token 256 is b'a', as token 97 is"):
        tokenizers.ByteBPETokenizer([*alphabet, b"a", b""], [], {"end": 257})
    with pytest.raises(ValueError, match="token 256 is b''"):
        tokenizers.ByteBPETokenizer([*alphabet, b"", b""], [], {"end": 257})
    with pytest.raises(ValueError, match="below the vocabulary size"):
        tokenizers.ByteBPETokenizer([*alphabet, b""], [], {"end": 300})
