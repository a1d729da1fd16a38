r"""What Redis keeps of the messages under way, and the scripts that are all that changes it.

| key | type | expires | what |
|---|---|---|---|
| `<queue>`, `<queue>\x06\x163`, `…6`, `…9` | list | no | messages waiting, of the priorities 0-2, 3-5, 6-8, 9 |
| `unacked` | hash | no | delivery tag: `[message,exchange,routing key]`, JSON, as stock kombu writes it |
| `unacked_index` | zset | no | delivery tag: time of the claim by the server's clock; 0: given back, claim it now |
| `unacked_deliveries` | hash | no | delivery tag: how often it was claimed from a worker that fell silent; |
| | | | `<tag>:begun`: how often a worker received it after that, `<tag>:read`: and could read it; |
| | | | `<tag>:forgiven`: how often it fell silent with a worker that had touched it; |
| | | | `<tag>:owner`: who claimed it since; absent where that is the first who did |
| `unacked_too_large` | hash | no | delivery tag: message larger than a worker takes; its dead letter names the tag |

At every moment a message is in one list or in `unacked`, never in both and never in neither. Of one that is too large,
`unacked` has a stand-in until its dead letter is kept.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from json import dumps
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from redis import ConnectionError as RedisConnectionError
from redis import ConnectionPool
from redis.exceptions import ResponseError

from enrollment.replication import NotReplicated
from worker.scripts import Script, Scripts

LARGE: Final = ":large"  # how the tag of a message ends that was set aside
TOUCHED: Final = -1  # deliveries of a claim that was made young again (touch.lua)


class BrokerRefused(RedisConnectionError):
    """The broker answers, but with an error. As a connection error, it makes the worker reconnect and try again."""


@dataclass(frozen=True, slots=True)
class Source:
    """A queue to claim from: the keys of its lists by priority, its most messages in one claim, its bindings."""

    queue: str
    lists: tuple[str, ...]
    limit: int
    bindings: tuple[tuple[str, str], ...] = ()  # exchange, routing key: how stock kombu names the queue

    @property
    def ending(self) -> str:
        """How an entry of `unacked` ends that was claimed here. Stock kombu restores it to the list of that name."""
        return f',"",{dumps(self.queue)}]'

    @property
    def foreign_endings(self) -> tuple[str, ...]:
        return tuple(f", {dumps(exchange)}, {dumps(key)}]" for exchange, key in (("", self.queue), *self.bindings))


@dataclass(slots=True)
class Claim:
    """A message of ours until it is acknowledged."""

    tag: str
    raw: bytes
    source: Source
    list_key: str
    owner: str  # of the claims of one tag, which; "" is the first
    deliveries: int  # before this one, by workers that fell silent with it; TOUCHED
    begun: int  # of those after the first, how often a worker received it: else the answer to the claim was lost
    read: int  # of these, how often it could be read
    started: bool = False
    since: float = field(default_factory=monotonic)  # of the claim, or of the last touch

    @property
    def fresh(self) -> bool:
        """Whether it was taken off its list by this claim."""
        return not self.owner

    @property
    def too_large(self) -> bool:
        """Whether this is the stand-in of a message that was set aside (claim.lua)."""
        return self.tag.endswith(LARGE)

    @property
    def goes_back(self) -> bool:
        """Whether it can be handed back as if never taken. Else it keeps its tag, and with it its identity."""
        return self.fresh and not self.started and not self.too_large


def _script(name: str) -> Script:
    return Script(files(__package__).joinpath(name).read_text(encoding="utf-8"))


_CLAIM: Final = _script("claim.lua")
_ACKNOWLEDGE: Final = _script("acknowledge.lua")
_BEGIN: Final = _script("begin.lua")
_GIVE_BACK: Final = _script("give_back.lua")
_TOUCH: Final = _script("touch.lua")


class Claims:
    """The claims of all workers, in one Redis database. Every method is one round trip and one atomic step.

    Raises redis.ConnectionError or redis.TimeoutError; repeating a call is then harmless.
    """

    def __init__(
        self,
        pool: Callable[[], ConnectionPool],
        *,
        index: str,
        unacked: str,
        visibility_timeout: float,
        replicas: int = 0,
    ) -> None:
        """A message counts as claimed when `replicas` replicas have it so: one that is none of ours keeps its tag."""
        self._scripts = Scripts(pool)
        self._replicas = replicas
        self._keys = (index, unacked, f"{unacked}_deliveries")
        self.aside = f"{unacked}_too_large"
        self._visibility_timeout = visibility_timeout

    def take(self, sources: Sequence[Source], *, limit: int, max_bytes: int, max_message: int) -> list[Claim]:
        """Claim up to `limit` messages, the first source first; one message may be larger than `max_bytes`.

        What is larger than `max_message` bytes is set aside in Redis, and a stand-in with its size and its head comes.

        What a silent worker holds comes first: the messages that it fell silent with come together once, apart from
        new ones, then each alone. Should one of them be the message that kills, it kills by itself.
        """
        lists, keys, about = _layout(tuple(sources))
        prefix = f"{uuid4().hex}-"
        arguments = [self._visibility_timeout, limit, max_bytes, prefix, len(sources), max_message, *about]
        try:
            return _claims(self._run(_CLAIM, [self.aside, *keys], arguments, self._replicas), lists, prefix)
        except NotReplicated as error:  # a failover may forget it, and with it under which tags the messages are known
            self.give_back(_claims(error.answer or (), lists, prefix))
            raise

    def acknowledge(self, tags: Sequence[str]) -> None:
        """Forget these messages: they are done with. Works on a server that is out of memory, too."""
        if tags:
            self._run(_ACKNOWLEDGE, [], tags)

    def begin(self, claims: Iterable[Claim]) -> None:
        """Note that messages are here that workers fell silent with: should it happen again, it may be theirs.

        To be called before anything looks into them.
        """
        self._note(":begun", claims)

    def note_read(self, claims: Iterable[Claim]) -> None:
        """Note that messages could be read that workers fell silent with."""
        self._note(":read", claims)

    def _note(self, what: str, claims: Iterable[Claim]) -> None:
        suspects = [value for claim in claims if claim.deliveries > 0 for value in (claim.tag, claim.owner)]
        if suspects:
            self._run(_BEGIN, [], [what, *suspects])

    def touch(self, claims: Iterable[Claim]) -> None:
        """Start the visibility timeout of these claims anew."""
        held = list(claims)
        if held:
            self._run(_TOUCH, [], [value for claim in held for value in (claim.tag, claim.owner)])
        for claim in held:
            claim.deliveries, claim.since = TOUCHED, monotonic()

    def give_back(self, claims: Iterable[Claim], *, requeue: bool = False) -> int:
        """Give claims back, oldest first; return how many were still ours.

        What was started or delivered before is left for the next claim of any worker, under its tag, unless `requeue`.
        """
        held = list(claims)
        numbers: Mapping[str, int] = {key: i for i, key in enumerate(dict.fromkeys(c.list_key for c in held), 1)}
        args = [
            value
            for claim in held
            for value in (
                claim.tag,
                claim.owner,
                numbers[claim.list_key] if requeue or claim.goes_back else 0,
                len(claim.source.ending.encode()),
            )
        ]
        return int(self._run(_GIVE_BACK, list(numbers), args)) if held else 0

    def _run(self, script: Script, keys: Sequence[str], args: Sequence[str | float], replicas: int = 0) -> Any:
        all_keys = (*self._keys, *keys)
        try:
            return self._scripts.run(script, len(all_keys), *all_keys, *args, replicas=replicas)
        except ResponseError as error:
            raise BrokerRefused(str(error)) from error


@cache
def _layout(
    sources: tuple[Source, ...],
) -> tuple[Sequence[tuple[Source, str]], Sequence[str], Sequence[str | int]]:
    """Return the lists of these queues, their keys, and what the script has to know of the queues (claim.lua)."""
    lists = [(source, key) for source in sources for key in source.lists]
    of_queues = [value for source in sources for value in (source.limit, source.ending)]
    foreign = [(ending, number) for number, source in enumerate(sources, 1) for ending in source.foreign_endings]
    return lists, [key for _, key in lists], [*of_queues, *(value for pair in foreign for value in pair)]


def _claims(reply: Any, lists: Sequence[tuple[Source, str]], prefix: str) -> list[Claim]:
    claims = []
    for tag, raw, number, *counts, how in zip(*(reply[i::7] for i in range(7)), strict=True):
        deliveries, begun, read = map(int, counts)
        owner = "" if how == b"fresh" else prefix
        claims.append(Claim(tag.decode(), raw, *lists[int(number) - 1], owner, deliveries, begun, read))
    return claims
