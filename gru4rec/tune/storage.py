"""Where a study is kept: an sqlite file, an Optuna journal or a PostgreSQL database; and the lock for taking trials.

A server that is away for a while (a restart, a network) is waited for. Knows optuna, not what a trial does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, exc, inspect, make_url, text

from gru4rec.errors import ConfigError, DataError

PATIENCE_S = 600.0
"""How long a server that does not answer is waited for."""

_LOST_AFTER_BEATS = 3
_BUSY = ("starting up", "shutting down", "recovery", "not yet accepting", "too many", "connection slots")
"""What a server says that will take connections later; what else it says itself (a wrong password) will not change."""

_CONNECT = {"connect_timeout": 10}
_SQLITE, _JOURNAL = "sqlite:///", "journal:"
_RETRIED = (
    "create_new_trial", "set_trial_param", "set_trial_state_values", "set_trial_intermediate_value",
    "set_trial_user_attr", "set_trial_system_attr", "set_study_user_attr", "set_study_system_attr", "get_trial",
    "get_all_trials", "get_best_trial", "get_study_user_attrs", "get_study_system_attrs", "get_study_directions",
    "get_study_id_from_name", "get_study_name_from_id", "get_trial_id_from_study_id_trial_number", "record_heartbeat",
    "_get_stale_trial_ids", "_create_new_trial", "_set_trial_param", "_get_trials",
)  # fmt: skip
"""Calls of a database that are made again; what a call does twice over is sorted out where trials are taken."""


@dataclass(frozen=True)
class Address:
    """Where a study is kept.

    Attributes:
        kind: Of storage.
        url: What optuna opens: a URL, or the path of a journal.
        path: The file, of an sqlite file or a journal.
    """

    kind: Literal["sqlite", "journal", "postgresql"]
    url: str
    path: Path | None = None

    def __str__(self) -> str:
        """Return it as messages show it: without a password, and without options, which may hold one."""
        if self.kind == "postgresql":
            url = make_url(self.url)
            return str(URL.create(url.drivername, url.username, None, url.host, url.port, url.database))
        return f"{_JOURNAL}{self.path}" if self.kind == "journal" else f"{_SQLITE}{self.path}"

    @property
    def has_heartbeat(self) -> bool:
        """Whether a trial whose worker is lost on another machine is found."""
        return self.kind != "journal"


def address_of(given: str) -> Address:
    """Read an address: ``sqlite:///FILE``, ``journal:FILE`` or ``postgresql://USER:PASSWORD@HOST/NAME``.

    Raises:
        ConfigError: It is another.
    """
    scheme, _, rest = given.partition("://")
    if scheme in ("postgresql", "postgres", "postgresql+psycopg") and rest:
        _check_psycopg()
        with contextlib.suppress(exc.ArgumentError, ValueError):  # a port that is no number
            url = make_url(given)
            if "@" not in (url.host or "") and 0 < (url.port or 1) < 65536:  # else the end of a password
                return Address("postgresql", f"postgresql+psycopg://{rest}")
    elif given.startswith(_SQLITE) and given != _SQLITE:
        path = Path(given.removeprefix(_SQLITE)).absolute()
        if "?" in str(path):
            raise ConfigError(f"sqlite takes what follows a ? for options: {path}. Give a path without one")
        return Address("sqlite", f"{_SQLITE}{path}", path)
    elif given.startswith(_JOURNAL) and given != _JOURNAL:
        path = Path(given.removeprefix(_JOURNAL)).absolute()
        return Address("journal", str(path), path)
    scheme, _, rest = given.partition(":")
    shown = f"{scheme}:..." if rest else repr(given)  # the rest may hold a password
    raise ConfigError(
        f"cannot keep a study at --storage {shown}. Give sqlite:///FILE, journal:FILE or "
        "postgresql://USER:PASSWORD@HOST:PORT/NAME, with %40 for an @ in the password"
    )


class LostStorageError(DataError):
    """The storage is there no more, or not yet.

    Exit status 1: the input was usable, the run failed, and may go well another time.
    """

    exit_status = 1


def open_storage(address: Address, *, heartbeat_s: int, create: bool = False) -> BaseStorage:
    """Open a storage.

    Args:
        address: Where.
        heartbeat_s: Seconds between signs of life of a running trial.
        create: Make the tables where there are none. One process does so, before the others open the storage.

    Raises:
        DataError: It cannot be reached, or is no storage.
    """
    try:
        if address.kind == "journal":
            return JournalStorage(JournalFileBackend(address.url))
        options: dict[str, Any] = {"connect_args": _CONNECT, "pool_pre_ping": True}
        if address.kind == "sqlite":
            options = {"connect_args": {"timeout": 60}, "pool_events": [(_write_ahead, "connect")]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return _PatientStorage(
                address.url,
                engine_kwargs=options,
                heartbeat_interval=heartbeat_s,
                grace_period=_LOST_AFTER_BEATS * heartbeat_s,
                skip_table_creation=not create,
            )
    except (exc.SQLAlchemyError, StorageInternalError, RuntimeError, OSError, ValueError, KeyError) as error:
        raise _cannot_open(error, address) from None


def has_tables(address: Address) -> bool:
    """Tell whether a storage holds studies, without making anything in it.

    Raises:
        DataError: It cannot be reached.
    """
    if address.path is not None and (address.kind == "journal" or not address.path.exists()):
        return address.path.exists()
    engine = create_engine(address.url)
    try:
        return bool(inspect(engine).has_table("studies"))
    except exc.SQLAlchemyError as error:
        raise _cannot_open(error, address) from None
    finally:
        engine.dispose()


def wait_for_server(address: Address, *, tell: Callable[[str], None], check: Callable[[], None] = lambda: None) -> None:
    """Wait until a database server answers, as long as one that is away is waited for; files do not need it.

    Args:
        address: Of the storage.
        tell: Called with a line where there is something to wait for.
        check: Called before each try; what it raises ends the waiting.

    Raises:
        LostStorageError: It did not answer.
    """
    if address.kind != "postgresql":
        return
    until, told = time.monotonic() + PATIENCE_S, False
    engine = create_engine(address.url, connect_args=_CONNECT, poolclass=NullPool)
    while True:
        check()
        try:
            engine.connect().close()
            return
        except exc.OperationalError as error:
            if "FATAL" in str(error.orig) and not _is_busy(error):
                return  # whoever opens the storage will say what is wrong
            if time.monotonic() > until:
                raise LostStorageError(
                    f"the storage {address} did not answer for {PATIENCE_S / 60:.0f} minutes: {_first_line(error)}. "
                    f"{_advice(address)}"
                ) from None
            if not told:
                tell(f"waiting for the storage {address}: {_first_line(error)}")
                told = True
        time.sleep(2.0)


def close_storage(storage: BaseStorage) -> None:
    """Close a storage's connections."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def taking(address: Address, storage: BaseStorage, study_name: str) -> Iterator[Callable[[], bool]]:
    """Hold the study's lock: one process of all machines takes a trial at a time.

    Yields:
        Tells whether the lock is still held: a server that was stopped has given it away.
    """
    if address.path is not None:
        with _file_locked(_turn_file(address.path)):
            yield lambda: True
        return
    assert isinstance(storage, RDBStorage)
    connection = _patient(_turn_on_server)(storage.engine, study_name)
    try:

        def is_held() -> bool:
            try:
                connection.execute(text("SELECT 1"))
            except exc.SQLAlchemyError:
                return False
            return True

        yield is_held
    finally:
        with contextlib.suppress(exc.SQLAlchemyError):
            connection.close()


