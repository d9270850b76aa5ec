"""Files to documents: kinds, cleaning, cutting, and everything that is refused."""

import gzip
import json
import os
import pathlib
import random
import re
import unicodedata

import pytest

from keras_llm import data
from keras_llm.data import documents, sources

MOBY_DICK = pathlib.Path("testdata/moby_dick.txt")
TANG_POEMS = pathlib.Path("testdata/tang_poems.txt")


def read(pattern, **fields):
    return list(data.read_documents(pattern, data.TextConfig(**fields)))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class TestFindFiles:
    def test_files_folders_and_globs(self, tmp_path):
        for name in ["b.txt", "a.txt", "sub/c.txt", ".hidden", "sub/.git/d.txt"]:
            write(tmp_path / name, "x")
        names = ["a.txt", "b.txt", "sub/c.txt"]
        expected = [tmp_path / name for name in names]
        assert data.find_files(tmp_path) == expected
        assert data.find_files(f"{tmp_path}/*.txt") == expected[:2]
        assert data.find_files(f"{tmp_path}/**/*.txt") == expected
        assert data.find_files([tmp_path / "sub", f"{tmp_path}/*.txt"]) == [
            expected[2],
            *expected[:2],
        ]

    def test_each_file_once(self, tmp_path):
        path = write(tmp_path / "a.txt", "x")
        (tmp_path / "link.txt").symlink_to(path)
        assert data.find_files([path, f"{tmp_path}/*"]) == [path]

    def test_a_name_that_looks_like_a_glob(self, tmp_path):
        path = write(tmp_path / "a[1].txt", "x")
        assert data.find_files(path) == [path]

    def test_no_match_names_pattern_and_nearest_folder(self, tmp_path):
        pattern = f"{tmp_path}/none/*.txt"
        with pytest.raises(data.DataError) as error:
            data.find_files(pattern)
        assert repr(pattern) in str(error.value)
        assert f"exists is {tmp_path}." in str(error.value)

    @pytest.mark.parametrize("patterns", [[], ()])
    def test_nothing_asked_for(self, patterns):
        with pytest.raises(data.DataError, match="at least one"):
            data.find_files(patterns)

    def test_a_folder_without_a_file_to_read(self, tmp_path):
        write(tmp_path / "sub/.hidden", "x")
        with pytest.raises(data.DataError, match="hidden ones left out.*has none"):
            data.find_files(tmp_path)

    def test_broken_links_and_pipes_are_refused(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "gone")
        with pytest.raises(data.DataError, match="a broken link"):
            data.find_files(tmp_path / "link")
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(data.DataError, match="a device or a pipe"):
            data.find_files(f"{tmp_path}/pip?")


class TestKinds:
    def test_a_plain_file_is_one_document(self, tmp_path):
        write(tmp_path / "a.txt", "one\n\ntwo")
        write(tmp_path / "b", "three")
        assert read(tmp_path) == [b"one\n\ntwo", b"three"]

    def test_real_texts_come_back_whole(self):
        assert read([MOBY_DICK, TANG_POEMS]) == [
            MOBY_DICK.read_bytes(),
            TANG_POEMS.read_bytes(),
        ]

    def test_poems_between_blank_lines(self):
        poems = read(TANG_POEMS, document_separator="\n\n")
        assert b"\n\n".join(poems) == TANG_POEMS.read_bytes().removesuffix(b"\n\n")
        assert len(poems) > 300
        assert all(poem.decode().startswith("《") for poem in poems)

    def test_json_lines(self, tmp_path):
        lines = [{"text": "風"}, {"text": "a\nb", "id": 7}, {"text": ""}]
        text = "\n".join(json.dumps(line) for line in lines)
        write(tmp_path / "a.jsonl", text + "\n\n")
        assert read(tmp_path) == ["風".encode(), b"a\nb"]
        write(tmp_path / "b.ndjson", '{"body": "x"}')
        assert read(tmp_path / "b.ndjson", json_field="body") == [b"x"]

    @pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
    def test_gzip(self, tmp_path, name):
        content = MOBY_DICK.read_bytes()
        if name == "a.jsonl":
            content = json.dumps({"text": content.decode()}).encode()
        write(tmp_path / f"{name}.gz", gzip.compress(content))
        assert read(tmp_path) == [MOBY_DICK.read_bytes()]

    def test_gzip_of_several_members(self, tmp_path):
        packed = gzip.compress(b"one ") + gzip.compress(b"two")
        write(tmp_path / "a.gz", packed)
        assert read(tmp_path) == [b"one two"]

    def test_blank_documents_are_left_out_and_counted(self, tmp_path):
        write(tmp_path / "a.txt", "")
        write(tmp_path / "b.txt", " \n\t")
        write(tmp_path / "c.txt", "x--\n--y--")
        files = data.find_files(tmp_path)
        counts = documents.ReadCounts()
        config = data.TextConfig(document_separator="--")
        pieces = list(documents.read_pieces(files, config, counts))
        assert [piece.text for piece in pieces] == [b"x", b"y"]
        assert counts == documents.ReadCounts(2, 3, 2)

    def test_a_byte_order_mark_is_dropped(self, tmp_path):
        write(tmp_path / "a.txt", b"\xef\xbb\xbftext\xef\xbb\xbf")
        assert read(tmp_path) == [b"text\xef\xbb\xbf"]

    def test_carriage_returns_stay(self, tmp_path):
        write(tmp_path / "a.txt", b"a\r\nb\rc")
        assert read(tmp_path) == [b"a\r\nb\rc"]

    def test_nfc(self, tmp_path):
        text = "e\u0301 \u1112\u1161\u11ab"
        write(tmp_path / "a.txt", text)
        assert read(tmp_path) == [text.encode()]
        composed = unicodedata.normalize("NFC", text).encode()
        assert read(tmp_path, unicode_form="nfc") == [composed]
        assert len(composed) < len(text.encode())


