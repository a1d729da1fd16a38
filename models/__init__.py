"""The tables, the query module, and every SQL statement of the project."""
