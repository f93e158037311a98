"""The reader of ``exclude`` in C against the one in Python, which says what is right and what is wrong with a text."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trireme_runtime import native
from trireme_runtime.native import cpu_flags, load, variants
from trireme_runtime.native.exclusions import NativeExclusions
from trireme_runtime.triton.parameters import MOST_EXCLUDED, Exclusions, InvalidRequestError

LARGEST = 2**63 - 1
ids = st.integers(0, 50) | st.integers(0, LARGEST)
catalogues = st.sets(ids, min_size=1, max_size=60).map(lambda chosen: np.array(sorted(chosen), np.int64))


@pytest.fixture(scope="module", params=variants(platform.machine(), cpu_flags()))
def kernels(request: pytest.FixtureRequest) -> ctypes.PyDLL:
    loaded = load(Path(native.__file__).parent, [request.param])
    assert loaded is not None
    return loaded


@settings(deadline=None)
@given(catalogues, st.lists(st.lists(ids, max_size=8), min_size=1, max_size=4), st.data())
def test_every_id_is_found_with_its_row(
    kernels: ctypes.PyDLL, item_ids: np.ndarray, others: list[list[int]], data: st.DataObject
) -> None:
    """Of ids close together and far apart, unknown ones among them."""
    given = [[*row, *data.draw(st.lists(st.sampled_from(item_ids.tolist()), max_size=8))] for row in others]
    text = ";".join(",".join(map(str, row)) for row in given)
    found = NativeExclusions(kernels, item_ids).read(text, len(given), MOST_EXCLUDED)
    assert found is not None
    place = {item: index for index, item in enumerate(item_ids.tolist())}
    expected = [(row, place[item]) for row, listed in enumerate(given) for item in listed if item in place]
    assert list(zip(found[0].tolist(), found[1].tolist(), strict=True)) == expected
    assert (found[0].dtype, found[1].dtype) == (np.int64, np.int32)


@settings(deadline=None, max_examples=500)
@given(st.text("0129;;,, x-\0é\ud800", max_size=24), st.integers(1, 4))
def test_what_is_wrong_for_one_reader_is_wrong_for_the_other(kernels: ctypes.PyDLL, text: str, rows: int) -> None:
    item_ids = np.arange(0, 300, 2)
    found = NativeExclusions(kernels, item_ids).read(text, rows, MOST_EXCLUDED)
    try:
        expected = Exclusions(item_ids, None).read(text, rows)
    except InvalidRequestError:
        assert found is None
    else:
        assert found is not None
        assert [array.tolist() for array in found] == [array.tolist() for array in expected]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (str(LARGEST), True),
        (str(LARGEST + 1), False),
        ("0" * 18 + "4", True),
        ("0" * 19 + "4", False),
        ("9" * 19, False),
        (",".join(["4"] * MOST_EXCLUDED), True),
        (",".join(["4"] * (MOST_EXCLUDED + 1)), False),
        (";".join([",".join(["4"] * MOST_EXCLUDED)] * 2), True),
        ("4;4;4", False),
    ],
)
def test_both_readers_have_the_same_limits(kernels: ctypes.PyDLL, text: str, allowed: bool) -> None:
    item_ids = np.array([4, LARGEST])
    found = NativeExclusions(kernels, item_ids).read(text, 2, MOST_EXCLUDED)
    assert (found is not None) == allowed
    if allowed:
        expected = Exclusions(item_ids, None).read(text, 2)
        assert found is not None
        assert [array.tolist() for array in found] == [array.tolist() for array in expected]
    else:
        with pytest.raises(InvalidRequestError):
            Exclusions(item_ids, None).read(text, 2)
