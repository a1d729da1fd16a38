"""Send the commands of a file with the client of this project, a message each: `python -m benchmarks.send FILE`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from enrollment.client import Client, read_command
from worker.settings import Settings


def main(arguments: Sequence[str]) -> None:
    with Client(Settings.load().require_broker_url()) as client, Path(arguments[0]).open() as lines:
        for line in lines:
            client.send(read_command(json.loads(line)))


if __name__ == "__main__":
    main(sys.argv[1:])
