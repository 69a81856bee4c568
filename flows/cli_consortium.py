"""`isthmus init …` and `isthmus consortium …`: founding a consortium, and every later version of its roster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from ..parties.errors import InputError
from .options import Homes, Json
from .terminal import console, named_home

Days = Annotated[int, Parameter(validator=Number(gte=1, lte=3650), help="How long the certificate is to be valid.")]
Renew = Annotated[bool, Parameter(negative="", help="Make a new TLS key and certificate; the identity key stays.")]
Threshold = Annotated[
    int | None, Parameter(validator=Number(gte=1), help="How many members have to sign a version of the roster.")
]

init = App(name="init", help="Make the home of a member, or an exchange's folder: keys, certificate, configuration.")
consortium = App(name="consortium", help="The roster: who is in the consortium, by which keys, signed by its members.")


@init.command
def party(
    name: str, *, homes: Homes = Path("homes"), days: Days = 365, renew: Renew = False, json: Json = False
) -> None:
    """Make a party's home: a party.yaml that denies all, its keys, and the file to hand over.

    What is there already stays as it is.

    Example: isthmus init party lab

    Parameters
    ----------
    name
        The party's name in the consortium; its home is a folder of that name.
    """
    from .founding import found_member
    from .roster_screen import show_founded

    show_founded(found_member(name, "party", homes, days=days, renew=renew), json=json)


@init.command
def coordinator(
    name: str, *, homes: Homes = Path("homes"), days: Days = 365, renew: Renew = False, json: Json = False
) -> None:
    """Make the home of a coordinator, who holds no data: a party.yaml that denies all, its keys, the file to hand over.

    What is there already stays as it is.

    Example: isthmus init coordinator hub

    Parameters
    ----------
    name
        The coordinator's name in the consortium; its home is a folder of that name.
    """
    from .founding import found_member
    from .roster_screen import show_founded

    show_founded(found_member(name, "coordinator", homes, days=days, renew=renew), json=json)


@init.command
def exchange(
    name: str,
    *,
    address: str,
    folder: Path = Path("exchange"),
    days: Days = 365,
    renew: Renew = False,
    json: Json = False,
) -> None:
    """Make an exchange's folder: exchange.yaml, its TLS key and certificate, and the file to hand over.

    What is there already stays as it is.

    Example: isthmus init exchange relay --address relay.example.org:9443

    Parameters
    ----------
    name
        The exchange's name in the roster.
    address
        HOST:PORT under which members reach it.
    folder
        Where the exchange keeps its files.
    """
    from .founding import found_exchange
    from .roster_screen import show_founded

    show_founded(found_exchange(name, address, folder, days=days, renew=renew), json=json)


@consortium.command
def add(roster: Path, *files: Path, name: str | None = None, threshold: Threshold = None, json: Json = False) -> None:
    """Put what members and exchanges handed over into a roster: a new one, or a draft of its next version.

    An entry of the same name is renewed. A draft has no signatures: its members sign it anew.

    Example: isthmus consortium add roster.yaml lab.member.yaml insurer.member.yaml relay.member.yaml --name hearts

    Parameters
    ----------
    roster
        The roster's file; it is made if it is not there.
    files
        The files that `isthmus init` made, NAME.member.yaml.
    name
        The name of a new consortium.
    threshold
        Without it, more than half of a new consortium's members; later, as before.
    """
    from ..parties.roster import Roster
    from .roster_screen import show_draft
    from .rosters import with_files

    before = Roster.read(roster) if roster.exists() else None
    if before is None and name is None:
        raise InputError("roster.invalid", where=roster.name, field="consortium", problem="a new one needs a --name")
    if before is not None and name not in (None, before.consortium):
        problem = f"this is the roster of '{before.consortium}'"
        raise InputError("roster.invalid", where=roster.name, field="consortium", problem=problem)
    draft = with_files(before, files, name=name, threshold=threshold)
    draft.write(roster)
    show_draft(before, draft, roster, json=json)


@consortium.command
def revoke(roster: Path, member: str, *, threshold: Threshold = None, json: Json = False) -> None:
    """Make a draft of the roster's next version in which a member is revoked from now on.

    Example: isthmus consortium revoke roster.yaml insurer

    Parameters
    ----------
    roster
        The roster's file.
    member
        Whom to revoke.
    threshold
        Without it, as before; it cannot be more than the members that are left.
    """
    from ..parties.roster import Roster
    from .roster_screen import show_draft
    from .rosters import without_member

    before = Roster.read(roster)
    draft = without_member(before, member, threshold=threshold)
    draft.write(roster)
    show_draft(before, draft, roster, json=json)


@consortium.command
def sign(roster: Path, member: str, *, homes: Homes = Path("homes"), json: Json = False) -> None:
    """Sign a roster as one of its members, after showing what it changes against the accepted one.

    Example: isthmus consortium sign roster.yaml lab --homes homes

    Parameters
    ----------
    roster
        The roster's file; the signature is added to it.
    member
        Who signs; the key is in the home of this name.
    """
    from ..parties.consortium import pinned
    from ..parties.home import PartyHome
    from ..parties.roster import Roster
    from .roster_screen import print_changes, print_json, print_missing, signature_facts
    from .rosters import changes, with_signature

    home = PartyHome(named_home(homes, member))
    found = Roster.read(roster)
    before = pinned(home.folder)
    differences = changes(before, found)
    if not json:
        print_changes(before, differences)
    done = with_signature(found, home)
    done.write(roster)
    facts = {**signature_facts(done, before), "changes": [change._asdict() for change in differences]}
    if json:
        print_json(facts)
        return
    console.print(f"\nsigned by {member}, version {done.version}, digest {done.digest()}", soft_wrap=True)
    print_missing(facts)


@consortium.command
def verify(roster: Path, *, home: Path | None = None, json: Json = False) -> None:
    """Print a roster, with what members compare by voice; exit code 2 unless it is complete.

    Example: isthmus consortium verify roster.yaml

    Parameters
    ----------
    roster
        The roster's file.
    home
        A party's home or an exchange's folder: also compare with what it has accepted, and with its own keys.
    """
    from ..parties.consortium import pinned
    from ..parties.roster import Roster
    from .roster_screen import print_json, print_missing, print_roster, roster_facts, signature_facts
    from .rosters import own_entry

    found = Roster.read(roster)
    before = pinned(home) if home else None
    wrong = own_entry(found, home) if home else None
    facts = {**roster_facts(found), **signature_facts(found, before)}
    if json:
        print_json(facts)
    else:
        print_roster(facts)
        print_missing(facts)
    if before is not None:
        found.check_follows(before)
    found.check_complete()
    if wrong:
        raise wrong


@consortium.command(name="accept")
def accept_(roster: Path, *folders: Path, digest: str | None = None, json: Json = False) -> None:
    """Accept a roster at homes of parties and folders of exchanges: from then on they believe its keys and no others.

    The first one needs the digest as another member reads it out; later ones the signatures of enough members. Prints
    what it changes against the one that was accepted before.

    Example: isthmus consortium accept roster.yaml homes/lab

    Parameters
    ----------
    roster
        The roster's file; each home keeps its own copy.
    folders
        The folders of parties and exchanges.
    digest
        All 64 digits, as another member has read them from its own `isthmus consortium verify`, not from this file.
    """
    from ..parties.roster import Roster
    from .roster_screen import print_changes, print_json
    from .rosters import accept_in, steps_to

    if not folders:
        raise InputError("roster.invalid", field="folders", problem="nobody is named who accepts it")
    found, places = Roster.read(roster), [Path(os.path.abspath(folder)) for folder in folders]
    steps = steps_to(found, places)
    wrong = accept_in(found, places, digest)
    if json:
        codes = {name: error.code if error else None for name, error in wrong.items()}
        changed = {name: [change._asdict() for change in step.changes] for step in steps for name in step.names}
        print_json({"version": found.version, "digest": found.digest(), "accepted": codes, "changes": changed})
        return
    for step in steps:
        print_changes(step.before, step.changes, at=step.names)
    for name, error in wrong.items():
        console.print(f"{name} has accepted version {found.version} of {found.consortium}", soft_wrap=True)
        if error:
            console.print(f"  [yellow]but {error.what}[/]\n  next  {error.next}", soft_wrap=True)
