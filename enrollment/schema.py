"""The JSON Schemas of the messages, one file per message version: `python -m enrollment.schema` writes them.

A version that is published does not change in a way that old bytes no longer fit; a new shape is a new version.
"""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from enrollment.commands import ApplyArguments, EnrollArguments, ReplaceArguments, UnenrollArguments, WithdrawArguments
from enrollment.events import Event

FOLDER: Final = Path(__file__).parent / "schemas"

# Commands by task name: the schema of the message's keyword arguments. Events: of the field `event`.
_MODELS: Final[dict[str, type[BaseModel]]] = {
    "enrollment.enroll.v1": EnrollArguments,
    "enrollment.unenroll.v1": UnenrollArguments,
    "enrollment.replace.v1": ReplaceArguments,
    "enrollment.withdraw.v1": WithdrawArguments,
    "enrollment.apply.v1": ApplyArguments,
    "enrollment.event.v1": Event,
}


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas by message name, as the models are now."""
    return {
        name: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **model.model_json_schema(mode="serialization" if model is Event else "validation"),
        }
        for name, model in _MODELS.items()
    }


def text_of(schema: dict[str, Any]) -> str:
    """Return a schema as its file holds it."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    for name, schema in schemas().items():
        (FOLDER / f"{name}.json").write_text(text_of(schema))
