"""Strings made up by rule, the same in every run."""

import functools
import pathlib
import random

TESTDATA = pathlib.Path(__file__).parents[2] / "testdata"
UNRULY = [
    *"''''     \t\n\r\x0b\x0c\x00\x07\x1c\x1d\x1e\x1f\x7f\x85\xa0stmdrevlAaLéß09²½Ⅷ",
    *"\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u180e\u200b\ufeff\u0301\u200d中文风♥!.-",
    *"😀👩🏽🌊🇫🇷\U0001d7d8\U000105c0\U00016ea0\U000323b0\U0010ffff\ufffd\ufffe",
    *["'s", "'ll", "'re", "'VE", "'d", "  ", "\n\n", "<|endoftext|>", "the", " whale"],
]


def strings(count: int, unruly: list[str], seed: int = 7) -> list[str]:
    """Returns strings of any characters, of words, and half of them of `unruly`."""
    return list(_strings(count, tuple(unruly), seed))


@functools.cache
def _strings(count, unruly, seed):
    rng = random.Random(seed)
    words = (TESTDATA / "moby_dick.txt").read_text(encoding="utf-8").split()

    def character():
        while True:
            code_point = rng.choice([rng.randrange(0x3000), rng.randrange(0x110000)])
            if not 0xD800 <= code_point < 0xE000:
                return chr(code_point)

    texts = []
    for number in range(count):
        size = rng.randrange(1, 24)
        if number % 4 == 0:
            parts = [character() for _ in range(size)]
        elif number % 4 == 1:
            parts = rng.choices(words, k=size)
        else:
            parts = rng.choices(unruly, k=size)
        texts.append("".join(parts))
    return texts


def books() -> dict[str, str]:
    """Returns two books, in English and in Chinese, and some pages in Japanese."""
    names = ("moby_dick.txt", "tang_poems.txt", "japanese.txt")
    return {name: (TESTDATA / name).read_text(encoding="utf-8") for name in names}
