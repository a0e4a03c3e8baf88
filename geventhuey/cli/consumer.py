"""geventhuey-consumer: runs an application's tasks, in one process or in several."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import geventhuey
from geventhuey.cli import patching, supervisor
from geventhuey.cli.loading import load_huey
from geventhuey.cli.open_files import allow_open_files
from geventhuey.clock import to_datetime
from geventhuey.consumer.options import WORKER_GREENLET, Options
from geventhuey.crontab import Crontab
from geventhuey.exceptions import ConfigurationError, StorageError, StorageUnavailable

if TYPE_CHECKING:
    from geventhuey.api import Huey

logger = logging.getLogger('geventhuey.consumer')

#: Exit codes: bad usage (as argparse has it), and a configuration that trying again will not mend (as sysexits.h has it).
EX_USAGE, EX_CONFIG = 2, 78
EX_INTERRUPTED = 130
#: Files that a consumer itself needs, generously.
SPARE_FILES = 100
#: Seconds that the first of several processes has to say what they all have found, before another one does.
FIRST_SAYS = 5.0

#: The collector's thresholds as this interpreter has them, and those of a consumer.
DEFAULT_THRESHOLD = gc.get_threshold()
CALM_THRESHOLD = 20_000, 20, 50

GROUPS = {
    'work': 'what runs tasks',
    'time': 'periodic and scheduled tasks',
    'health': 'life and death',
    'compatible': "Huey's options that have nothing left to do",
}
EPILOG = """\
examples:
  geventhuey-consumer app.huey                        100 greenlets on one core
  geventhuey-consumer app.huey -w 500 -p 2            two processes with 500 greenlets each
  geventhuey-consumer app.huey -k thread -w 16        native threads, nothing is patched
  geventhuey-consumer app.huey -k process -w 4        four processes that run one task at a time

SIGTERM or SIGINT: no more tasks are fetched, running ones have --shutdown-timeout seconds to end, and what
has not ended by then goes back to the head of its queue. A second signal does not wait; a third one exits at once.
"""
LOG_FORMAT = '[%(asctime)s] %(levelname)s:%(name)s:%(process)d:%(message)s'


def main(argv: Sequence[str] | None = None) -> int:
    """The command; answers its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    place = supervisor.take_place()
    parser = build_parser()
    flags = parser.parse_args(args)
    try:
        options = options_of(flags)
        set_up_logging(flags)
    except ConfigurationError as exc:
        parser.error(str(exc))
    supervisor.die_with_parent()
    if place.is_child:
        options = supervisor.options_of_child(options)
    elif supervisor.is_needed(options):
        return supervisor.Supervisor(args, options).run()
    if options.worker_type == WORKER_GREENLET:
        patching.patch()
    try:
        return consume(flags, options, place)
    except KeyboardInterrupt:       # while the application was imported: after that, signals are the consumer's
        return EX_INTERRUPTED
    except (ConfigurationError, StorageError) as exc:
        if not place.is_first:      # the first one says the same, and then all are stopped
            time.sleep(FIRST_SAYS)
        print(f'geventhuey-consumer: {exc}', file=sys.stderr)
        return EX_CONFIG


def consume(flags: argparse.Namespace, options: Options, place: supervisor.Place) -> int:
    """Runs the consumer in this process. Raises ConfigurationError or StorageError when there is no point in trying."""
    huey = load_huey(flags.huey)
    if flags.url:
        huey.use_url(flags.url)
    if place.is_child and huey.storage.in_process:
        raise ConfigurationError(f'{flags.huey} keeps its tasks in the memory of one process; several processes cannot share it')
    consumer = huey.create_consumer(**dataclasses.asdict(options))
    make_room_for_files(options.workers)
    calm_collector()
    if place.is_first:
        announce(flags.huey, huey, options, place.of)
    return consumer.run()


