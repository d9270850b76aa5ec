"""Tokenizers beside checkpoints: the ids of the libraries that wrote them."""

import json
import pathlib
import shutil

import pytest
import tokenizers as library

from keras_llm import convert, core, models, tokenizers
from keras_llm.convert.tokenizer_files import read_tokenizer, write_tokenizer

pytestmark = pytest.mark.usefixtures("eager_functions")

DATA = pathlib.Path(__file__).parents[2] / "testdata"
LINES = (DATA / "moby_dick.txt").read_text("utf-8").split("\n")[900:1_200]
LINES += (DATA / "tang_poems.txt").read_text("utf-8").split("\n")[:60]
LINES += ["<|endoftext|> [MASK] </s>", "", "  two  blanks ", "a\x00b", "naïve café"]
SPECIALS = ["<|end|>", "<|begin|>", "<|user|>"]


def ids_of(reference, texts=LINES):
    """Returns the library's ids with special tokens neither found nor added."""
    reference = library.Tokenizer.from_str(reference.to_str())
    reference.encode_special_tokens = True
    return [
        found.ids for found in reference.encode_batch(texts, add_special_tokens=False)
    ]


def byte_level():
    reference = library.Tokenizer(library.models.BPE())
    level = library.pre_tokenizers.ByteLevel
    reference.pre_tokenizer = level(add_prefix_space=False)
    reference.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIALS,
        initial_alphabet=level.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator(LINES, trainer)
    return reference


RUNS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HEIRS = {"llama3": r"\p{N}{1,3}", "qwen2": r"\p{N}"}


