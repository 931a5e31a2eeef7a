"""Tables of plain text."""

from collections.abc import Sequence


def padded(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows, each cell filled with spaces up to the width of its column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """One line a row, two spaces between columns."""
    return "\n".join("  ".join(row).rstrip() for row in padded(rows))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, its columns padded."""
    top, *rest = padded([head, *rows])
    rule = ["-" * len(cell) for cell in top]
    return [f"| {' | '.join(cells)} |" for cells in (top, rule, *rest)]