def build_parser() -> argparse.ArgumentParser:
    """The parser; the flags of ``Options`` are made from its fields."""
    parser = argparse.ArgumentParser(
        'geventhuey-consumer', description='Runs the tasks of a geventhuey application.', epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument('huey', metavar='path.to.huey', help='where the application is: a module and the name in it, such as app.huey')
    parser.add_argument('--version', action='version', version=f'geventhuey {geventhuey.__version__}')
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for field in dataclasses.fields(Options):
        add_option(groups[field.metadata['group']], field)
    groups['time'].add_argument('-u', '--utc', dest='utc', action='store_true', help='crontab means UTC (the default)')
    storage = parser.add_argument_group('storage')
    storage.add_argument('--url', metavar='URL', help='where the tasks are, instead of what the application says: redis://host:port/db, '
                         'rediss://..., unix://path, redis+sentinel://host:port,host:port/service, redis+cluster://host:port,host:port '
                         '(applications that do not say it use $GEVENTHUEY_URL)')
    log = parser.add_argument_group('log')
    log.add_argument('-l', '--logfile', metavar='FILE', help='write the log there instead of to stderr; it may be rotated')
    level = log.add_mutually_exclusive_group()
    level.add_argument('-v', '--verbose', dest='level', action='store_const', const=logging.DEBUG, default=logging.INFO,
                       help='log every task')
    level.add_argument('-q', '--quiet', dest='level', action='store_const', const=logging.ERROR, help='log errors only')
    return parser


def add_option(group: Any, field: dataclasses.Field[Any]) -> None:
    """The flag of a field."""
    known = field.metadata
    if isinstance(field.default, bool):
        group.add_argument(*known['flags'], dest=field.name, action='store_const', const=not field.default,
                           default=field.default, help=known['help'])
        return
    default = known['command_default']
    said = f' (default: {default:g})' if isinstance(default, (int, float)) else f' (default: {default})' if default else ''
    group.add_argument(*known['flags'], dest=field.name, type=known['kind'], default=default, help=known['help'] + said,
                       metavar=known['kind'].__name__.upper() if known['kind'] is not str else field.name.upper())


def options_of(flags: argparse.Namespace) -> Options:
    """The options that the flags say. Raises ConfigurationError."""
    return Options(**{field.name: getattr(flags, field.name) for field in dataclasses.fields(Options)})


def set_up_logging(flags: argparse.Namespace) -> None:
    """The log goes where the flags say. Raises ConfigurationError when it cannot be written there."""
    try:
        handler = logging.handlers.WatchedFileHandler(flags.logfile) if flags.logfile else logging.StreamHandler()
    except OSError as exc:
        raise ConfigurationError(f'the log cannot be written to {flags.logfile}: {exc.strerror}') from exc
    logging.basicConfig(level=flags.level, format=LOG_FORMAT, handlers=[handler])


def make_room_for_files(workers: int) -> None:
    """Each worker may have a file or socket open; a warning says when the system does not allow that."""
    allowed = allow_open_files(workers + SPARE_FILES)
    if allowed < workers + SPARE_FILES:
        logger.warning('%d workers, but only %d files may be open (ulimit -Hn): tasks that open one each will fail beyond that',
                       workers, allowed)


def calm_collector() -> None:
    """The garbage collector leaves alone what the application has loaded, and looks for cycles less often.

    A new object counts against the threshold while it lives: with thousands of tasks in flight the default one (700, or
    2,000) is passed all the time, without any garbage.  What the application has set itself is kept.
    """
    gc.collect()
    gc.freeze()
    if gc.get_threshold() == DEFAULT_THRESHOLD:
        gc.set_threshold(*CALM_THRESHOLD)


def announce(path: str, huey: Huey, options: Options, count: int) -> None:
    """The log says what each of the consumers runs with. Raises StorageRefused when the storage does not let us in."""
    import gevent
    logger.info('geventhuey %s, gevent %s: %s with %d %s%s, PID %d', geventhuey.__version__, gevent.__version__, path,
                options.workers, options.worker_type + ('s' if options.workers > 1 else ''),
                f' in each of {count} processes' if count > 1 else '', os.getpid())
    logger.info('application %r, queue %r, serializer %s%s, tasks at %s', huey.name, 'default', huey.serializer.name,
                ', signed' if huey.envelope.signs else '', huey.storage.describe())
    try:
        server, warnings = huey.storage.check()
        logger.info('storage: %s', server)
        for warning in warnings:
            logger.warning('storage: %s', warning)
    except StorageUnavailable:          # the consumer says so when it starts
        pass
    if huey.storage.in_process:
        logger.warning('the tasks are in the memory of this process: nobody else can send it any; use RedisHuey, or --url')
    logger.info('results are %s; periodic tasks are %s, by %s', 'kept' if huey.result_store else 'not kept',
                'enabled' if options.periodic else 'disabled', 'UTC' if options.utc else 'local time')
    logger.info('tasks: %s', ', '.join(huey.get_regular_tasks()) or 'none')
    for line in periodic_lines(huey, options.utc):
        logger.info('periodic: %s', line)


def periodic_lines(huey: Huey, utc: bool) -> list[str]:
    """Each periodic task and when it runs next, as far as its crontab says."""
    now = to_datetime(time.time(), utc)
    lines = []
    for cls in huey.registry.periodic():
        rule = getattr(cls, 'rule', None)
        when = f'next at {rule.next_after(now):%Y-%m-%d %H:%M} {"UTC" if utc else "local time"}' if isinstance(rule, Crontab) else \
            'when its own function says so'
        lines.append(f'{cls.task_name}, {when}')
    return lines


if __name__ == '__main__':
    sys.exit(main())
