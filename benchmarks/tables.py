"""A part's results: rows that go to JSON as they are, and the columns of them that a table shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: With the unit.
        key: Of the rows.
        form: How numbers are written, as in ``format()``.
    """

    title: str
    key: str
    form: str = ""

    def text(self, row: Row) -> str:
        value = row.get(self.key)
        return "" if value is None else format(value, self.form)


@dataclass(frozen=True)
class Part:
    """What one part of the benchmark found.

    Attributes:
        title: Heading of its table.
        note: How it was measured.
        columns: Shown; where no row has a value, a column is left out.
        rows: Everything, for JSON.
        group: A line is drawn where this key's value changes.
    """

    title: str
    note: str
    columns: list[Column]
    rows: list[Row]
    group: str = ""

    def shown(self) -> list[Column]:
        return [column for column in self.columns if any(row.get(column.key) is not None for row in self.rows)]

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for column in self.shown():
            is_text = all(isinstance(row.get(column.key), str | None) for row in self.rows)
            table.add_column(column.title, justify="left" if is_text else "right")
        for row, next_row in zip(self.rows, [*self.rows[1:], {}], strict=True):
            is_last = row.get(self.group) != next_row.get(self.group)
            table.add_row(*(column.text(row) for column in self.shown()), end_section=is_last)
        return table

    def markdown(self) -> str:
        titles = [column.title for column in self.shown()]
        lines = [titles, ["---"] * len(titles), *([column.text(row) for column in self.shown()] for row in self.rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {self.title}\n\n{self.note}\n\n{table}\n"
