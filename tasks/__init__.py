"""The Celery tasks, and the use case behind them: one batch, one transaction."""
