"""Sending digests so that each reader gets each paper once, whenever a sender dies and however many there are.

A digest is written to the database, whole, in the transaction that notes its papers as this reader's (an outbox). A
sender takes it by moving forward the moment from which it may be taken, hands over the stored bytes, and removes it. A
sender that dies leaves it for the next one, which hands over the very same bytes under the same ``Message-ID`` once
the dead sender's time is over. A mail can reach a reader twice only if the sender dies (or the connection is lost)
after an SMTP server has taken the mail and before that is noted: SMTP has no way to ask a server what it has. Both
copies then have the same ``Message-ID``, of which many mail programs show one. A mail folder has no such gap.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from offprint.daily.mail.digest import Site, digest, message_id
from offprint.daily.mail.selection import due, select_papers
from offprint.daily.mail.subscriptions import forget_unconfirmed
from offprint.daily.mail.transport import Envelope, MailError, NoServerError, Outbox, RefusedError
from offprint.daily.measured import Measured
from offprint.store import Database, Delivery, OutgoingMail, Subscription
from offprint.store.models import now as present

log = logging.getLogger(__name__)

HELD = datetime.timedelta(minutes=5)
"""How long a mail is a sender's: longer than all the timeouts of handing it over together."""

FIRST_PAUSE, LONGEST_PAUSE = datetime.timedelta(minutes=15), datetime.timedelta(days=1)
MOST_ATTEMPTS = 8
"""Failures that may pass: together they span about four days."""

MOST_REFUSED = 3
"""Mails in a row that an address may refuse before its subscription is paused."""


@dataclass
class Report:
    """What a sender did."""

    sent: int = 0
    refused: list[str] = field(default_factory=list)
    """Addresses whose server refuses their mail for good, with its reason."""
    later: list[str] = field(default_factory=list)
    """Addresses whose mail is tried again, with the reason."""
    held: int = 0
    """Mails that wait for their time: another sender has them or had them, or they failed before."""
    trouble: str = ""
    """Why nothing more could be sent."""
    stopped: bool = False

    def __str__(self) -> str:
        """Return it as one line."""
        parts = [f"{self.sent} sent"]
        parts += [f"{len(self.refused)} refused"] if self.refused else []
        parts += [f"{len(self.later)} to be tried again"] if self.later else []
        parts += [f"{self.held} waiting (another sender has them, or they failed before)"] if self.held else []
        return ", ".join(parts)


Listener = Callable[[Report, int, int], None]
"""Told what was done so far, how many subscriptions and mails were gone through, and of how many."""


