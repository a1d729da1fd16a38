"""How the broker is set, as far as messages could be lost or done in vain: for `doctor` and workers that start."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from redis import Redis
from redis.exceptions import ClusterCrossSlotError, MovedError

from enrollment.addresses import is_sentinel, replicas_of
from enrollment.names import BULK_QUEUE, QUEUE

REDIS: Final = (6, 2)
_FULL: Final = 0.9  # of the memory that Redis may use


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is, and what to do where it is not well."""

    status: Literal["ok", "warn", "fail"]
    name: str
    message: str
    advice: str = ""


def queue_keys(prefix: str) -> list[str]:
    """Return the keys of the queues: a claim is one script over all of them."""
    return [f"{prefix}{key}" for key in (QUEUE, BULK_QUEUE, "unacked")]


def redis_version(name: str, info: dict[str, Any]) -> Finding:
    """Check that Redis (by its INFO) has what the transport needs."""
    version = str(info["redis_version"])
    shown = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    if tuple(int(part) for part in version.split(".")[:2]) < REDIS:
        return Finding("fail", name, shown, "6.2 is the oldest that is supported: the worker needs BLMOVE")
    return Finding("ok", name, shown)


def cluster(name: Literal["broker", "events"], client: Redis, *keys: str) -> Finding:
    """Check that this Redis holds all of these keys: a node of a Redis Cluster may not. Raises RedisError."""
    try:
        client.exists(*keys)
    except (ClusterCrossSlotError, MovedError):
        variable, held = f"ENROLLMENT_{name.upper()}_URL", " and ".join(keys)
        message = f"{variable} names a node of a Redis Cluster that does not hold {held}"
        return Finding("fail", name, message, "Set it to a Redis that is no cluster: one node is all that is asked")
    return Finding("ok", name, "holds what is needed itself")


def persistence(name: str, info: dict[str, Any]) -> Finding:
    """Check that Redis (by its INFO) keeps what it was told."""
    if info.get("aof_enabled"):
        return Finding("ok", name, "keeps its data: append-only file")
    advice = "Set `appendonly yes`, or a crash of the broker loses commands that were taken"
    return Finding("warn", name, "has no append-only file", advice)


def databases(name: str, info: dict[str, Any], own: int) -> Finding | None:
    """Tell which other databases of this Redis (by its INFO) have keys: a process may have a wrong number."""
    others = sorted(key for key in info if key.startswith("db") and key[2:].isdecimal() and key != f"db{own}")
    if not others:
        return None
    return Finding("ok", name, f"its database {own} is used here; of the same server {', '.join(others)} has keys, too")


def replication(name: str, url: str, info: dict[str, Any]) -> Finding | None:
    """Check that Redis (by its INFO) takes writes, and forgets none in a failover; None: there is none to come."""
    if info.get("role") == "slave":
        message = f"is a replica of {info.get('master_host')}:{info.get('master_port')}, and takes no writes"
        return Finding("fail", name, message, "Name the primary in the address, or promote it: `REPLICAOF NO ONE`")
    wanted, there = replicas_of(url), int(info.get("connected_slaves", 0))
    if not (wanted or is_sentinel(url)):
        return None
    if there < wanted:
        message = f"has {there} of the {wanted} replicas that must have what is sent; it waits for them"
        return Finding("fail", name, message, "Start them, or lower `replicas` in the address")
    if not wanted:
        advice = "Say `replicas=1` in the address, or a failover loses commands that were taken"
        return Finding("warn", name, "what it has counts as sent before a replica has it", advice)
    if "min_slaves_good_slaves" not in info:
        advice = "Set `min-replicas-to-write 1` and `min-replicas-max-lag 10` on each server"
        return Finding("warn", name, "goes on alone where it is cut off, and forgets that when it is back", advice)
    return Finding("ok", name, f"has {there} replicas, of which {wanted} must have what is sent")


def eviction(name: str, info: dict[str, Any]) -> Finding:
    """Check that Redis (by its INFO) throws nothing away."""
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return Finding("ok", name, "evicts nothing: noeviction")
    advice = "Set `maxmemory-policy noeviction`: any other policy throws messages away without a word"
    return Finding("fail", name, f"maxmemory-policy is {policy}", advice)


def memory(name: str, info: dict[str, Any]) -> Finding | None:
    """Check that Redis (by its INFO) has room; None where it has no limit of its own."""
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if not most:
        return None
    message = f"uses {used:,} of {most:,} bytes (maxmemory)"
    if used < _FULL * most:
        return Finding("ok", name, message)
    advice = "Raise `maxmemory`, or run more workers: a full one refuses producers, events and remote control"
    return Finding("fail" if used >= most else "warn", name, message, advice)
