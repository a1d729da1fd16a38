"""`enrollment gateway`: the HTTP server, and the keys and passwords it is used with."""

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Final, TypeVar

import typer

from worker.cli.output import note, say

T = TypeVar("T")
_PASSWORD: Final = 8  # characters (NIST SP 800-63B, section 5.1.1.1)

verbs = typer.Typer(
    invoke_without_command=True,
    help="Serve HTTP: lookups, writes, the event stream and the admin page, until Ctrl-C.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="1 to 48 of A-Z a-z 0-9 . _ -; stands in `source`.")]


@verbs.callback()
def serve(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen. Default: ENROLLMENT_GATEWAY_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="0: a free one. Default: ENROLLMENT_GATEWAY_PORT.")
    ] = None,
) -> None:
    if context.invoked_subcommand is not None:
        return
    try:
        server = import_module("gateway.server")  # by name: nothing in `worker` depends on the gateway
    except ModuleNotFoundError as error:
        from worker.cli.errors import MissingExtra

        raise MissingExtra(error.name or "gateway", "gateway") from None
    server.run(host, port)


@verbs.command()
def key(
    name: Name,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="read or write; again for both. Default: both.")
    ] = None,
) -> None:
    """Make a key for a client. It is shown once; the settings keep its hash."""
    from worker.credentials import ApiKey, Scope

    scopes = _checked(lambda: [Scope(it) for it in scope or list(Scope)], "--scope is read or write")
    client, secret = _checked(lambda: ApiKey.create(name, scopes), "NAME is 1 to 48 of A-Z a-z 0-9 . _ -")
    note("The key, for the client; and the item to add to ENROLLMENT_GATEWAY_KEYS, blanks between items:")
    say(secret)
    say(client.setting())


@verbs.command()
def password(
    name: Name,
    word: Annotated[
        str, typer.Option("--password", prompt="Password", hide_input=True, confirmation_prompt=True, help="Asked for.")
    ] = "",
) -> None:
    """Make the setting of an administrator of the admin page, from a password."""
    from worker.credentials import Admin

    if len(word) < _PASSWORD:
        raise typer.BadParameter(f"a password has {_PASSWORD} characters or more")
    admin = _checked(lambda: Admin.create(name, word), "NAME is 1 to 48 of A-Z a-z 0-9 . _ -")
    note("The item to add to ENROLLMENT_GATEWAY_ADMINS, blanks between items:")
    say(admin.setting())


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="gateway", rich_help_panel="Serve")


def _checked(make: Callable[[], T], rule: str) -> T:
    try:
        return make()
    except ValueError:  # pydantic's, too
        raise typer.BadParameter(rule) from None
