"""Numbers packed into the bits of a QA band, as MODIS has them, mask what they mean and no more."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.collection import MaskRule, collection_from_dict, collection_to_dict
from geostore.errors import InvalidInput
from geostore.scene import load_collection
from geostore.scene.masks import masked_by


def test_a_field_is_compared_as_a_number() -> None:
    """Against plain arithmetic over every 16-bit value: bits 6 to 7 equal to 2 or 3, whatever the others are."""
    words = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    rule = MaskRule("QA", values=(2, 3), field=(6, 7))
    assert np.array_equal(masked_by(rule, words), np.isin(words // 64 % 4, (2, 3)))
    signed = words.view(np.int16)  # some products keep their bits in a signed band
    assert np.array_equal(masked_by(rule, signed), masked_by(rule, words))


def test_modis_state_keeps_what_is_assumed_clear() -> None:
    """Of the cloud state 00 clear, 01 cloudy, 10 mixed, 11 assumed clear the preset masks the two in the middle."""
    rules = load_collection("modis-09").masks
    state = np.array([[0b00, 0b01, 0b10, 0b11, 1 << 2, 1 << 10, 1 << 12]], np.uint16)
    masked = np.logical_or.reduce([masked_by(rule, state) for rule in rules])
    assert masked.tolist() == [[False, True, True, False, True, True, False]]


def test_a_field_survives_the_collection_file() -> None:
    """Written to a store and read back the collection is the same."""
    collection = load_collection("modis-09")
    assert collection_from_dict(collection_to_dict(collection)) == collection


@pytest.mark.parametrize("field", [(3,), (5, 4), (-1, 2), (0, 63), (0, 1, 2)])
def test_a_field_that_is_none_is_refused(field: tuple[int, ...]) -> None:
    """A field has two ascending bit positions, and values."""
    with pytest.raises(InvalidInput, match="first and last bit"):
        MaskRule("QA", values=(1,), field=field)
    with pytest.raises(InvalidInput, match="values are needed"):
        MaskRule("QA", field=(0, 1))
