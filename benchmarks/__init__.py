"""How fast the worker is: beside its peers, beside PostgreSQL alone, and where a command's time goes."""