def heir(split):
    """Returns what Llama 3's or Qwen 2's tokenizer.json sets up, with few merges."""
    reference = byte_level()
    pattern = library.Regex(RUNS.replace("NUMBERS", HEIRS[split]))
    pre = library.pre_tokenizers
    reference.pre_tokenizer = pre.Sequence(
        [
            pre.Split(pattern, "isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    if split == "qwen2":
        reference.normalizer = library.normalizers.NFC()
    values = json.loads(reference.to_str())
    if split == "llama3":
        values["model"]["ignore_merges"] = True
        # A short and a long token that no merge makes.
        for token in ("ĠIshmael,Ġnot", "Ġhyper", "Ġextraordinarilylongword"):
            values["model"]["vocab"][token] = len(values["model"]["vocab"])
    else:
        mark = {"id": len(values["model"]["vocab"]), "content": "<think>"}
        values["added_tokens"].append({**values["added_tokens"][0], **mark})
        values["added_tokens"][-1]["special"] = False
    return values


@pytest.mark.parametrize("split", list(HEIRS))
def test_llama_3_and_qwen_2(split, tmp_path):
    texts = [*LINES, "e\u0301té (a b!\n\n  x", "a hyper extraordinarilylongword 12345"]
    values = heir(split)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    tokenizer = read_tokenizer(tmp_path, {})
    assert tokenizer.split == split
    expected = ids_of(library.Tokenizer.from_str(json.dumps(values)), texts)
    assert tokenizer.encode(texts).to_list() == expected
    if split == "qwen2":  # The mark is written, but never read out of a text.
        mark = values["added_tokens"][-1]["id"]
        assert tokenizer.decode([mark]).numpy() == b"<think>"
        assert mark not in tokenizer.encode("<think>").numpy()
    else:
        whole = values["model"]["vocab"]["Ġextraordinarilylongword"]
        assert whole in expected[-1]
    back = tmp_path / "back"
    back.mkdir()
    write_tokenizer(back, tokenizer)
    written = library.Tokenizer.from_file(str(back / "tokenizer.json"))
    assert ids_of(written, texts) == expected
    tokenizer.save(tmp_path / "ours")
    loaded = tokenizers.load(tmp_path / "ours")
    assert loaded.encode(texts).to_list() == expected


def wordpiece():
    model = library.models.WordPiece.from_file(str(DATA / "bert" / "vocab.txt"))
    reference = library.Tokenizer(model)
    reference.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    reference.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    reference.decoder = library.decoders.WordPiece()
    reference.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return reference


@pytest.fixture(scope="module")
def byte_bpe_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("byte_bpe")
    byte_level().save(str(folder / "tokenizer.json"))
    settings = {"eos_token": {"content": "<|end|>"}, "bos_token": "<|begin|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_byte_level_bpe(byte_bpe_folder):
    tokenizer = read_tokenizer(byte_bpe_folder, {})
    assert tokenizer.kind == "byte_bpe"
    reference = library.Tokenizer.from_file(str(byte_bpe_folder / "tokenizer.json"))
    assert tokenizer.encode(LINES).to_list() == ids_of(reference)
    assert tokenizer.special_ids == {"end": 0, "bos": 1, "user": 2}
    assert tokenizer.special_names["user"] == "<|user|>"


def test_the_end_may_be_named_by_its_id(byte_bpe_folder, tmp_path):
    shutil.copy(byte_bpe_folder / "tokenizer.json", tmp_path)
    tokenizer = read_tokenizer(tmp_path, {"eos_token_id": [2, 0], "bos_token_id": 0})
    assert tokenizer.special_ids == {"end": 2, "bos": 0, "begin": 1}
    with pytest.raises(convert.UnsupportedModelError, match="ends a text"):
        read_tokenizer(tmp_path, {"eos_token_id": 9})


def test_gpt2s_two_files(tmp_path):
    shutil.copy(DATA / "gpt2" / "encoder.json", tmp_path / "vocab.json")
    shutil.copy(DATA / "gpt2" / "vocab.bpe", tmp_path / "merges.txt")
    tokenizer = read_tokenizer(tmp_path, {"eos_token_id": 50_256})
    assert tokenizer.end_id == 50_256
    files = [str(DATA / "gpt2" / name) for name in ("encoder.json", "vocab.bpe")]
    reference = library.Tokenizer(library.models.BPE.from_file(*files))
    level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.pre_tokenizer = level
    assert tokenizer.encode(LINES).to_list() == ids_of(reference)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2T"}')
    with pytest.raises(convert.UnsupportedModelError, match="'Qwen2T'"):
        read_tokenizer(tmp_path, {})


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.txt"])
def test_wordpiece(form, tmp_path):
    reference = wordpiece()
    if form == "vocab.txt":
        shutil.copy(DATA / "bert" / "vocab.txt", tmp_path)
    else:
        reference.save(str(tmp_path / form))
    tokenizer = read_tokenizer(tmp_path, {})
    assert tokenizer.kind == "wordpiece" and tokenizer.vocab_size == 30_522
    assert tokenizer.encode(LINES).to_list() == ids_of(reference)


def test_sentencepiece_with_sentinels(tmp_path):
    shutil.copy(
        DATA / "sentencepiece" / "botchan_en_unigram_1000.model",
        tmp_path / "spiece.model",
    )
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"extra_ids": 3}')
    tokenizer = read_tokenizer(tmp_path, {})
    assert tokenizer.kind == "sentencepiece"
    assert tokenizer.sentinel_ids == (1_002, 1_001, 1_000)
    settings.write_text('{"added_tokens_decoder": {"1000": {"content": "<chat>"}}}')
    with pytest.raises(convert.UnsupportedModelError, match="<chat>"):
        read_tokenizer(tmp_path, {})


def test_no_files_are_no_tokenizer(tmp_path):
    assert read_tokenizer(tmp_path, {}) is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda v: v.update(normalizer={"type": "NFKC"}),
            convert.UnsupportedModelError,
            "`normalizer` must be .*NFC.*Received: .*NFKC",
        ),
        (
            lambda v: v["pre_tokenizer"].update(add_prefix_space=True),
            convert.UnsupportedModelError,
            "`pre_tokenizer`",
        ),
        (
            lambda v: v.update(pre_tokenizer=None),
            convert.UnsupportedModelError,
            "`pre_tokenizer`",
        ),
        (
            lambda v: v["model"].update(byte_fallback=True),
            convert.UnsupportedModelError,
            "`model` must be .*'byte_fallback': True",
        ),
        (
            lambda v: v["model"].update(type="Unigram"),
            convert.UnsupportedModelError,
            "Unigram",
        ),
        (
            lambda v: v["added_tokens"][1].update(special=False, content="  "),
            convert.UnsupportedModelError,
            "must be special, or a mark.*'  '",
        ),
        (
            lambda v: v["added_tokens"][1].update(id=5),
            core.CorruptFolderError,
            "two ids",
        ),
        (
            lambda v: v["model"]["vocab"].update(extra=10**9),
            core.CorruptFolderError,
            "the largest being 1000000000",
        ),
        (lambda v: v["model"].pop("vocab"), core.CorruptFolderError, "malformed"),
        (lambda v: v.update(model=3), core.CorruptFolderError, "malformed"),
        (
            lambda v: v["model"].update(merges=["a b c"]),
            core.CorruptFolderError,
            "merge",
        ),
        (lambda v: v["model"].update(merges=[7]), core.CorruptFolderError, "malformed"),
    ],
)
def test_what_would_give_other_ids_is_refused(
    change, error, message, byte_bpe_folder, tmp_path
):
    values = json.loads((byte_bpe_folder / "tokenizer.json").read_text())
    change(values)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(error, match=message):
        read_tokenizer(tmp_path, {"eos_token_id": 0})


