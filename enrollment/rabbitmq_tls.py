"""TLS to RabbitMQ as an address says it: the certificate is of that host, and signed by whom one trusts."""

from ssl import CERT_NONE
from typing import Any

from kombu.transport import pyamqp


class Transport(pyamqp.SSLTransport):
    """kombu's for `amqps://`, which takes the certificate of any host, and ends at an option of the address."""

    def establish_connection(self) -> Any:
        """Connect to the node that is next. Raises OSError, of which ssl.SSLError is one."""
        client: Any = self.client
        said, host = client.ssl, client.hostname
        options = {it.removeprefix("ssl_"): value for it, value in said.items()} if isinstance(said, dict) else {}
        if options.pop("check_hostname", True) and options.get("cert_reqs") != CERT_NONE:
            options["server_hostname"] = host
        client.ssl = options or True
        try:
            return super().establish_connection()
        finally:
            client.ssl, client.hostname = said, host  # kombu has made numbers of a name