class TestPieces:
    """Blocks and pieces are made small, so that every border is met."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(sources, "BLOCK_BYTES", 37)
        monkeypatch.setattr(documents, "BLOCK_BYTES", 37)
        monkeypatch.setattr(documents, "PIECE_BYTES", 53)

    # The pre-split of GPT-2 in the letters that the samples use.
    WORDS = re.compile(r" ?[a-z風多響]+| ?[0-9]+| ?[^\sa-z風多響0-9]+|\s+(?!\S)|\s+")
    ALPHABET = [
        "a",
        "bc",
        "7",
        " ",
        "  ",
        "\n",
        "\n\n",
        "風",
        ".",
        "!?",
        "\t",
        "\u3000",
    ]

    def sample(self, seed):
        return "".join(random.Random(seed).choices(self.ALPHABET, k=600))

    @pytest.mark.parametrize("seed", range(20))
    def test_pieces_join_to_the_document_and_keep_its_words(self, tmp_path, seed):
        text = self.sample(seed)
        path = write(tmp_path / "a.txt", text)
        counts = documents.ReadCounts()
        pieces = list(documents.read_pieces([path], data.TextConfig(), counts))
        assert b"".join(piece.text for piece in pieces) == text.encode()
        assert len(pieces) > 15
        assert all(len(piece.text) <= 53 + 37 for piece in pieces)
        assert [piece.opens for piece in pieces] == [True] + [False] * (len(pieces) - 1)
        words = [w for piece in pieces for w in self.WORDS.findall(piece.text.decode())]
        assert words == self.WORDS.findall(text)

    def test_a_word_longer_than_a_piece_is_cut_between_characters(self, tmp_path):
        text = "風" * 500
        path = write(tmp_path / "a.txt", text)
        pieces = list(
            documents.read_pieces([path], data.TextConfig(), documents.ReadCounts())
        )
        assert "".join(piece.text.decode() for piece in pieces) == text

    @pytest.mark.parametrize("separator", ["\n\n", "風風", "--", "x"])
    def test_separators_across_any_border(self, tmp_path, separator):
        rng = random.Random(5)
        texts = [
            "".join(rng.choices(["a", " ", "\n", "b", "風"], k=rng.randrange(150)))
            for _ in range(60)
        ]
        whole = separator.join(texts)
        path = write(tmp_path / "a.txt", whole)
        expected = [t.encode() for t in whole.split(separator) if t.strip(" \n")]
        assert read(path, document_separator=separator) == expected

    @pytest.mark.parametrize("fill", range(8))
    def test_characters_across_any_border(self, tmp_path, fill):
        text = "a" * fill + "é風🌊" * 100
        path = write(tmp_path / "a.txt", text)
        assert read(path) == [text.encode()]

    def test_long_json_lines(self, tmp_path):
        texts = [self.sample(seed) for seed in range(5)]
        path = tmp_path / "a.jsonl"
        write(path, "\r\n".join(json.dumps({"text": text}) for text in texts))
        assert read(path) == [text.encode() for text in texts]

    def test_a_document_that_begins_with_much_white_space(self, tmp_path):
        text = " " * 300 + "end"
        assert read(write(tmp_path / "a.txt", text))[0].endswith(b"end")

    def test_the_offset_of_a_bad_byte_is_that_in_the_file(self, tmp_path):
        for offset in [0, 1, 36, 37, 38, 73, 74, 200]:
            content = bytearray(("é" * 150).encode() + b"a")
            content[offset] = 0xFF
            path = write(tmp_path / f"{offset}.txt", bytes(content))
            # Half a character before the bad byte is the first that is wrong.
            first = offset - offset % 2
            with pytest.raises(data.DataError, match=f"at offset {first} "):
                read(path)


class TestRefusals:
    def test_invalid_utf8_names_file_and_offset(self, tmp_path):
        path = write(tmp_path / "a.txt", b"fine \xc3( text" + b"x" * 100)
        with pytest.raises(data.DataError, match=r"a\.txt with byte 0xc3 at offset 5"):
            read(path)
        replaced = read(path, invalid_utf8="replace")
        assert replaced == ["fine \ufffd( text".encode() + b"x" * 100]

    def test_a_cut_character_at_the_end(self, tmp_path):
        path = write(tmp_path / "a.txt", "風".encode()[:2])
        with pytest.raises(data.DataError, match="offset 0 .unexpected end"):
            read(path)
        assert read(path, invalid_utf8="replace") == ["\ufffd".encode()]

    @pytest.mark.parametrize("policy", ["error", "replace"])
    def test_binary_files(self, tmp_path, policy):
        path = write(tmp_path / "a.bin", b"text\0more")
        with pytest.raises(data.DataError, match="a NUL byte at offset 4"):
            read(path, invalid_utf8=policy)
        path = write(tmp_path / "b.txt", "text".encode("utf-16"))
        with pytest.raises(data.DataError, match="iconv"):
            read(path, invalid_utf8=policy)

    def test_replacement_has_a_quota(self, tmp_path):
        noise = bytes(random.Random(1).choices(range(1, 256), k=3000))
        path = write(tmp_path / "a.txt", noise)
        with pytest.raises(data.DataError, match="sequences that are not UTF-8"):
            read(path, invalid_utf8="replace")

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ('{"text": ', "Expecting value"),
            ("[" * 100_000, "recursion"),
            ('{"text": 1}', '{"text": 1}. Repair or'),
            ('{"text": null, "id": 2}', '{"text": null, "id": 2}'),
            ("{}", "members none"),
            ('{"body": "x", "id": 2}', "members 'body', 'id'"),
            ('["x"]', r'\["x"\]. Repair or'),
            ('"text"', '"text". Repair or'),
            ("9" * 5000, "integer"),
        ],
    )
    def test_bad_json_lines_name_file_and_line(self, tmp_path, line, reason):
        path = write(tmp_path / "a.jsonl", f'{{"text": "x"}}\n\n{line}\n')
        with pytest.raises(data.DataError, match=rf"a\.jsonl:3: .*{reason}"):
            read(path)

    def test_half_a_surrogate_pair(self, tmp_path):
        path = write(tmp_path / "a.jsonl", '{"text": "ab\\ud83cc \\ud83c\\udf0a"}')
        with pytest.raises(data.DataError, match=r"a\.jsonl:1: .*at character 2"):
            read(path)
        assert read(path, invalid_utf8="replace") == ["ab\ufffdc 🌊".encode()]

    def test_a_json_line_has_a_limit(self, tmp_path, monkeypatch):
        monkeypatch.setattr(documents, "MAX_LINE_BYTES", 1000)
        path = write(tmp_path / "a.jsonl", '{"text": "x"}\n' + "y" * 1001)
        with pytest.raises(data.DataError, match=r"longer one at .*a\.jsonl:2"):
            read(path)

    def test_a_gzip_bomb_stops_at_the_cap(self, tmp_path):
        path = write(tmp_path / "a.gz", gzip.compress(b"a" * 30_000_000))
        assert path.stat().st_size < 100_000
        with pytest.raises(data.DataError, match="may unpack to 2,000,000 bytes"):
            read(path, max_unpacked_bytes=2_000_000)

    def test_damaged_gzip_files(self, tmp_path):
        packed = gzip.compress(MOBY_DICK.read_bytes())
        cut = write(tmp_path / "cut.gz", packed[: len(packed) // 2])
        with pytest.raises(data.DataError, match=r"Cannot read .*cut\.gz after"):
            read(cut)
        other = write(tmp_path / "other.gz", b"plain text")
        with pytest.raises(data.DataError, match="Not a gzipped file"):
            read(other)
        flipped = bytearray(packed)
        flipped[-6] ^= 1
        with pytest.raises(data.DataError, match="CRC check failed"):
            read(write(tmp_path / "flipped.gz", bytes(flipped)))

    def test_an_unreadable_file(self):
        # A regular file whose first page cannot be read, even by root.
        with pytest.raises(data.DataError, match="Cannot read /proc/self/mem after 0"):
            read("/proc/self/mem")
