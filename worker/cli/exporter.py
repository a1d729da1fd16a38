"""`enrollment exporter`: metrics of the whole system, for Prometheus."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from worker.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TARGETS: Final = "/targets"


def exporter(
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen. Default: ENROLLMENT_METRICS_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="0: a free one. Default: ENROLLMENT_EXPORTER_PORT.")
    ] = None,
) -> None:
    """Serve metrics of queues, outbox, stream, tables and workers, until Ctrl-C; one is enough."""
    import signal
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    from prometheus_client import make_wsgi_app
    from prometheus_client.exposition import ThreadingWSGIServer

    from worker import logging
    from worker.exporter import System, registry_of
    from worker.settings import Settings, SettingsError

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing of each scrape."""

    settings = Settings.load()
    logging.configure(settings.log_level, settings.log_format)
    system = System(settings)
    app = with_targets(make_wsgi_app(registry_of(system)), system.heartbeats.alive)
    address = host or settings.metrics_host, settings.exporter_port if port is None else port
    try:
        listening = make_server(*address, app, ThreadingWSGIServer, Quiet)
    except OSError as error:
        where, other = ":".join(map(str, address)), "ENROLLMENT_EXPORTER_PORT or --port sets another port"
        raise SettingsError(f"The exporter cannot listen on {where}: {error.strerror}. {other}.") from error
    with listening as server:
        system.heartbeats.start()
        note(f"Metrics on http://{address[0]}:{server.server_port}/metrics, workers on {TARGETS}; Ctrl-C ends.")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def with_targets(metrics: "Callable[..., Any]", alive: "Callable[[], Any]") -> "Callable[..., Iterable[bytes]]":
    """Return a WSGI app that serves the workers' addresses in Prometheus's format (http_sd), and metrics elsewhere."""

    def app(environ: dict[str, Any], start_response: "Callable[..., Any]") -> "Iterable[bytes]":
        if environ["PATH_INFO"] != TARGETS:
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        from json import dumps

        groups = [{"targets": [it], "labels": {"worker": node}} for node, it in sorted(alive().items()) if it]
        start_response("200 OK", [("Content-Type", "application/json")])
        return [dumps(groups).encode()]

    return app


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(rich_help_panel="Serve")(exporter)
