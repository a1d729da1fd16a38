"""The Celery app. Importing it connects to nothing."""

import gc
import os
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, cast
from urllib.parse import urlsplit

import click
import structlog
from celery import Celery, signals
from celery.local import Proxy
from celery.worker import state
from redis import RedisError

from enrollment.addresses import is_redis
from migrations import NEWEST
from worker import health, liveness, logging, metrics, options, rabbitmq, tracing
from worker.consume import monitoring
from worker.processes import Processes
from worker.publishing import connect
from worker.service import Service
from worker.settings import Settings
from worker.transport import register

register()
log = structlog.get_logger(__name__)


class EnrollmentApp(Celery):
    """Celery, and the service that the tasks need: made on first use, anew in a forked process."""

    _service: tuple[int, Service] | None = None

    @property
    def service(self) -> Service:
        """The use cases of this process. Raises SettingsError."""
        if self._service is None or self._service[0] != os.getpid():
            self._service = (os.getpid(), Service.connect(Settings.load()))
        return self._service[1]

    def Worker(self, **said: Any) -> Any:  # type: ignore[override]  # noqa: N802 (Celery's)
        """Return what `celery worker` runs: Celery's worker, or with `-c N` what starts N of them."""
        worker = self.subclass_with_self("celery.apps.worker:Worker")  # type: ignore[arg-type]  # it takes a name as well
        count = options.count_of(said.get("concurrency"))
        return Processes(self, worker, count, **said) if count > 1 else worker(**{**said, "concurrency": 1})

    def config_from_cmdline(self, argv: Any, namespace: str = "celery") -> None:  # noqa: ARG002 (Celery's)
        """End with one sentence: Celery takes what follows the options for settings, and would change some of them."""
        raise SystemExit(f"{' '.join(argv)!r} cannot be used here: settings are the variables ENROLLMENT_…; set these.")


app = EnrollmentApp("enrollment", include=["tasks.commands", "tasks.periodic"])
# By its name, Celery would look in the current folder first, and take a stranger's without a word.
app.config_from_object(Proxy(partial(import_module, "celeryconfig")))
for program, check in {"worker": options.check, "beat": options.check_beat}.items():
    app.user_options[program].add(click.Option(["--check"], callback=check, expose_value=False, hidden=True))


@app.on_after_configure.connect
def check_program(sender: Celery, **_: Any) -> None:
    """End with one sentence where Celery would take other addresses than those of the settings."""
    options.check_program(sender.conf, import_module("celeryconfig").broker_url)


@signals.celeryd_init.connect
def check_cluster(**_: Any) -> None:
    """End the worker with one sentence, before it takes a message, where queue or stream lie on nodes of a cluster."""
    settings = Settings.load()
    queues = health.queue_keys(settings.broker_options.global_keyprefix)
    addresses = {settings.require_broker_url(): queues}
    addresses.setdefault(settings.require_events_url(), [settings.events_stream])
    for url, keys in filter(lambda it: is_redis(it[0]), addresses.items()):
        with suppress(RedisError), connect(url, patience=1) as client:  # one that is away is waited for, later
            finding = health.cluster("broker" if keys is queues else "events", client, *keys)
            if finding.status == "fail":
                raise SystemExit(f"{finding.message}. {finding.advice}.")


@signals.celeryd_init.connect
def check_queues(**_: Any) -> None:
    """End the worker with one sentence where RabbitMQ has a queue that is no quorum queue."""
    if is_redis(Settings.load().require_broker_url()):
        return
    with app.connection_for_read() as connection:
        try:
            rabbitmq.declare(connection, app.amqp.queues.values())
        except rabbitmq.QueueRefused as refused:
            raise SystemExit(str(refused)) from None
        except (*connection.connection_errors, *connection.channel_errors):
            return  # one that is away is waited for, later


@signals.setup_logging.connect
def set_up_logging(loglevel: int, logfile: str | None, colorize: bool, **_: Any) -> None:  # noqa: FBT001 (Celery's)
    """Replace Celery's own logging. `-l` goes before the variable; without it Celery gives a level of its own."""
    settings = Settings.load()
    context = click.get_current_context(silent=True)
    said = context is not None and context.get_parameter_source("loglevel") in options.SAID
    level = loglevel if said else settings.log_level
    logging.configure(level, settings.log_format, file=logfile, colors=colorize, warned=metrics.warned)


@signals.celeryd_after_setup.connect
def be_observed(sender: str, **_: Any) -> None:
    """Give signs of life, and serve metrics where that is set. Before the broker is there: that is when it counts."""
    settings = Settings.load()
    state.SOFTWARE_INFO[monitoring.REVISION] = NEWEST  # heartbeats carry it to `doctor`
    tracing.configure(settings, "enrollment-worker")
    liveness.process.start(sender, notify=settings.notify_socket)
    if settings.metrics_port is not None:
        broker = urlsplit(settings.require_broker_url().split(";")[0]).hostname
        address = metrics.serve(settings.metrics_host, settings.metrics_port, towards=broker)
        if address:
            state.SOFTWARE_INFO[monitoring.ADDRESS] = address  # heartbeats carry it to the exporter


@signals.worker_shutdown.connect
def end_observation(**_: Any) -> None:
    """Leave no sign of life behind."""
    liveness.process.stop()


@signals.worker_ready.connect
def warn_of_settings(**_: Any) -> None:
    """Say what about the broker may lose messages, or have work done twice: one line each, with what to change."""
    settings = Settings.load()
    findings: list[health.Finding] = []
    if is_redis(url := settings.require_broker_url()):
        with suppress(RedisError), connect(url) as client:
            info = cast(dict[str, Any], client.info())
            findings += [check("broker", info) for check in (health.redis_version, health.persistence, health.eviction)]
            findings += filter(None, [health.replication("broker", url, info)])
    if settings.events_url is not None:
        with suppress(RedisError), connect(settings.require_events_url()) as client:
            findings.append(health.eviction("events", cast(dict[str, Any], client.info())))
    for finding in findings:
        if finding.status != "ok":
            log.warning("setting", about=finding.name, found=finding.message, advice=finding.advice)


@signals.worker_ready.connect
def tune_gc(**_: Any) -> None:
    """Keep the garbage collector from walking through all of Celery for each batch; a batch makes few cycles.

    Measured: a quarter to a third less processor time per command.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@signals.worker_ready.connect
def relay_backlog(**_: Any) -> None:
    """Publish what a worker that was killed had committed and not sent."""
    app.service.relay()
