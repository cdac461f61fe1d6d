"""What a raw log looks like: its columns, how its files are separated, which of its rows count.

Knows names and rules only; ``sources`` opens files, ``raw`` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gru4rec.errors import ConfigError

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]


@dataclass(frozen=True)
class Condition:
    """Rows whose column holds one of these values, such as ``event=view``; or any value, ``event=*``.

    Attributes:
        column: Name of the column.
        values: Texts, compared as they stand in the file; none of them: any text but an empty one will do.
    """

    column: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read ``COLUMN=VALUE``, ``COLUMN=VALUE,VALUE`` or ``COLUMN=*``.

        Raises:
            ConfigError: It is not of that form.

        Example:
            >>> Condition.parse("event_type=view,detail")
            Condition(column='event_type', values=('view', 'detail'))
        """
        column, equals, values = text.partition("=")
        column, words = column.strip(), tuple(value.strip() for value in values.split(","))
        if not column or not equals or not all(words) or words[0].startswith("="):
            raise ConfigError(f"{text!r} is no condition. Give COLUMN=VALUE, COLUMN=VALUE,VALUE or COLUMN=*")
        return cls(column, () if words == ("*",) else words)


@dataclass(frozen=True, kw_only=True)
class RawLayout:
    """How to read a raw log.

    Attributes:
        item_key: Column of item ids.
        time_key: Column of times: numbers, or ISO 8601 text; without a zone, text is taken as UTC.
        session_key: Column of session ids. Exactly one of this and ``user_key`` is given.
        user_key: Column of user (visitor) ids, where sessions are yet to be cut.
        header: Names of the columns, for text files whose first line is data already.
        separator: Character between the fields of text files; None finds it out from the first line.
        time_unit: Unit of numeric times; ``auto`` tells it from their size, taken as a time since 1970.
        date_key: Column of ISO dates: a session's earliest one is what ``time_key`` counts from, in ms.
        keep: Which rows count at all.
        missing: Texts that mean that an id or a time is missing, beside an empty field.
        keep_after_cut: Which rows count once sessions are cut: the others only say when a visitor was there.
    """

    item_key: str
    time_key: str
    session_key: str | None = None
    user_key: str | None = None
    header: tuple[str, ...] | None = None
    separator: str | None = None
    time_unit: TimeUnit = "auto"
    date_key: str | None = None
    missing: tuple[str, ...] = ()
    keep: Condition | None = None
    keep_after_cut: Condition | None = None

    def __post_init__(self) -> None:
        if (self.session_key is None) == (self.user_key is None):
            raise ConfigError(
                "sessions come from a session column or are cut from a user's events: "
                "give one of --session_key and --user_key"
            )
        if self.separator is not None and (len(self.separator.encode()) != 1 or self.separator in '"\r\n'):
            raise ConfigError(f"separator {self.separator!r} is not one ASCII character. Give one, such as ';' or TAB")
        keys = (self.group_key, self.item_key, self.time_key)
        if len(set(keys)) < 3:
            raise ConfigError(
                f"session or user, item and time must be three columns, not {', '.join(keys)}. "
                "Check --session_key or --user_key, --item_key and --time_key"
            )

    @property
    def group_key(self) -> str:
        """The column whose events belong together: of sessions, or of users."""
        return self.session_key or self.user_key or ""

    @property
    def flags(self) -> dict[str, str]:
        """Every column that is read, with the flag that names it."""
        flags = {
            self.group_key: "--user_key" if self.session_key is None else "--session_key",
            self.item_key: "--item_key",
            self.time_key: "--time_key",
        }
        if self.date_key is not None:
            flags.setdefault(self.date_key, "--date_key")
        for condition, flag in ((self.keep, "--keep"), (self.keep_after_cut, "--keep_after_cut")):
            if condition is not None:
                flags.setdefault(condition.column, flag)
        return flags
