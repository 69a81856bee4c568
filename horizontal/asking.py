"""One sum by itself: the coordinator C asks, parties k answer, C says that it has it.

::

    1  C→k  ASK     the sum's number and who is asked
    2  k↔C  the sum (`summing`, `secagg`)
    3  C→k  RESULT  C has it: k goes on

**Who learns what**: as in the sum; k learns nothing of it here.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..parties.errors import PeerFailure
from ..parties.network.channel import Channel
from ..parties.network.message import Step, Topic
from .fixed_point import Encoding
from .members import Members
from .summing import Floats, Gathered, Gathering, Giving, Sum, asked_in


def give_once(
    channel: Channel,
    topic: Topic,
    giving: Giving,
    values: Floats,
    encoding: Encoding,
    *,
    parties: Sequence[str],
    job_digest: str,
    attempt: int,
    content: str,
    data: str,
    wait_s: float,
) -> None:
    """A party's side: give `values` to the one sum that is asked for.

    `content` and `data` are those of `Sum` and `Giving.offer`: the sum may be asked again over the same rows. C may
    take `wait_s` for the others. Raises what `giving` raises, and `PeerFailure`.
    """
    while True:
        order = channel.receive(topic, Step.ASK, Step.RESULT, *giving.steps, timeout_s=wait_s)
        if order.step is Step.RESULT:
            return
        if order.step is not Step.ASK:
            giving.handle(order)
            continue
        number, asked = asked_in(order, parties, channel, topic)
        giving.offer(Sum(job_digest, attempt, number, content, asked, strict=False), values, encoding, data=data)


def gather_once(
    members: Members,
    topic: Topic,
    gathering: Gathering,
    size: int,
    encoding: Encoding,
    *,
    job_digest: str,
    attempt: int,
    content: str,
    deadline_s: float,
    fewest: int,
) -> Gathered:
    """The coordinator's side: what `give_once` of all parties that are there comes to.

    Raises `PeerFailure` ``rounds.quorum`` if fewer than `fewest` are in the sum.
    """
    names = members.names
    members.tell(names, topic, Step.ASK, 1, {"parties": list(names)})
    one = Sum(job_digest, attempt, 1, content, names, strict=False)
    found = gathering.gather(members, topic, one, size, encoding, deadline_s=deadline_s, fewest=fewest)
    if len(found.survivors) < fewest:
        raise PeerFailure("rounds.quorum", count=len(found.survivors), allowed=fewest)
    members.tell(members.names, topic, Step.RESULT, 2, answer=False)
    return found
