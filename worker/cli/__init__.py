"""The command `enrollment`: send commands, read what came of them, look after the worker."""


def main() -> None:
    """Run `enrollment`."""
    from worker import installation

    installation.check((*installation.MODULES, "gateway"))
    from worker.cli.app import app

    app(prog_name="enrollment")