def test_links_are_not_followed(byte_bpe_folder, tmp_path):
    (tmp_path / "tokenizer.json").symlink_to(byte_bpe_folder / "tokenizer.json")
    with pytest.raises(core.CorruptFolderError, match="is a link"):
        read_tokenizer(tmp_path, {"eos_token_id": 0})


def trained():
    return tokenizers.train_byte_bpe([line.encode() for line in LINES], vocab_size=500)


@pytest.mark.parametrize("make", [trained, tokenizers.ByteTokenizer])
def test_what_is_written_gives_our_ids_there_and_back(make, tmp_path):
    tokenizer = make()
    assert write_tokenizer(tmp_path, tokenizer)
    reference = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    expected = tokenizer.encode(LINES).to_list()
    assert ids_of(reference) == expected
    assert [reference.decode(ids) for ids in expected] == LINES
    assert reference.token_to_id("<|endoftext|>") == tokenizer.end_id
    back = read_tokenizer(tmp_path, {})
    assert back.encode(LINES).to_list() == expected
    assert back.special_ids == tokenizer.special_ids


def test_wordpiece_is_written(tmp_path):
    vocabulary = DATA / "bert" / "vocab.txt"
    tokenizer = tokenizers.WordPieceTokenizer.from_file(vocabulary, lower_case=False)
    assert write_tokenizer(tmp_path, tokenizer)
    reference = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert ids_of(reference) == tokenizer.encode(LINES).to_list()
    back = read_tokenizer(tmp_path, {})
    assert (back.tokens, back.lower_case) == (tokenizer.tokens, False)


def test_sentencepiece_is_written(tmp_path):
    path = DATA / "sentencepiece" / "botchan_en_bpe_1000.model"
    tokenizer = tokenizers.SentencePieceTokenizer.from_file(path)
    assert write_tokenizer(tmp_path, tokenizer)
    assert (tmp_path / "tokenizer.model").read_bytes() == path.read_bytes()
    assert read_tokenizer(tmp_path, {}).model == tokenizer.model


def test_a_kind_without_counterpart_is_said(tmp_path):
    tokenizer = tokenizers.CharacterTokenizer("abc")
    assert not write_tokenizer(tmp_path, tokenizer)
    assert not list(tmp_path.iterdir())


def test_a_model_travels_with_its_tokenizer(tmp_path):
    tokenizer = tokenizers.ByteTokenizer()
    config = models.GPT2Config(
        vocab_size=257, max_positions=7, width=8, num_layers=1, num_heads=2
    )
    models.save(models.build(config), tmp_path / "model", tokenizer)
    written = convert.export_folder(tmp_path / "model", tmp_path / "theirs")
    assert written == ("gpt2", "byte", True)
    values = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert (values["eos_token_id"], values["bos_token_id"]) == (256, 256)
    convert.import_folder(tmp_path / "theirs", tmp_path / "back")
    back = models.load_tokenizer(tmp_path / "back")
    assert back.encode("hé").numpy().tolist() == [104, 195, 169]
    convert.import_folder(tmp_path / "theirs", tmp_path / "alone", with_tokenizer=False)
    assert not models.has_tokenizer(tmp_path / "alone")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(byte_bpe_folder, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(DATA / "golden" / "gpt2", source)
    for path in byte_bpe_folder.iterdir():
        shutil.copy(path, source)
    with pytest.raises(core.CorruptFolderError, match="no more ids than the model"):
        convert.import_folder(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
