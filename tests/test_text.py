"""Tables of plain text."""

from localmim_jax.text import columns, padded


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [["", "first"], ["accuracy", "1"]]
    assert padded(rows) == [["        ", "first"], ["accuracy", "1    "]]
    assert columns(rows) == "          first\naccuracy  1"
