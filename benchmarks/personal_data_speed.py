"""How long personal data is looked for in texts made to be slow: ms per 100 KB.

Each text repeats a unit: what almost is an address or a number, and what is one. The
bar is 10 ms for the first kind; the second, where every few letters are an item, is
reported beside it. The smallest of nine times is printed, in process seconds.

Example: python benchmarks/personal_data_speed.py
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from keras_llm.cleaning import scrub

ROOT = pathlib.Path(__file__).parents[1]
BYTES = 100_000
BAR_MS = 10.0
PATHOLOGICAL = {
    "letters": "a",
    "an address without an end": "a@a.",
    "an address of many parts": "a@" + "a.a" * 20,
    "ats": "a@",
    "dots": "1.",
    "digits": "4",
    "colons": "2001:",
    "groups of digits": "4111 ",
    "spaces": " ",
    "hyphens": "4-",
    "signs": "'@-.",
}
DENSE = {
    "e-mail addresses": "a@b.co ",
    "payment cards": "4111 1111 1111 1111 ",
    "IP addresses, version 4": "8.8.4.4 ",
    "IP addresses, version 6": "2a00:1450:4001:81b::200e ",
}


def seconds(unit: str, size: int, repeats: int) -> float:
    """Returns the least time of `repeats` over a text of `size` characters."""
    text = unit * (size // len(unit))
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        scrub(text)
        spent.append(time.process_time() - start)
    return min(spent)


def main() -> None:
    """Prints the time of each text; ends with status 1 where one misses the bar."""
    missed = False
    for title, units in (("almost", PATHOLOGICAL), ("items alone", DENSE)):
        for name, unit in units.items():
            spent = 1e3 * seconds(unit, BYTES, repeats=9)
            print(f"{title:12} {name:26} {spent:6.1f} ms per 100 KB")
            missed = missed or (units is PATHOLOGICAL and not spent <= BAR_MS)
    prose = (ROOT / "testdata" / "moby_dick.txt").read_text(encoding="utf-8")
    spent = 1e3 * seconds(prose[:BYTES], BYTES, repeats=9)
    print(f"{'prose':12} {'Moby Dick':26} {spent:6.1f} ms per 100 KB")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
