"""Real PostgreSQL and Redis, and the whole stack, as child processes of this one: for the demo and the tests."""
