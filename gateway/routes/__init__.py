"""The requests, a module per resource."""
