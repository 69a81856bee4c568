"""The words of errors between members: the roster, who starts jobs, peers, the exchange. See `catalogue`."""

from __future__ import annotations

from .words import Words

CONSORTIUM: dict[str, Words] = {
    # --- who is in the consortium, by which keys ----------------------------------------------------------------------
    "home.key_mode": Words(
        "others than its owner may read {party}'s {file}, which holds a private key",
        "`chmod 600 {file}` in its folder; if somebody may have read it, make new keys and renew them in the roster",
    ),
    "home.no_certificate": Words(
        "{party} has no TLS certificate, or not its key", "make both with `isthmus init`, then renew the roster"
    ),
    "home.name": Words(
        "'{name}' cannot be the name of a member or an exchange",
        "take up to 32 small letters, digits, - and _, a letter first",
    ),
    "roster.missing": Words("there is no readable file '{file}'", "check the path; `isthmus consortium add` makes one"),
    "roster.invalid": Words(
        "the file is wrong at '{field}': {problem}", "mend it, or ask whoever keeps the roster for it again"
    ),
    "roster.signatures": Words(
        "{have} of the members in version {version} of the roster have signed, and {need} have to",
        "collect more with `isthmus consortium sign`; a version that others accepted in between comes first",
    ),
    "roster.not_pinned": Words(
        "{party} has accepted no roster yet",
        "compare its digest with another member, by voice, and give it whole: `isthmus consortium accept --digest`",
    ),
    "roster.differs": Words(
        "{party} and {peer} have accepted different versions of the roster",
        "accept the newest at both: `isthmus consortium accept`",
    ),
    "roster.digest": Words(
        "the digest is not this roster's",
        "compare all 64 digits with another member, by voice; if they differ, ask why",
    ),
    "roster.altered": Words(
        "{party}'s roster.yaml is not the one that it accepted, or roster.pin, which says which, is gone",
        "put that one back: `isthmus consortium accept` takes the version and digest in roster.pin; without that file "
        "it takes the first one again, by its digest",
    ),
    "roster.busy": Words(
        "another process is accepting a roster at {party}", "wait until it has ended, then accept yours again"
    ),
    "roster.older": Words(
        "this is version {version} of the roster, and version {pinned} has been accepted",
        "ask whoever keeps the roster for the newest; two rosters of one version mean that somebody made a second one",
    ),
    "roster.member_unknown": Words(
        "{peer} is not in the roster of {party}", "check the name: `isthmus consortium verify` lists the members"
    ),
    "roster.revoked": Words(
        "{peer} is revoked in the roster of {party}", "leave it out of the job, or renew it with new keys"
    ),
    "roster.expired": Words(
        "{peer}'s time in the roster of {party} is over",
        "renew it: `isthmus init party {peer} --renew` there, then `isthmus consortium add`",
    ),
    "roster.key_differs": Words(
        "the {field} of {party} is not the one in the roster",
        "use the home that its keys were made in, or renew the entry: `isthmus init`, then `isthmus consortium add`",
    ),
    "roster.exchange_unknown": Words(
        "the roster of {party} has {count} exchanges, and the job names none of them",
        "name one in the job's `exchange:` (`isthmus consortium verify` lists them), then sign the job anew",
    ),
    # --- who starts a job: signatures, approval, pause ----------------------------------------------------------------
    "job.version_differs": Words(
        "{party} and {peer} speak different versions of the protocol",
        "compare `isthmus --version`, and install the same",
    ),
    "job.start_differs": Words(
        "{party} and {peer} were given different signatures under the same job",
        "give every member the same signed file",
    ),
    "job.unsigned": Words(
        "{party} starts a job only if a member has signed it, and this one carries no signature",
        "sign it with `isthmus sign JOB --as MEMBER`, then `isthmus join` with the signed file",
    ),
    "job.signature": Words(
        "the signature under this job is not one of {peer} for this very job",
        "a change to a job takes a new signature: `isthmus sign JOB --as {peer}`",
    ),
    "policy.start": Words(
        "{party} does not let {peer} start '{kind}' jobs", "ask {party} to add it under `starts:` in its policy"
    ),
    "policy.start_expired": Words(
        "by {party}'s clock, the signature under this job ran out {seconds} s ago",
        "compare the clocks; or sign the job again: `isthmus sign JOB --as MEMBER`",
    ),
    "policy.start_rate": Words(
        "{peer} has started {allowed} '{kind}' jobs at {party} already, which is all that fits into the time that its "
        "policy names",
        "start it later, or ask {party} to raise the rate under `starts:` in its policy",
    ),
    "policy.start_used": Words(
        "the signature under this job is for {allowed} runs, and {party} has begun as many",
        "sign the job again: `isthmus sign JOB --as MEMBER`, with `--runs` for several",
    ),
    "policy.start_attempts": Words(
        "{party} will not try again: this run was attempted {allowed} times under this signature",
        "sign the job again: `isthmus sign JOB --as MEMBER`; the run then goes on where it stopped",
    ),
    "policy.clock": Words(
        "{party}'s clock was once {seconds} s ahead of now, and by that time this job may not start",
        "set {party}'s clock right; if it is, a person there: `isthmus approve {party} --reset-clock`",
    ),
    "policy.approval": Words(
        "at {party} a '{kind}' job waits until a person has approved it",
        "somebody at {party}: `isthmus approve {party} {digest}`; then start the job again",
    ),
    "policy.paused": Words(
        "{party} is paused: somebody there has stopped all jobs",
        "when they may go on, at {party}: `isthmus pause {party} --off`; then start the job again: it resumes",
    ),
    "approval.unknown": Words(
        "no signed job whose start's digest begins with '{digest}' waits at {party} or is approved there",
        "`isthmus approve {party}` lists them",
    ),
    "approval.ambiguous": Words(
        "'{digest}' is no digest, or the beginning of one that is long enough to mean one job alone",
        "give more of it: `isthmus approve {party}` lists the jobs; {allowed} hexadecimal digits or more",
    ),
    "approval.unasked": Words(
        "nobody can be asked here, since this is no terminal", "read what stands above, and add --yes to agree to it"
    ),
    # --- between two members ------------------------------------------------------------------------------------------
    "peer.gone": Words("{party} lost {peer}", "see {peer}'s own log; start the job again when it is back"),
    "peer.deadline": Words(
        "{party} waited {seconds} s for {peer}, topic '{topic}', step '{step}'",
        "see {peer}'s own log; start the job again when it is back",
    ),
    "peer.version": Words(
        "{peer} seals its messages to {party} in another version, topic '{topic}'",
        "compare `isthmus --version`, and install the same",
    ),
    "peer.protocol": Words(
        "{peer} sent {party} what the protocol does not allow, topic '{topic}'",
        "the parties may run different versions: compare `isthmus --version`",
    ),
    "peer.identity": Words(
        "{party} was answered by somebody who does not hold {peer}'s key",
        "compare fingerprints with `isthmus consortium verify`; if they agree, the exchange or the network is hostile",
    ),
    "peer.shares": Words(
        "{party} found that the shares of {peer}'s secrets do not fit the keys that {peer} announced",
        "{peer} or one of those that hold its shares does not keep to the protocol",
    ),
    # --- the exchange, and the way to it ------------------------------------------------------------------------------
    "exchange.port_taken": Words(
        "another process listens on {address} already", "stop it, or name another address in exchange.yaml"
    ),
    "exchange.invalid": Words(
        "the exchange's '{field}' is wrong: {problem}", "mend exchange.yaml; `isthmus init exchange` makes one"
    ),
    "exchange.down": Words(
        "{party} cannot reach the exchange",
        "see that it runs and that {party}'s network and proxy let it out to the roster's address; then start again",
    ),
    "exchange.certificate": Words(
        "what answers at the exchange's address does not show the certificate in {party}'s roster, or an expired one",
        "ask who runs the exchange for the fingerprint of its certificate; a new one needs a new roster",
    ),
    "exchange.refused": Words(
        "the exchange does not take {party}: it does not know its certificate, or speaks another version",
        "compare {party}'s fingerprint with the exchange's roster, which may be older, and `isthmus --version`",
    ),
    "exchange.revoked": Words(
        "the exchange has cut {party} off: the roster there revokes it", "ask the members who signed that version why"
    ),
    "exchange.expired": Words(
        "the exchange has cut {party} off: its certificate has expired",
        "renew it: `isthmus init party {party} --renew`, then `isthmus consortium add`, sign and accept",
    ),
    "exchange.fenced": Words(
        "a newer process of {party} has taken this run over",
        "leave it to that one; if nobody here started it, somebody else holds {party}'s keys: have it revoked",
    ),
}
