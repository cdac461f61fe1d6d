"""``gru4rec serve``: recommendations over HTTP while visitors click."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gru4rec.cli.common import add_output_options, positive, say, whole_number
from gru4rec.errors import ConfigError
from gru4rec.serve.settings import SEARCH_CHOICES, STATE_TYPES

if TYPE_CHECKING:
    from gru4rec.serve.dial import Reading
    from gru4rec.serve.settings import ServeSettings

HELP = "answer requests for recommendations over HTTP"

_API_KEYS, _ADMIN_KEYS = "GRU4REC_API_KEYS", "GRU4REC_ADMIN_KEYS"
_MIB = 2**20
_OF_REDIS, _OF_MEMORY, _OF_BOTH = ("redis_prefix", "redis_timeout_ms"), ("session_memory",), ("ttl", "state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="model file of any kind")
    parser.add_argument("--demo", action="store_true", help="train a small model on a made-up shop and serve that")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on (8000)")
    parser.add_argument("--workers", metavar="N", type=positive, default=1, help="processes, each with the model (1)")
    parser.add_argument("--compare", metavar="MODEL", help="a second model, for the playground and model=compare")
    parser.add_argument("--catalogue", metavar="FILE", help="csv, tsv or parquet: titles, pictures, columns of items")
    parser.add_argument("--catalogue-id", metavar="NAME", help="its column of item ids (ItemId)")
    _add_session_options(parser)
    _add_speed_options(parser)
    _add_limit_options(parser)
    _add_access_options(parser)
    add_output_options(parser)


def _add_session_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sessions")
    group.add_argument("--redis", metavar="URL", help="keep sessions in this Redis, for all workers and machines")
    group.add_argument("--redis-prefix", metavar="TEXT", help="before each key (gru4rec:)")
    group.add_argument("--redis-timeout-ms", metavar="MS", type=positive, help="for an answer (100)")
    group.add_argument("--stateless", action="store_true", help="keep no sessions: requests bring them")
    group.add_argument("--ttl", metavar="S", type=positive, help="seconds a session is kept (1800)")
    group.add_argument("--session-memory", metavar="MIB", type=positive, help="for sessions in this process (256 MiB)")
    group.add_argument("--state", choices=STATE_TYPES, help="how states are kept (float32: exact)")


def _add_speed_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speed")
    group.add_argument("--bench", action="store_true", help="measure the ways of finding lists, print them, and end")
    group.add_argument(
        "--search",
        choices=SEARCH_CHOICES,
        default="auto",
        help="how lists are found; all are exact (auto: the fastest here)",
    )
    group.add_argument("--threads", metavar="N", type=positive, default=1, help="parts of a scan side by side (1)")
    group.add_argument("--batch", metavar="N", type=positive, default=64, help="sessions scored at once, at most (64)")
    group.add_argument(
        "--batch-wait-ms", metavar="MS", type=whole_number, default=0, help="how long one waits for others (0)"
    )


def _add_limit_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument("--max-k", metavar="N", type=positive, default=100, help="longest list (100)")
    group.add_argument("--max-clicks", metavar="N", type=positive, default=500, help="clicks of a session (500)")
    group.add_argument("--max-sessions", metavar="N", type=positive, default=100, help="sessions in a request (100)")
    group.add_argument("--max-body", metavar="BYTES", type=positive, default=1_000_000, help="of a request (1000000)")
    group.add_argument("--body-timeout", metavar="S", type=positive, default=5, help="for it to arrive (5)")
    group.add_argument(
        "--max-wait-ms",
        metavar="MS",
        type=positive,
        default=50,
        help="estimated wait above which answers are 429 (50)",
    )
    group.add_argument(
        "--timeout-ms", metavar="MS", type=positive, default=2000, help="wait after which it is 503 (2000)"
    )
    group.add_argument(
        "--drain", metavar="S", type=whole_number, default=1, help="seconds to answer on after SIGTERM (1)"
    )


def _add_access_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("access")
    group.add_argument("--keys", metavar="FILE", help=f"API keys, one a line (${_API_KEYS}; none: /v1 is open)")
    group.add_argument(
        "--admin-keys", metavar="FILE", help=f"admin keys, one a line (${_ADMIN_KEYS}; none: /admin is closed)"
    )
    group.add_argument("--cors", metavar="ORIGIN", nargs="+", default=[], help="web origins whose pages may ask (none)")
    group.add_argument("--access-log", action="store_true", help="a line for each request, without ids")


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    _check(args)
    with _model(args) as model:
        if args.bench:
            return _bench(args, model)
        settings = _settings(args, model)
        try:
            from gru4rec.serve.http.workers import serve
        except ImportError as error:
            raise ConfigError(
                f"serving needs the package {error.name}, which is not installed. Run: pip install 'gru4rec[serve]'"
            ) from None
        host = f"[{args.host}]" if ":" in args.host else args.host
        greeting = f"http://{host}:{args.port}/ shows a playground, and /docs the interface. Ctrl-C ends"
        return serve(settings, args.host, args.port, lambda: say(args, greeting))


def _check(args: argparse.Namespace) -> None:
    if (args.model is None) != args.demo:
        raise ConfigError("give a MODEL to serve, or --demo, and not both")
    if args.redis and args.stateless:
        raise ConfigError("--redis keeps sessions and --stateless keeps none. Give one of them")
    if args.workers > 1 and not (args.redis or args.stateless):
        raise ConfigError(
            f"--workers {args.workers} do not share memory, so a session would be in one of them. "
            "Give --redis URL to share sessions, or --stateless"
        )
    if args.json and not args.bench:
        raise ConfigError("--json is for --bench: a service logs JSON lines anyway. Leave it away, or give --bench")
    if args.catalogue_id is not None and args.catalogue is None:
        raise ConfigError("--catalogue-id names a column of a catalogue. Give --catalogue FILE too")
    if args.stateless:
        _check_useless(args, (*_OF_REDIS, *_OF_MEMORY, *_OF_BOTH), "--stateless keeps no sessions")
    elif args.redis:
        _check_useless(args, _OF_MEMORY, "--redis keeps sessions elsewhere")
    else:
        _check_useless(args, _OF_REDIS, "without --redis sessions are in the memory of the process")


def _check_useless(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} changes nothing: {why}. Leave it away")


def _settings(args: argparse.Namespace, model: str) -> ServeSettings:
    from gru4rec.serve.http.keys import read_keys
    from gru4rec.serve.settings import Limits, ServeSettings, SessionSettings

    given = {
        "redis_url": args.redis,
        "redis_prefix": args.redis_prefix,
        "redis_timeout_s": None if args.redis_timeout_ms is None else args.redis_timeout_ms / 1000,
        "ttl_s": args.ttl,
        "memory_bytes": None if args.session_memory is None else args.session_memory * _MIB,
        "state_type": args.state,
    }
    sessions = SessionSettings(**{name: value for name, value in given.items() if value is not None})
    limits = Limits(
        k=args.max_k,
        session_items=args.max_clicks,
        sessions_a_request=args.max_sessions,
        body_bytes=args.max_body,
        body_s=args.body_timeout,
        wait_ms=args.max_wait_ms,
        answer_s=args.timeout_ms / 1000,
    )
    return ServeSettings(
        model,
        compare=args.compare,
        catalogue=args.catalogue,
        catalogue_id=args.catalogue_id or "ItemId",
        search=args.search,
        threads=args.threads,
        sessions=None if args.stateless else sessions,
        limits=limits,
        batch_sessions=args.batch,
        batch_wait_ms=args.batch_wait_ms,
        api_keys=read_keys(args.keys, os.environ.get(_API_KEYS), what="API keys"),
        admin_keys=read_keys(args.admin_keys, os.environ.get(_ADMIN_KEYS), what="admin keys"),
        cors_origins=tuple(args.cors),
        access_log=args.access_log,
        quiet=args.quiet,
        drain_s=args.drain,
        n_workers=args.workers,
    )


@contextlib.contextmanager
def _model(args: argparse.Namespace) -> Iterator[str]:
    """Give the path of the model: the one that was named, or one of a made-up shop for as long as it is served."""
    if not args.demo:
        yield args.model
        return
    from gru4rec.cli.demo import train_demo

    with tempfile.TemporaryDirectory(prefix="gru4rec-demo-") as folder:
        path = str(Path(folder) / "demo.gru4rec")
        say(args, "training on a made-up shop")
        train_demo(path)
        yield path


def _bench(args: argparse.Namespace, model: str) -> int:
    """Print the dial."""
    import torch

    from gru4rec.baselines.files import load
    from gru4rec.serve.dial import fastest, read_dial

    torch.set_num_threads(1)
    fitted = load(model)
    readings = list(read_dial(fitted.scorer, fitted.support, threads=args.threads))
    chosen, _ = fastest(fitted.scorer, threads=args.threads)
    if args.json:
        print(
            json.dumps({"auto": chosen, "n_items": fitted.items.n_items, "readings": [vars(each) for each in readings]})
        )
        return 0
    print(f"{fitted.items.n_items:,} items; lists of 20 compared with scoring everything; times are medians")
    together = f"ms each of {readings[0].n_together}"
    print(f"{'search':<9}{'recall@20':>10}{'same lists':>12}{'ms alone':>10}{together:>16}{'MB':>9}{'s to build':>12}")
    for each in readings:
        print(_row(each) + ("   <- auto" if each.search == chosen else ""))
    return 0


def _row(reading: Reading) -> str:
    return (
        f"{reading.search:<9}{reading.recall:>10.4f}{reading.same_lists:>12.1%}{reading.ms_alone:>10.2f}"
        f"{reading.ms_together:>16.2f}{reading.n_bytes / 1e6:>9.1f}{reading.build_s:>12.2f}"
    )


def _port(text: str) -> int:
    number = whole_number(text)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is above 65535")
    return number
