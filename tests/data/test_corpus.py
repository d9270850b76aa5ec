"""Text to token streams, splits, and prepared folders that give the same."""

import errno
import itertools
import json
import os
import pathlib
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data
from keras_llm.core import CorruptFolderError, DiskFullError
from keras_llm.data import documents, preparing

TANG_POEMS = "testdata/tang_poems.txt"
POEMS = {"document_separator": "\n\n"}


def config(**fields):
    return data.DataConfig(**({"context": 31, "batch_size": 6} | fields))


def stream(store):
    """The whole token stream, through one long read."""
    return store.read(np.zeros(1, np.int64), store.num_tokens)[0]


def expected_stream(texts):
    return [i for text in texts for i in [2, *(3 + byte for byte in text)]]


@pytest.fixture
def prepare(tmp_path, tokenizer):
    """Prepares into small shards of small records and returns the folder."""
    names = itertools.count()

    def call(patterns=TANG_POEMS, shard_tokens=4096, record_tokens=64, **fields):
        out = tmp_path / f"tokens{next(names)}"
        data.prepare(
            patterns,
            tokenizer,
            out,
            data.TextConfig(**fields),
            shard_tokens=shard_tokens,
            record_tokens=record_tokens,
        )
        return out

    return call


class TestText:
    def test_separators_open_every_document(self, tmp_path, tokenizer):
        texts = ["風多".encode(), b"response", b"x"]
        for i, text in enumerate(texts):
            (tmp_path / f"{i}.txt").write_bytes(text)
        store = data.load_tokens(tmp_path, tokenizer, config())
        assert stream(store).tolist() == expected_stream(texts)
        assert store.separator_id == 2
        counts = store.counts
        assert (counts.num_tokens, counts.num_documents, counts.num_bytes) == (
            18,
            3,
            15,
        )

    def test_or_do_not(self, tmp_path, tokenizer):
        (tmp_path / "a").write_text("ab")
        (tmp_path / "b").write_text("c")
        settings = config(add_separators=False, separate_documents=False)
        store = data.load_tokens(tmp_path, tokenizer, settings)
        assert stream(store).tolist() == [3 + c for c in b"abc"]
        assert store.separator_id is None

    def test_rows_of_an_epoch_are_the_corpus(self, tokenizer):
        whole = expected_stream(data.read_documents(TANG_POEMS, config(**POEMS)))
        num_rows = -(-(len(whole) - 1) // 31)
        epochs = []
        for shuffle in (False, True):
            settings = config(**POEMS, shuffle=shuffle)
            batches = data.training_batches(TANG_POEMS, tokenizer, settings)
            rows = []
            while len(rows) < num_rows:
                for ids, targets, real in zip(*next(batches).values(), strict=True):
                    rows.append([*ids[:1].tolist(), *targets[real > 0].tolist()])
            epochs.append(rows[:num_rows])
        in_order, shuffled = epochs
        assert whole[:1] + [i for row in in_order for i in row[1:]] == whole
        assert shuffled != in_order
        assert sorted(shuffled) == sorted(in_order)

    def test_many_calls_of_the_tokenizer_give_one_stream(self, tokenizer, monkeypatch):
        whole = stream(data.load_tokens(TANG_POEMS, tokenizer, config()))
        monkeypatch.setattr("keras_llm.data.encoding._CALL_BYTES", 1000)
        monkeypatch.setattr(documents, "PIECE_BYTES", 700)
        pieces = stream(data.load_tokens(TANG_POEMS, tokenizer, config()))
        np.testing.assert_array_equal(pieces, whole)

    def test_too_much_for_memory_is_sent_to_prepare_data(self, tokenizer):
        with pytest.raises(data.DataError, match="Run prepare_data"):
            data.load_tokens(TANG_POEMS, tokenizer, config(max_memory_bytes=10**5))

    def test_packed_text_too_much_for_memory(self, tmp_path, tokenizer):
        import gzip

        (tmp_path / "a.gz").write_bytes(gzip.compress(b"many words " * 10**6))
        with pytest.raises(data.DataError, match="Run prepare_data"):
            data.load_tokens(tmp_path, tokenizer, config(max_memory_bytes=10**6))

    @pytest.mark.parametrize("content", ["", "\n \n"])
    def test_an_empty_corpus(self, tmp_path, tokenizer, content):
        (tmp_path / "a.txt").write_text(content)
        with pytest.raises(data.DataError, match=r"some text .* 1 file.s. .*a\.txt"):
            data.training_batches(tmp_path, tokenizer, config())

    def test_a_corpus_shorter_than_a_row(self, tmp_path, tokenizer):
        (tmp_path / "a.txt").write_text("short")
        with pytest.raises(data.DataError, match="6 tokens, 32 needed"):
            data.training_batches(tmp_path, tokenizer, config())


class TestSplits:
    def test_many_documents_go_by_hash(self, tmp_path, tokenizer):
        texts = [f"document {i} of many" for i in range(1000)]
        random.Random(1).shuffle(texts)
        lines = [json.dumps({"text": text}) for text in [*texts, *texts[:300]]]
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        settings = config(valid_fraction=0.1)
        train, valid = data.load_splits(tmp_path, tokenizer, settings)
        assert train.counts.num_documents + valid.counts.num_documents == 1300
        assert 80 < valid.counts.num_documents < 190
        apart = [
            {tuple(d) for d in np.split(s, np.flatnonzero(s == 2))}
            for s in map(stream, (train, valid))
        ]
        assert apart[0] & apart[1] == {()}  # Equal documents never part.
        assert len(apart[0] | apart[1]) == 1001

    def test_one_document_gives_its_tail(self, tokenizer):
        settings = config(valid_fraction=0.1)
        train, valid = data.load_splits(TANG_POEMS, tokenizer, settings)
        text = pathlib.Path(TANG_POEMS).read_bytes()
        place = train.counts.num_bytes
        assert 0 <= 0.9 * len(text) - place < 200
        assert text[place : place + 1] == b"\n"
        assert stream(train).tolist() == expected_stream([text[:place]])
        assert stream(valid).tolist() == expected_stream([text[place:]])

    @pytest.mark.parametrize("length", range(20, 40))
    def test_the_cut_falls_anywhere_among_a_few_documents(
        self, tmp_path, tokenizer, length
    ):
        texts = [b"a" * length, b"b" * 20, b"c c c c c c", b"d" * 9]
        for i, text in enumerate(texts):
            (tmp_path / f"{i}.txt").write_bytes(text)
        settings = config(valid_fraction=0.5)
        parts = data.load_splits(tmp_path, tokenizer, settings)
        joined = [i for part in parts for i in stream(part).tolist()]
        assert [i for i in joined if i != 2] == [3 + b for b in b"".join(texts)]
        assert all(stream(part)[0] == 2 for part in parts)
        assert joined.count(2) in (4, 5)
        total = sum(map(len, texts))
        assert abs(parts[1].counts.num_bytes - total / 2) < 3

    def test_too_short_to_split(self, tmp_path, tokenizer):
        (tmp_path / "a.txt").write_text("short")
        with pytest.raises(data.DataError, match="hold some back"):
            data.load_splits(tmp_path, tokenizer, config())

    def test_no_share_to_hold_back(self, tokenizer):
        with pytest.raises(data.DataError, match="valid_fraction=0"):
            data.load_splits(TANG_POEMS, tokenizer, config(valid_fraction=0.0))


class TestPrepared:
    @pytest.mark.parametrize("fields", [{}, POEMS])
    def test_it_gives_what_text_gives(self, prepare, tokenizer, fields):
        folder = prepare(**fields)
        assert data.is_prepared(folder)
        from_text = data.load_splits(TANG_POEMS, tokenizer, config(**fields))
        from_shards = data.load_splits(str(folder), tokenizer, config(**fields))
        for text, shards in zip(from_text, from_shards, strict=True):
            assert text.counts == shards.counts
            np.testing.assert_array_equal(stream(text), stream(shards))
            assert text.separator_id == shards.separator_id

    @pytest.mark.parametrize("context", [1, 63, 64, 65, 200])
    def test_any_row_of_it(self, prepare, tokenizer, context):
        folder = prepare(valid_fraction=0.0)
        settings = config(context=context)
        text = data.training_batches(TANG_POEMS, tokenizer, settings)
        shards = data.training_batches(folder, tokenizer, settings)
        shards.restore(text.position())  # A position fits both.
        for _ in range(50):
            for name, array in next(text).items():
                np.testing.assert_array_equal(array, shards.batch(text._next - 1)[name])

    def test_reads_past_the_end(self, prepare, tokenizer):
        store = data.load_tokens(prepare(), tokenizer, config())
        whole = stream(store)
        end = store.num_tokens
        starts = np.array([end - 70, end - 1, end, end + 1, end + 10**6])
        expected = np.concatenate([whole, np.full(10**6 + 200, -1)])
        np.testing.assert_array_equal(
            store.read(starts, 150), expected[starts[:, None] + np.arange(150)]
        )

    def test_tensorflow_reads_the_shards(self, prepare, tokenizer):
        folder = prepare(valid_fraction=0.0)
        shards = sorted(map(str, folder.glob("*.tfrecord")))
        assert len(shards) > 50
        records = tf.data.TFRecordDataset(shards).map(
            lambda r: tf.io.decode_raw(r, tf.uint16)
        )
        ids = np.concatenate(list(records.as_numpy_iterator()))
        store = data.load_tokens(folder, tokenizer, config())
        np.testing.assert_array_equal(ids[: store.num_tokens], stream(store))
        assert (ids[store.num_tokens :] == 0).all()

    def test_validation_part_and_bytes(self, prepare, tokenizer):
        folder = prepare()
        batches = data.validation_batches(folder, tokenizer, config())
        _, valid = data.load_splits(TANG_POEMS, tokenizer, config())
        assert batches.num_bytes == valid.counts.num_bytes == batches.num_tokens
        whole = prepare(valid_fraction=0.0)
        batches = data.validation_batches(whole, tokenizer, config())
        assert batches.num_bytes == os.path.getsize(TANG_POEMS)

    def test_a_vocabulary_of_more_than_two_bytes(self, tmp_path, tokenizer):
        class Wide(type(tokenizer)):
            vocab_size = 70_000
            special_ids = {"end": 69_999}

        data.prepare(TANG_POEMS, Wide(), tmp_path / "tokens")
        store = data.load_tokens(tmp_path / "tokens", Wide(), config())
        assert stream(store)[0] == 69_999

    def test_an_existing_folder_is_left_alone(self, prepare, tokenizer):
        folder = prepare()
        before = sorted(folder.iterdir())
        with pytest.raises(FileExistsError):
            data.prepare(TANG_POEMS, tokenizer, folder)
        assert sorted(folder.iterdir()) == before

    def test_a_failure_leaves_nothing(self, tmp_path, tokenizer):
        bad = tmp_path / "text" / "bad.txt"
        bad.parent.mkdir()
        bad.write_bytes(b"long enough \n" * 10**5 + b"\xff")
        with pytest.raises(data.DataError, match="offset 1300000"):
            data.prepare(bad, tokenizer, tmp_path / "tokens")
        assert [path.name for path in tmp_path.iterdir()] == ["text"]

    def test_a_full_disk_leaves_nothing(self, tmp_path, tokenizer, monkeypatch):
        def full(path, mode):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(preparing, "open", full, raising=False)
        with pytest.raises(DiskFullError, match="Free some space"):
            data.prepare(TANG_POEMS, tokenizer, tmp_path / "tokens")
        assert list(tmp_path.iterdir()) == []

    def test_another_tokenizer_is_refused(self, prepare, tokenizer):
        class Other(type(tokenizer)):
            def save(self, folder):
                super().save(folder)
                pathlib.Path(folder, "merges.txt").write_text("a b")

        with pytest.raises(data.DataError, match="with the tokenizer that wrote it"):
            data.load_tokens(prepare(), Other(), config())

    @pytest.mark.parametrize(
        "fields",
        [
            {"add_separators": False, "separate_documents": False},
            {"unicode_form": "nfc"},
            {"valid_fraction": 0.2},
        ],
    )
    def test_another_way_of_reading_is_refused(self, prepare, tokenizer, fields):
        name = next(iter(fields))
        with pytest.raises(
            data.DataError, match=f"{name}={fields[name]!r}, the corpus"
        ):
            data.load_tokens(prepare(), tokenizer, config(**fields))

    def test_no_validation_part(self, prepare, tokenizer):
        with pytest.raises(data.DataError, match="none held back"):
            data.load_splits(prepare(valid_fraction=0.0), tokenizer, config())

    def test_it_stands_alone(self, prepare, tokenizer):
        with pytest.raises(data.DataError, match="stands alone"):
            data.load_tokens([prepare(), TANG_POEMS], tokenizer, config())

    @pytest.mark.parametrize("fields", [{"record_tokens": 0}, {"shard_tokens": 63}])
    def test_sizes_that_make_no_sense(self, prepare, fields):
        with pytest.raises(ValueError, match="Received"):
            prepare(**fields)


class TestDamage:
    """Whatever is flipped, cut, added or renamed is found."""

    def read_all(self, folder, tokenizer, **fields):
        settings = config(**fields)
        for part in ("train", "valid"):
            stream(data.load_tokens(folder, tokenizer, settings, part))

    def test_every_flipped_bit_and_every_cut(self, prepare, tokenizer, tmp_path):
        whole = prepare(shard_tokens=2**15)
        self.read_all(whole, tokenizer)
        rng = random.Random(7)
        paths = [path for path in sorted(whole.rglob("*")) if path.is_file()]
        for trial in range(150):
            path = paths[trial % len(paths)]
            content = path.read_bytes()
            place = rng.randrange(len(content))
            changed = bytearray(content)
            changed[place] ^= 1 << rng.randrange(8)
            path.write_bytes(changed if trial % 3 else content[:place])
            if path.read_bytes().split() != content.split():
                with pytest.raises((CorruptFolderError, ValueError)):
                    self.read_all(whole, tokenizer)
            path.write_bytes(content)
        self.read_all(whole, tokenizer)

    @pytest.mark.parametrize("place", [0, 8, 12, 80, 140, 143])
    def test_a_flip_names_shard_and_offset(self, prepare, tokenizer, place):
        # A record of 64 two-byte tokens is 144 bytes: flip some byte of the third.
        folder = prepare()
        shard = folder / "train-00002.tfrecord"
        content = bytearray(shard.read_bytes())
        content[2 * 144 + place] ^= 16
        shard.write_bytes(content)
        with pytest.raises(
            data.CorruptRecordError, match=r"train-00002\.tfrecord at byte offset 288,"
        ):
            data.load_tokens(folder, tokenizer, config())

    def test_large_corpora_are_checked_record_by_record(
        self, prepare, tokenizer, monkeypatch
    ):
        monkeypatch.setattr("keras_llm.data.prepared._HASH_LIMIT_BYTES", 0)
        folder = prepare()
        shard = folder / "train-00001.tfrecord"
        content = bytearray(shard.read_bytes())
        content[5 * 144 + 40] ^= 1
        shard.write_bytes(content)
        store = data.load_tokens(folder, tokenizer, config())
        first = (64 + 5) * 64  # The first token of the damaged record.
        store.read(np.array([0, first - 10, first + 64]), 10)
        for start in (first - 10, first + 63):
            with pytest.raises(data.CorruptRecordError, match="byte offset 720,"):
                store.read(np.array([start]), 11)

    def test_a_cut_names_shard_and_offset(self, prepare, tokenizer):
        folder = prepare()
        os.truncate(folder / "train-00001.tfrecord", 1000)
        with pytest.raises(
            CorruptFolderError, match=r"train-00001\.tfrecord was cut .* offset 864\."
        ):
            data.load_tokens(folder, tokenizer, config())

    def test_some_damage_may_be_allowed(self, prepare, tokenizer, caplog):
        folder = prepare()
        shard = folder / "train-00001.tfrecord"
        content = bytearray(shard.read_bytes())
        content[3 * 144 + 20] ^= 1
        shard.write_bytes(content)
        intact = data.training_batches(TANG_POEMS, tokenizer, config())
        with pytest.raises(data.CorruptRecordError):
            data.training_batches(folder, tokenizer, config())
        settings = config(max_corrupt_records=1, shuffle=False)
        batches = data.training_batches(folder, tokenizer, settings)
        lost, first = 0, (64 + 3) * 64
        for index in range(int(batches.batches_per_epoch)):
            batch = batches.batch(index)
            assert np.isfinite(batch["weights"]).all()
            rows = np.flatnonzero((batch["weights"] == 0).any(axis=1))
            starts = (index * 6 + rows) * 31
            assert ((starts + 31 >= first) & (starts < first + 64)).all()
            lost += int((batch["weights"] == 0).sum())
        assert 64 <= lost < 64 + 2 * 31
        assert "train-00001.tfrecord at byte offset 432" in caplog.text
        assert intact.tokens.num_tokens > 0
        content[9 * 144 + 20] ^= 1
        shard.write_bytes(content)
        again = data.training_batches(folder, tokenizer, settings)
        with pytest.raises(data.CorruptRecordError, match="offset 1296"):
            for index in range(int(again.batches_per_epoch)):
                again.batch(index)

    @pytest.fixture
    def damaged(self, prepare):
        """A folder with one damaged record in either part."""
        folder = prepare()
        for part in ("train", "valid"):
            shard = folder / f"{part}-00000.tfrecord"
            content = bytearray(shard.read_bytes())
            content[3 * 144 + 20] ^= 1
            shard.write_bytes(content)
        return folder

    def test_no_damage_is_allowed_in_validation_text(self, damaged, tokenizer):
        settings = config(max_corrupt_records=1)
        data.training_batches(damaged, tokenizer, settings)
        for read in (data.validation_batches, data.load_splits):
            with pytest.raises(data.CorruptRecordError, match="valid-00000.* 432"):
                read(damaged, tokenizer, settings)

    def test_a_mean_never_counts_tokens_that_were_not_read(self, damaged, tokenizer):
        settings = config(max_corrupt_records=1)
        store = data.load_tokens(damaged, tokenizer, settings)  # May lack a record.
        batches = data.validation_batches(store, tokenizer, settings)
        assert batches.batch(0)["weights"].sum() == 6 * 31
        with pytest.raises(data.CorruptRecordError, match="tokens from row 6 on"):
            list(batches)

    def test_missing_and_added_files(self, prepare, tokenizer):
        folder = prepare()
        (folder / "extra.txt").write_text("x")
        with pytest.raises(CorruptFolderError, match="extra.txt is not in"):
            data.load_tokens(folder, tokenizer, config())
        (folder / "extra.txt").unlink()
        (folder / "train-00003.tfrecord").unlink()
        with pytest.raises(CorruptFolderError, match=r"00003\.tfrecord is missing"):
            data.load_tokens(folder, tokenizer, config())

    def test_swapped_shards(self, prepare, tokenizer):
        folder = prepare()
        a, b = (folder / f"train-0000{i}.tfrecord" for i in (0, 1))
        content = a.read_bytes()
        shutil.copy(b, a)
        b.write_bytes(content)
        with pytest.raises(CorruptFolderError, match="differs from its manifest"):
            data.load_tokens(folder, tokenizer, config())

    def test_links_are_refused(self, prepare, tokenizer, tmp_path):
        folder = prepare()
        shard = folder / "train-00000.tfrecord"
        shard.rename(tmp_path / "elsewhere")
        shard.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CorruptFolderError, match="is a link"):
            data.load_tokens(folder, tokenizer, config())

    @pytest.mark.parametrize(
        "name",
        ["../train-00000.tfrecord", "/etc/passwd", "tokenizer/tokenizer.json", "."],
    )
    def test_names_that_leave_the_folder_are_refused(self, prepare, tokenizer, name):
        from keras_llm.core import write_json, write_manifest

        folder = prepare()
        description = json.loads((folder / "prepared.json").read_text())
        description["parts"]["train"]["shards"][0]["name"] = name
        (folder / "prepared.json").unlink()
        (folder / "manifest.json").unlink()
        write_json(folder / "prepared.json", description)
        write_manifest(folder)
        with pytest.raises(CorruptFolderError, match="must be a plain file"):
            data.load_tokens(folder, tokenizer, config())

    @pytest.mark.parametrize(
        "change",
        [
            {"version": 2},
            {"kind": "other"},
            {"record_tokens": "many"},
            {"token_type": "object"},
            {"parts": {}},
            {"parts": []},
            {"config": {"json_feld": "x"}},
        ],
    )
    def test_descriptions_that_make_no_sense_are_refused(
        self, prepare, tokenizer, change
    ):
        from keras_llm.core import write_json, write_manifest

        folder = prepare()
        description = json.loads((folder / "prepared.json").read_text())
        write_json(folder / "prepared.json", description | change)
        (folder / "manifest.json").unlink()
        write_manifest(folder)
        with pytest.raises(CorruptFolderError):
            data.load_tokens(folder, tokenizer, config())
