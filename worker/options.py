"""Which options of Celery's command line are honoured. The others are refused: none is accepted and ignored."""

from typing import Any, Final

import click
from celery.concurrency import solo
from celery.utils import sysinfo
from click.core import ParameterSource

from worker.settings import Settings, SettingsError

SAID: Final = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)  # not a default

_PER_CORE: Final = 16  # processes; with servers far away several share a core, more than that slow each other down
_SERVICE: Final = "no process is replaced while it is well; limit the memory of the service, a killed one loses nothing"
_TIME: Final = "a batch is one transaction; leave it out, PostgreSQL ends a statement that takes longer than a minute"
_INSTEAD: Final = {
    "pool": "every process is a worker of its own; leave it out, or say how many there are to be with -c N",
    "autoscale": "the number of processes is fixed; say it with -c N, and start another worker for more",
    "max_tasks_per_child": _SERVICE,
    "max_memory_per_child": _SERVICE,
    "time_limit": _TIME,
    "soft_time_limit": _TIME,
    "optimization": "nothing is handed out within a process; leave it out",
    "disable_prefetch": "what arrives together is applied together; set ENROLLMENT_BATCH_MESSAGES for smaller batches",
    "pool_start_method": "processes are forked; leave it out",
    "schedule_filename": "beat keeps its schedule in memory; leave it out",
}
_PROGRAM: Final = {  # options of `celery` itself
    "result_backend": "there are no results; read outcomes from the event stream, or from the table commands",
    "config": "the settings are the variables ENROLLMENT_…; set these",
    "loader": "the settings are the variables ENROLLMENT_…; set these",
}
_ONCE: Final = {  # what may be done once, not by each process
    "beat": "beat runs once; start it by itself with celery -A worker beat",
    "purge": "a process that is replaced would purge again; purge first with celery -A worker purge",
}


class TaskPool(solo.TaskPool):
    """The solo pool, set as `worker_pool`. Celery takes that for `--pool=prefork` too, which is known by this class."""

    __module__ = solo.__name__  # what the banner and `inspect stats` show


def count_of(concurrency: object) -> int:
    """Return how many processes `-c` means: `auto` is one per core that this process may use."""
    return int(str(concurrency or 1)) if concurrency != "auto" else sysinfo.cpu_budget().count  # type: ignore[attr-defined]


def check(context: click.Context, _parameter: click.Parameter, _value: object) -> None:
    """End with one sentence, before anything detaches or connects. The callback of an option that nobody gives."""
    try:
        settings = Settings.load()
        settings.require_database_url()
        settings.require_events_url()
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    _check_count(context.params["concurrency"])
    several = count_of(context.params["concurrency"]) > 1
    for name, instead in (_INSTEAD | _ONCE if several else _INSTEAD).items():
        if _is_said(context, name):
            where = "with -c N" if name in _ONCE else "with this worker"
            raise SystemExit(f"--{name.replace('_', '-')} cannot be used {where}: {instead}.")
    known = set(context.obj.app.amqp.queues)
    unknown = {*(context.params["queues"] or ()), *(context.params["exclude_queues"] or ())} - known
    if unknown:
        raise SystemExit(f"No such queue: {', '.join(sorted(unknown))}; the queues are {', '.join(sorted(known))}.")


def _check_count(concurrency: object) -> None:
    cores = count_of("auto")
    if count_of(concurrency) > _PER_CORE * cores:
        raise SystemExit(
            f"-c {concurrency} is more than {_PER_CORE} processes per core, of which there are {cores}; "
            "say -c auto for one per core, and start workers on other hosts for more."
        )


def check_beat(context: click.Context, _parameter: click.Parameter, _value: object) -> None:
    """End beat with one sentence where it is to keep its schedule in a file, which its scheduler does not read."""
    if _is_said(context, "schedule") and not _is_said(context, "scheduler"):
        raise SystemExit("--schedule cannot be used with this worker: beat keeps its schedule in memory; leave it out.")


def check_program(conf: Any, broker_url: str) -> None:
    """End with one sentence where an option of `celery`, or a variable that it reads, would go before the settings."""
    if {conf.broker_url, conf.broker_read_url, conf.broker_write_url} != {broker_url}:
        raise SystemExit(
            "--broker, BROKER_URL and CELERY_BROKER_URL cannot be used with this worker: it takes its broker from "
            "ENROLLMENT_BROKER_URL; set that, and leave them out."
        )
    context = click.get_current_context(silent=True)
    program = context and context.find_root()
    if program is None:
        return  # a library
    for name, instead in _PROGRAM.items():
        if program.params.get(name) and program.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise SystemExit(f"--{name.replace('_', '-')} cannot be used with this worker: {instead}.")


def _is_said(context: click.Context, name: str) -> bool:
    harmless = {"pool": solo.TaskPool, "optimization": "default"}
    value = context.params[name]
    return bool(value) and value != harmless.get(name) and context.get_parameter_source(name) in SAID