class Sender:
    """Makes and sends digests.

    Parameters
    ----------
    database : Database
    outbox : Outbox
    site : Site
    clock : callable
        Returns the present moment.
    """

    def __init__(
        self, database: Database, outbox: Outbox, site: Site, clock: Callable[[], datetime.datetime] = present
    ) -> None:
        self.database = database
        self.outbox = outbox
        self.site = site
        self.clock = clock
        self._measured = Measured(database)

    def run(
        self,
        frequency: str | None = None,
        *,
        stop: threading.Event | None = None,
        listen: Listener = lambda report, done, total: None,
    ) -> Report:
        """Send what an earlier sender left, then make and send what is due.

        Parameters
        ----------
        frequency : {"daily", "weekly"}, optional
            Both when left out.
        stop : threading.Event, optional
            Ends the work after the mail at hand.
        listen : callable, optional
            Told after each step.
        """
        with self.database.session() as session:
            forget_unconfirmed(session, self.clock())
        with self.database.session() as session:
            numbers = due(session, self.clock(), frequency)
        return self._work(numbers, stop or threading.Event(), listen)

    def finish(self, *, stop: threading.Event | None = None) -> Report:
        """Send what an earlier sender left, and what failed and may be tried again."""
        return self._work([], stop or threading.Event(), lambda report, done, total: None)

    def preview(self, frequency: str | None = None) -> Iterator[EmailMessage]:
        """Yield the digests that would be made now; changes nothing."""
        mailed: dict[str, set[int]] = {}
        now = self.clock()
        with self.database.session() as session:
            for number in due(session, now, frequency):
                subscription = session.get_one(Subscription, number)
                seen = mailed.setdefault(subscription.email, set())
                if not self._has_one(session, subscription, now) and (
                    made := self._digest(session, subscription, now, seen)
                ):
                    yield made[0]
                    seen.update(made[1])

    def unfinished(self) -> int:
        """Return how many mails are made and not yet handed over."""
        with self.database.session() as session:
            return session.scalar(select(func.count()).select_from(OutgoingMail)) or 0

    def _work(self, numbers: list[int], stop: threading.Event, listen: Listener) -> Report:
        report = Report()
        with self.database.session() as session:
            ready = select(OutgoingMail.id).where(OutgoingMail.not_before <= self.clock()).order_by(OutgoingMail.id)
            left = list(session.scalars(ready))
        total = len(left) + len(numbers)
        with self.outbox.kept_open() as outbox:
            for done, mail in enumerate(self._mails(left, numbers), 1):
                if mail is not None:
                    self._hand_over(outbox, mail, report)
                listen(report, done, total)
                if report.trouble or stop.is_set():
                    report.stopped = done < total
                    break
        with self.database.session() as session:
            waiting = select(func.count()).where(OutgoingMail.not_before > self.clock())
            report.held = (session.scalar(waiting) or 0) - len(report.later)
        return report

    def _mails(self, left: list[int], numbers: list[int]) -> Iterator[int | None]:
        """Yield each mail once it is this sender's, and ``None`` for what needs no mail or is another sender's."""
        for mail in left:
            yield mail if self._take(mail) else None
        for number in numbers:
            try:
                yield self._claim(number)
            except Exception:  # the others must get theirs
                log.exception("the digest of subscription %d cannot be made", number)
                yield None

    def _claim(self, number: int) -> int | None:
        """Write a subscription's digest to the outbox, as this sender's, and return its number there."""
        now = self.clock()
        with self.database.session() as session:
            # The first statement writes, so that no other sender looks for papers of the same address meanwhile:
            # SQLite locks the database by it, PostgreSQL these rows.
            this = aliased(Subscription)
            email = select(this.email).where(this.id == number).scalar_subquery()
            session.execute(
                update(Subscription).where(Subscription.email == email).values(email=Subscription.email),
                execution_options={"synchronize_session": False},
            )
            subscription = session.get(Subscription, number)
            if subscription is None or subscription.paused_at is not None:
                return None
            if self._has_one(session, subscription, now):
                return None
            made = self._digest(session, subscription, now)
            subscription.last_digest_at = now
            if made is None:
                return None
            message, papers = made
            name = message["Message-ID"]
            mail = OutgoingMail(
                subscription_id=number,
                message_id=name,
                content=message.as_bytes(),
                attempts=1,
                not_before=now + HELD,
            )
            session.add(mail)
            held = {"subscription_id": number, "message_id": name, "claimed_at": now}
            session.execute(insert(Delivery), [{**held, "paper_id": paper} for paper in papers])
            session.flush()
            return mail.id

    def _digest(
        self, session: Session, subscription: Subscription, now: datetime.datetime, without: Collection[int] = ()
    ) -> tuple[EmailMessage, list[int]] | None:
        """Return the digest that a subscription would get now, and its papers; ``None`` without any."""
        selected = select_papers(session, subscription, now, without)
        if not selected.papers:
            return None
        message = digest(self.site, subscription, selected, now, self._measured)
        return message, [paper.id for paper in selected.papers]

    def _has_one(self, session: Session, subscription: Subscription, now: datetime.datetime) -> bool:
        """Whether a subscription's digest for this day or week is made."""
        name = message_id(self.site, subscription, now)
        return session.scalar(select(exists().where(Delivery.message_id == name))) or False

    def _take(self, mail: int) -> bool:
        """Make a mail that is left this sender's, unless another was faster."""
        now = self.clock()
        ready = update(OutgoingMail).where(OutgoingMail.id == mail, OutgoingMail.not_before <= now)
        with self.database.session() as session:
            taken = session.execute(ready.values(not_before=now + HELD, attempts=OutgoingMail.attempts + 1))
            return taken.rowcount == 1  # type: ignore[attr-defined, no-any-return]

    def _hand_over(self, outbox: Outbox, number: int, report: Report) -> None:
        """Hand over a mail that is this sender's, and note what became of it."""
        with self.database.session() as session:
            mail = session.get(OutgoingMail, number)
            if mail is None:  # its reader has unsubscribed
                return
            to = mail.subscription.email
        try:
            outbox.hand_over(Envelope(to, mail.message_id, mail.content))
        except NoServerError as error:
            report.trouble = str(error)
            self._put_back(mail, self.clock(), mail.attempts - 1)
        except MailError as error:
            if isinstance(error, RefusedError) or mail.attempts >= MOST_ATTEMPTS:
                report.refused.append(f"{to}: {error}")
                self._give_up(mail)
            else:
                report.later.append(f"{to}: {error}")
                pause = min(FIRST_PAUSE * 4 ** (mail.attempts - 1), LONGEST_PAUSE)
                self._put_back(mail, self.clock() + pause, mail.attempts)
        else:
            report.sent += 1
            self._done(mail)

    def _done(self, mail: OutgoingMail) -> None:
        now = self.clock()
        with self.database.session() as session:
            session.execute(delete(OutgoingMail).where(OutgoingMail.id == mail.id))
            session.execute(update(Delivery).where(Delivery.message_id == mail.message_id).values(sent_at=now))
            session.execute(
                update(Subscription)
                .where(Subscription.id == mail.subscription_id, Subscription.n_refused > 0)
                .values(n_refused=0)
            )

    def _give_up(self, mail: OutgoingMail) -> None:
        """Remove a mail that its reader's server will not take, and pause a subscription whose mails it never does."""
        of_reader = update(Subscription).where(Subscription.id == mail.subscription_id)
        with self.database.session() as session:
            session.execute(delete(OutgoingMail).where(OutgoingMail.id == mail.id))
            session.execute(of_reader.values(n_refused=Subscription.n_refused + 1))
            session.execute(of_reader.where(Subscription.n_refused >= MOST_REFUSED).values(paused_at=self.clock()))

    def _put_back(self, mail: OutgoingMail, when: datetime.datetime, attempts: int) -> None:
        with self.database.session() as session:
            this = update(OutgoingMail).where(OutgoingMail.id == mail.id)
            session.execute(this.values(not_before=when, attempts=attempts))
