"""From a delivery to a batch, or to a dead letter: Celery's consumer and what it uses."""
