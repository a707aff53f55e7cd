"""What arrives is batched whole and in order, whatever the pieces, and not written over before it is written."""

import random

import pytest

from gts_async._files.batch import BATCH, Batch

CONTENT = random.Random(5).randbytes(3 * BATCH + 7)


@pytest.mark.parametrize("size", [1000, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH, len(CONTENT)])
def test_pieces_of_any_size_are_batched_in_order(size: int) -> None:
    batch, written = Batch(), list[bytes]()
    for start in range(0, len(CONTENT), size):
        rest = batch.add(memoryview(CONTENT)[start : start + size])
        while batch.is_full:
            written.append(bytes(batch.taken()))
            rest = batch.add(rest)
        assert not rest
    written.append(bytes(batch.taken()))
    assert [len(one) for one in written] == [BATCH] * 3 + [7]
    assert b"".join(written) == CONTENT


def test_what_is_taken_stays_as_it_is_until_the_next_is_taken() -> None:
    batch = Batch()
    batch.add(memoryview(b"first"))
    first = batch.taken()
    batch.add(memoryview(b"second"))
    assert bytes(first) == b"first"
    assert bytes(batch.taken()) == b"second"
    assert not batch.taken()
