"""The admin page: rendered here, sent as commands through the queue, read through the query module; no rules."""

from gateway.admin.pages import error_page
from gateway.admin.routes import router

__all__ = ["error_page", "router"]