@contextlib.contextmanager
def making(address: Address) -> Iterator[None]:
    """Hold the storage's lock for making tables and studies: programs that begin at once would make them twice.

    Raises:
        DataError: The storage cannot be reached.
    """
    with contextlib.ExitStack() as stack:
        try:
            if address.path is not None:
                stack.enter_context(_file_locked(_turn_file(address.path)))
            else:
                engine = create_engine(address.url, connect_args=_CONNECT)
                stack.callback(engine.dispose)
                stack.enter_context(contextlib.closing(_turn_on_server(engine, "")))
        except (exc.SQLAlchemyError, OSError) as error:
            raise _cannot_open(error, address) from None
        yield


def _turn_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.turn")


def _turn_on_server(engine: Engine, name: str) -> Connection:
    """Wait for the lock of that name; it belongs to the connection's transaction, and ends with it."""
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
    connection = engine.connect()
    try:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
    except BaseException:  # a connection that was cut cannot be used again
        with contextlib.suppress(exc.SQLAlchemyError):
            connection.close()
        raise
    return connection


def try_lock(path: Path) -> IO[str]:
    """Lock a file until the returned one is closed or the process ends.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    import fcntl

    file = open(path, "a")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _write_ahead(connection: Any, record: object) -> None:
    """Let sqlite write without waiting for the disk at each step: a power cut may cost the last steps, not the file."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


@contextlib.contextmanager
def _file_locked(path: Path) -> Iterator[None]:
    import fcntl

    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system gives it back when the process ends
        yield


def _patient(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that is made again while the database does not answer."""

    @functools.wraps(call)
    def patient(*args: Any, **options: Any) -> Any:
        given_up_at = time.monotonic() + PATIENCE_S
        pause_s = 0.2
        while True:
            try:
                return call(*args, **options)
            except (StorageInternalError, exc.SQLAlchemyError) as error:
                if not _is_away(error) or time.monotonic() > given_up_at:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    return patient


class _PatientStorage(RDBStorage):
    """A database that may be away for a while."""


for _name in _RETRIED:
    if hasattr(RDBStorage, _name):
        setattr(_PatientStorage, _name, _patient(getattr(RDBStorage, _name)))


def _is_away(error: BaseException) -> bool:
    """Tell whether the database may answer later: no connection, a shutdown, or a file that is locked."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if not isinstance(cause, exc.DBAPIError):
        return isinstance(cause, exc.PendingRollbackError | exc.ResourceClosedError | exc.TimeoutError)
    if "sqlite" in type(cause.orig).__module__:
        return "locked" in str(cause.orig)
    return isinstance(cause, exc.OperationalError | exc.InterfaceError) or cause.connection_invalidated


def _is_busy(error: BaseException) -> bool:
    """Tell whether a server is there, and turns connections away for now."""
    return isinstance(error, exc.OperationalError) and any(words in str(error.orig) for words in _BUSY)


def _cannot_open(error: BaseException, address: Address) -> DataError:
    kind = LostStorageError if _is_busy(error) else DataError
    return kind(f"cannot open the storage {address}: {_first_line(error)}. {_advice(address)}")


def storage_failed(error: BaseException, address: Address) -> LostStorageError:
    """Word what ended the work with a storage."""
    cause = error.__cause__ or error
    return LostStorageError(f"the storage {address} does not work any more: {_first_line(cause)}. {_advice(address)}")


def quiet_optuna() -> None:
    """Let optuna say nothing: what happens to trials is told by this program."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="optuna")


def _advice(address: Address) -> str:
    if address.kind == "postgresql":
        return "Check that the server runs, and its name, user and password"
    return f"Check the folder {address.path.parent if address.path else ''}, or give --storage another file"


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip() or type(cause).__name__).partition("\n")[0].rstrip(".")


def _check_psycopg() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise ConfigError(
            "a study on PostgreSQL needs psycopg, which is missing. Run: pip install 'gru4rec[tune]'"
        ) from None
