"""The whole schema: what migrations compare with the database, and what rights are given on."""

from typing import Final

from sqlalchemy import MetaData

from models.import_tables import Import

METADATA: Final[MetaData] = Import.metadata  # whoever imports those tables has imported all others
