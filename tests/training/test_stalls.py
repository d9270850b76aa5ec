"""A batch that does not come is named while it does not come."""

import logging
import time

from keras_llm.training import stalls as stalls_lib
from keras_llm.training.stalls import Stalls


def test_a_batch_that_does_not_come_is_named_while_it_does_not(caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(stalls_lib, "_STALL_S", 0.2)
    monkeypatch.setattr(stalls_lib, "_LOOK_S", 0.01)
    stalls = Stalls()
    with stalls.reading(6):
        pass
    with stalls.reading(7):
        deadline = time.monotonic() + 30.0
        while len(caplog.records) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) >= 2  # Again, and not at every look.
    assert all(text.startswith("Step 7 has waited 0 s for its batch") for text in said)
    time.sleep(0.5)
    assert len(caplog.records) == len(said)
    stalls.close()
    stalls._thread.join(30)
    assert not stalls._thread.is_alive()
