"""Files of the repository that benchmarks read, wherever they are started."""

import pathlib

_ROOT = pathlib.Path(__file__).parents[2]


def test_file(name: str) -> pathlib.Path:
    """Returns the path of a file or folder of `testdata/`.

    Raises:
        FileNotFoundError: It is not there: an installed package has none.
    """
    path = _ROOT / "testdata" / name
    if not path.exists():
        raise FileNotFoundError(
            f"This benchmark reads testdata/{name} of the repository. Received: a "
            f"package at {_ROOT}, which has none beside it. Run it from a checkout."
        )
    return path
