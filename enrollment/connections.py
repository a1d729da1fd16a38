"""kombu's connections to the brokers that are understood here, for whoever is no worker."""

from typing import Any

import kombu
from kombu.transport import resolve_transport


class Connection(kombu.Connection):
    """kombu's, which checks the certificate of RabbitMQ, whichever of its nodes it goes on to."""

    def get_transport_cls(self) -> Any:
        """Return what connects."""
        if self.transport_cls == "amqps":
            return resolve_transport("enrollment.rabbitmq_tls:Transport")  # imported where there is need of it
        return super().get_transport_cls()
