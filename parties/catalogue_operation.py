"""The words of errors in operation: workers, the Prefect server's orders, vaults behind a socket. See `catalogue`."""

from __future__ import annotations

from .words import Words

OPERATION: dict[str, Words] = {
    "policy.signs": Words(
        "{party} does not sign '{kind}' jobs that are started at its Prefect server",
        "sign it yourself (`isthmus sign JOB --as MEMBER`, then `isthmus submit`), or have {party} add the kind under "
        "`signs:` in its policy",
    ),
    "order.invalid": Words(
        "what the Prefect server gave {party} to do is not an order of an isthmus coordinator: {problem}",
        "start jobs by their own deployments; if you did, do not trust that server until somebody has looked at it",
    ),
    "order.signature": Words("this signature cannot be read", "paste the whole line that `isthmus sign` prints"),
    "worker.offline": Words(
        "{party}'s worker has not taken the job within {seconds} s",
        "start it there (`isthmus party start`) and see `isthmus status`; then start the job again",
    ),
    "worker.lost": Words(
        "{party}'s worker is gone in the middle of the job",
        "start it there (`isthmus party start`), then start the job again: it goes on where it stopped",
    ),
    "worker.cancelled": Words("the job was cancelled", "start it again: it goes on where it stopped"),
    "worker.elsewhere": Words(
        "{party}'s part of the job was cancelled at the Prefect server", "start the job again: it goes on"
    ),
    "vault.unreachable": Words(
        "no vault of {party} listens at its socket", "start it there: `isthmus vault start {party}`; see its log"
    ),
    "vault.busy": Words(
        "{party}'s vault has as many jobs as it takes at once", "wait for one to end, then start the job again"
    ),
    "home.open": Words(
        "{user} can read '{file}' of {party}, whose vault is to keep it from them",
        "`chmod 700` {party}'s home, and keep data that lie elsewhere from that user too",
    ),
    "home.program": Words(
        "{user} can change the program that {party}'s vault runs",
        "install isthmus as root, or as the user who owns the home",
    ),
    "vault.user": Words("this machine has no user or group '{user}'", "name one that is there, or its number"),
    "up.ports": Words("no port from {port} on is free on this machine", "name another with --port"),
    "coordinator.alone": Words(
        "{party} belongs to no consortium, so it has nobody to coordinate",
        "`isthmus consortium accept ROSTER {party}`; docs/deploy.md goes through it",
    ),
    "deployment.unknown": Words(
        "the Prefect server has no deployment of '{kind}' jobs",
        "`isthmus coordinator start` registers them; check PREFECT_API_URL",
    ),
}
