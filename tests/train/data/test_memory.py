"""Memory of batches."""

from __future__ import annotations

import pytest

from oxcart.train.data.memory import ALIGNMENT, BatchMemory


@pytest.mark.parametrize("shape", [(3,), (64, 2, 32, 32, 3), (9, 224, 224, 3)])
def test_batches_begin_where_the_kernel_copies_fastest(shape: tuple[int, ...]) -> None:
    memory = BatchMemory(pin=False)
    held = [memory.take(shape) for _ in range(4)]
    assert [one.data_ptr() % ALIGNMENT for one in held] == [0] * 4
    assert {tuple(one.shape) for one in held} == {shape}


def test_memory_of_a_batch_that_is_gone_is_used_again() -> None:
    memory = BatchMemory(pin=False)
    first = memory.take((8, 2, 16, 16, 3))
    place = first.data_ptr()
    other = memory.take((8, 2, 16, 16, 3))
    assert other.data_ptr() != place
    del first
    assert memory.take((4, 2, 16, 16, 3)).data_ptr() == place
