"""The database's history: one numbered revision per step, each safe on a database that is in use."""
