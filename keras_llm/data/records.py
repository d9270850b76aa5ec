r"""TFRecord framing for records of one fixed size, read at random.

A TFRecord is: length (8 bytes, little-endian), masked CRC-32C of those bytes (4),
the payload, masked CRC-32C of the payload (4). With payloads of one size n,
record i lies at offset i * (n + 16), so that any record is found without an
index; TensorFlow's own reader takes the same files.
"""

import functools
import struct

import numpy as np

# Castagnoli's polynomial, bits reversed (RFC 3720, appendix B.4).
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = np.uint32(0xA282EAD8)
_HEADER_BYTES = 12
_FOOTER_BYTES = 4


def masked_crc32c(data: np.ndarray) -> np.ndarray:
    """Returns the masked CRC-32C of each row, as TFRecord files hold it.

    A CRC is linear over bits, so that a row's CRC is the exclusive or of one table
    entry for each byte and place: thousands of bytes are looked up at once.

    Args:
        data: uint8 array [k, n].

    Returns:
        uint32 array [k].

    >>> crc = masked_crc32c(np.frombuffer(b"123456789", np.uint8)[None])
    >>> hex(crc[0])  # CRC-32C is 0xe3069283 (RFC 3720): here rotated and masked.
    '0xc78ab0e5'
    """
    count, length = data.shape
    table, start = _crc_table(length)
    places = np.arange(length, dtype=np.int64) * 256
    crc = np.empty(count, np.uint32)
    for i in range(0, count, 32):  # A few rows at a time stay in the cache.
        entries = np.take(table, data[i : i + 32] + places)
        crc[i : i + 32] = np.bitwise_xor.reduce(entries, axis=1)
    crc ^= start
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + _MASK_DELTA


@functools.lru_cache(maxsize=8)
def _crc_table(length: int) -> tuple[np.ndarray, np.uint32]:
    """Returns table[256 * place + byte], and the CRC of `length` zero bytes."""
    byte = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        odd = (byte & np.uint32(1)).astype(bool)
        byte = np.where(odd, (byte >> 1) ^ np.uint32(_POLYNOMIAL), byte >> 1)
    one_step = byte.astype(np.uint32)
    table = np.empty((length, 256), np.uint32)
    state = np.uint32(0xFFFFFFFF)
    entries = one_step
    for place in range(length - 1, -1, -1):
        table[place] = entries
        entries = one_step[entries & np.uint32(255)] ^ (entries >> np.uint32(8))
        state = one_step[state & np.uint32(255)] ^ (state >> np.uint32(8))
    return table.ravel(), state ^ np.uint32(0xFFFFFFFF)


class RecordFormat:
    """Framing and checking of records whose payload has one size.

    Args:
        payload_bytes: Size of every payload, in bytes.

    >>> records = RecordFormat(6)
    >>> framed = records.frame(np.zeros((2, 6), np.uint8))
    >>> framed.shape, records.intact(framed)
    ((2, 22), array([ True,  True]))
    >>> framed[1, 13] = 1
    >>> records.intact(framed)
    array([ True, False])
    """

    def __init__(self, payload_bytes: int):
        self.payload_bytes = payload_bytes
        self.stride = _HEADER_BYTES + payload_bytes + _FOOTER_BYTES
        length = np.frombuffer(struct.pack("<Q", payload_bytes), np.uint8)
        crc = masked_crc32c(length[None]).astype("<u4").view(np.uint8)
        self._header = np.concatenate([length, crc])

    def frame(self, payloads: np.ndarray) -> np.ndarray:
        """Returns whole records, uint8 [k, stride], of payloads uint8 [k, n]."""
        records = np.empty((len(payloads), self.stride), np.uint8)
        records[:, :_HEADER_BYTES] = self._header
        records[:, _HEADER_BYTES:-_FOOTER_BYTES] = payloads
        crc = masked_crc32c(payloads).astype("<u4")
        records[:, -_FOOTER_BYTES:] = crc.view(np.uint8).reshape(-1, _FOOTER_BYTES)
        return records

    def payloads(self, records: np.ndarray) -> np.ndarray:
        """Returns the payloads, uint8 [k, n], of whole records, unchecked."""
        return records[:, _HEADER_BYTES:-_FOOTER_BYTES]

    def intact(self, records: np.ndarray) -> np.ndarray:
        """Returns which records, uint8 [k, stride], have right lengths and CRCs."""
        header = (records[:, :_HEADER_BYTES] == self._header).all(axis=1)
        stored = np.ascontiguousarray(records[:, -_FOOTER_BYTES:]).view("<u4")[:, 0]
        return header & (masked_crc32c(self.payloads(records)) == stored)
