"""Celery's settings, each with its reason. A name that Celery does not know is an error in the tests."""

from kombu import Exchange as _Exchange
from kombu import Queue as _Queue
from kombu.utils.url import parse_url as _parse_url

from enrollment.addresses import is_redis as _is_redis
from enrollment.addresses import kombu_url as _kombu_url
from enrollment.addresses import replicas_of as _replicas_of
from enrollment.names import QUEUE_ARGUMENTS as _QUEUE_ARGUMENTS
from worker.settings import Settings as _Settings
from worker.settings import SettingsError as _SettingsError

try:
    _settings = _Settings.load()
    broker_url = _kombu_url(_settings.require_broker_url())
except _SettingsError as _error:
    raise SystemExit(str(_error)) from None  # a sentence; Celery would print a traceback

# RabbitMQ: quorum queues, which survive the loss of a node. Redis has no arguments.
_arguments = {} if _is_redis(broker_url) else dict(_QUEUE_ARGUMENTS)

# Queues. Anything else that lands in them becomes a dead letter.
task_default_queue = "enrollment"
# Each has an exchange of its own: with one for both, what is published there would land in both.
task_queues = tuple(
    _Queue(name, _Exchange(name), name, queue_arguments=_arguments) for name in ("enrollment", "enrollment.bulk")
)
task_routes = {"enrollment.apply.v1": {"queue": "enrollment.bulk"}}
task_create_missing_queues = False  # a misspelt queue is an error at the sender, not a list that nobody reads

# Messages. JSON is all that is accepted, and all that is sent.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
task_protocol = 2

# Delivery: a message leaves the queue after its effect is committed, never before.
task_acks_late = True
task_reject_on_worker_lost = True
task_acks_on_failure = False
task_acks_on_timeout = False
worker_cancel_long_running_tasks_on_connection_loss = False

# No results: outcomes are in the table `commands` and on the event stream. A result store is one more thing to fail.
task_ignore_result = True
result_backend = None
result_expires = None  # else beat would send a task that cleans a store up which is not there

# The process. One per core, solo pool: it shuts down cleanly, and while it applies a batch the next one gathers.
worker_pool = "worker.options:TaskPool"
worker_concurrency = 1  # as `-c`, which starts as many processes
worker_consumer = "worker.consume.consumer:Consumer"  # gathers batches; what is no command is kept
worker_prefetch_multiplier = _settings.batch_messages
worker_hijack_root_logger = False
worker_redirect_stdouts = False
worker_enable_remote_control = True  # Flower and `celery inspect` ask for it

# kombu reads it from the address, Flower only from here
broker_use_ssl = _parse_url(broker_url.split(";")[0]).get("ssl", False)

# Connections. A broker that is away is waited for, for ever; the first time, too.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_channel_error_retry = True  # a Redis that is full or read-only would otherwise end the process
broker_heartbeat = 20  # seconds, RabbitMQ only: after twice that without a sign, a connection is given up
broker_pool_limit = 10  # Flower asks from many threads, some holding two: with few they wait for each other
broker_transport_options = {
    "visibility_timeout": _settings.visibility_timeout,
    "unacked_restore_interval": 2,  # seconds between looks for messages of dead workers
    # RabbitMQ: the next batch is on its way while one is applied
    "prefetch": {"enrollment": 2 * _settings.batch_messages, "enrollment.bulk": 4},
    "claim_limits": {"enrollment.bulk": 4},  # messages of up to 1,000 commands: a batch stays below a second
    "read_timeout": 5,  # RabbitMQ, as socket_timeout for Redis
    "write_timeout": 5,
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": False,
    "replicas": _replicas_of(_settings.require_broker_url()),
    **_settings.transport_options(),
}

# Monitoring, with or without -E. What becomes of each command is told; that it was sent is left to whoever wants it: it
# halves a producer.
worker_send_task_events = True
task_send_sent_event = False
task_track_started = True

# Beat. The relay is the net below the workers, who publish what they commit themselves. Retention does a little each
# time, on whichever worker takes the message, where ENROLLMENT_RETENTION is set.
beat_schedule = {
    "relay": {"task": "enrollment.relay.v1", "schedule": 5.0, "options": {"queue": "enrollment", "expires": 5.0}},
}
if _settings.retention is not None:
    beat_schedule["retention"] = {**beat_schedule["relay"], "task": "enrollment.retention.v1"}
beat_scheduler = "celery.beat:Scheduler"  # in memory: an interval needs no file to be remembered in
timezone = "UTC"
