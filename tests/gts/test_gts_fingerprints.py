import random

import pytest

from gts_async.gts.fingerprints import FEWEST_SLOTS, MAX_LINE_NUMBER, Fingerprints, Ids


def keys(count: int, seed: int = 1) -> list[int]:
    chance = random.Random(seed)
    return [chance.getrandbits(64) - (1 << 63) for _ in range(count)]


def test_a_key_is_found_again_with_its_first_line_and_value() -> None:
    seen = Fingerprints()
    assert [seen.put(key, 7, line) for line, key in enumerate([5, -5, 0])] == [-1, -1, -1]
    slot = seen.put(-5, 8, 9)
    assert (seen.line(slot), seen.is_value(slot, 7), seen.is_value(slot, 8)) == (1, True, False)


def test_growing_forgets_nothing() -> None:
    seen = Fingerprints()
    many = keys(5 * FEWEST_SLOTS)
    assert {seen.put(key, key, line) for line, key in enumerate(many)} == {-1}
    assert [seen.line(seen.put(key, 0, 0)) for key in many] == list(range(len(many)))
    assert seen.share == 1


def test_a_full_table_keeps_a_share_that_is_spread_over_the_whole_file() -> None:
    seen = Fingerprints(most=FEWEST_SLOTS)
    many = keys(8 * FEWEST_SLOTS)
    for line, key in enumerate(many):
        seen.put(key, key, line)
    assert seen.share == 16
    again = [line for line, key in enumerate(many) if seen.put(key, key, 0) >= 0]
    assert len(many) / 32 < len(again) < len(many) / 8
    assert min(again) < len(many) / 8
    assert max(again) > len(many) * 7 / 8


def test_keys_that_want_the_same_slot_are_told_apart() -> None:
    seen = Fingerprints()
    alike = [number * FEWEST_SLOTS for number in range(1, 20)]
    assert {seen.put(key, 0, line) for line, key in enumerate(alike)} == {-1}
    assert [seen.line(seen.put(key, 0, 99)) for key in alike] == list(range(19))


def test_lines_and_values_of_any_size_fit() -> None:
    seen = Fingerprints()
    seen.put(1, -(1 << 62), 1 << 40)
    slot = seen.put(1, 0, 1)
    assert seen.line(slot) == MAX_LINE_NUMBER
    assert seen.is_value(slot, -(1 << 62))


@pytest.mark.parametrize("most", [FEWEST_SLOTS, 1 << 18])
def test_what_two_tables_share_is_found_also_where_both_keep_a_part_only(most: int) -> None:
    common, mine, theirs = keys(4000, 1), keys(3000, 2), keys(100, 3)
    one, other = Fingerprints(most), Fingerprints(most)
    for line, key in enumerate(common + mine):
        one.put(key, 1, line)
    for line, key in enumerate(theirs + common):
        other.put(key, 1 + (line % 2), line)
    shared = sorted(one.shared(other))
    assert all(there == here + 100 and is_same == (there % 2 == 0) for here, there, is_same in shared)
    assert len(shared) == 4000 if most > FEWEST_SLOTS else 100 < len(shared) < 1000


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ([0, 1, 2, 3, 1], [False, False, False, False, True]),
        ([7, 8, 3, 9, 3, 8], [False, False, False, False, True, True]),
        (["a", 1, "a", 1.0], [False, False, True, True]),
        ([5, 7, 6, 7, 5], [False, False, False, True, True]),
        ([-3, -2, 1 << 70, 1 << 70], [False, False, False, True]),
    ],
)
def test_an_id_that_has_come_before_is_known(values: list[object], known: list[bool]) -> None:
    ids = Ids()
    assert [ids.is_known(value, line) for line, value in enumerate(values)] == known


def test_ids_that_count_up_need_no_room_and_are_all_compared() -> None:
    ids = Ids(most=FEWEST_SLOTS)
    assert not any(ids.is_known(number, number) for number in range(10 * FEWEST_SLOTS))
    assert all(ids.is_known(number, number) for number in range(0, 10 * FEWEST_SLOTS, 97))
    assert ids.share == 1
