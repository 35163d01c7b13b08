"""Sending digests: to whom and with what, by an oracle that keeps sets; failures, several senders, and the folder."""

from __future__ import annotations

import datetime
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mailing import DAY, HOUR, MONDAY, Shelf, add_paper, add_reader, text_of
from sqlalchemy import func, select

from offprint.daily.mail import Folder, MailError, NoServerError, Outbox, RefusedError
from offprint.daily.mail import sending as sending_module
from offprint.daily.mail.digest import Site
from offprint.daily.mail.schedule import Schedule
from offprint.daily.mail.sending import FIRST_PAUSE, HELD, MOST_ATTEMPTS, MOST_REFUSED, Report, Sender
from offprint.daily.mail.transport import Envelope
from offprint.daily.settings import Settings
from offprint.store import Database, Delivery, OutgoingMail, Paper, Subscription

SITE = Site.of(Settings(base_url="https://papers.example.org", secret="only for tests"))


class Clock:
    """A clock that the test moves."""

    def __init__(self, moment: datetime.datetime = MONDAY) -> None:
        self.moment = moment

    def __call__(self) -> datetime.datetime:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


def send(database: Database, outbox: Outbox, clock: Clock, frequency: str | None = None) -> Report:
    return Sender(database, outbox, SITE, clock).run(frequency)


def titles(shelf: Shelf) -> list[tuple[str, list[str]]]:
    """Return who got which papers, by the headings of the mails."""
    found = []
    for mail, message in zip(shelf.mails, shelf.messages, strict=True):
        lines = text_of(message).splitlines()
        found.append((mail.to, [line for line in lines if line.startswith("Paper ")]))
    return found


def test_everyone_gets_what_is_new_once(database: Database, clock: Clock) -> None:
    shelf = Shelf()
    with database.session() as session:
        add_paper(session, "Paper one", MONDAY - HOUR, family="learn")
        add_paper(session, "Paper two", MONDAY - HOUR, family="stream", hotness=9.0)
        add_reader(session, "all@example.org")
        add_reader(session, "stream@example.org", topics=["stream", "bags"])
        add_reader(session, "bags@example.org", topics=["bags"])
        session.add(Subscription(email="unconfirmed@example.org", frequency="daily", asked_at=MONDAY))
    assert send(database, shelf, clock).sent == 2
    assert titles(shelf) == [("all@example.org", ["Paper two", "Paper one"]), ("stream@example.org", ["Paper two"])]
    assert send(database, shelf, clock).sent == 0
    clock.moment += DAY
    assert send(database, shelf, clock).sent == 0  # nothing new: no mail
    with database.session() as session:
        add_paper(session, "Paper three", clock.moment, family="bags")
    clock.moment += HOUR
    assert send(database, shelf, clock).sent == 3
    readers = ("all@example.org", "stream@example.org", "bags@example.org")
    assert titles(shelf)[2:] == [(reader, ["Paper three"]) for reader in readers]
    with database.session() as session:
        assert session.scalar(select(func.count()).select_from(OutgoingMail)) == 0
        assert session.scalar(select(func.count()).where(Delivery.sent_at.is_(None))) == 0


def test_papers_that_come_after_the_digest_are_in_the_next(database: Database, clock: Clock) -> None:
    shelf = Shelf()
    with database.session() as session:
        add_reader(session, "all@example.org", MONDAY - DAY)
        add_paper(session, "Paper early", MONDAY - HOUR)
    send(database, shelf, clock)
    with database.session() as session:
        add_paper(session, "Paper late", MONDAY + HOUR)  # of the same day
        add_paper(session, "Paper found later", MONDAY - 3 * DAY, added_at=MONDAY + HOUR)
        add_paper(session, "Paper of long ago", MONDAY - 9 * DAY, added_at=MONDAY + HOUR)
        add_paper(session, "Paper of the future", MONDAY + 3 * DAY, added_at=MONDAY + HOUR)
    clock.moment += 2 * HOUR
    assert send(database, shelf, clock).sent == 0  # one mail a day
    clock.moment = MONDAY + DAY
    send(database, shelf, clock)
    assert [set(papers) for _, papers in titles(shelf)] == [{"Paper early"}, {"Paper late", "Paper found later"}]
    clock.moment += 2 * DAY
    send(database, shelf, clock)
    assert titles(shelf)[2:] == [("all@example.org", ["Paper of the future"])]


def test_weekly_on_mondays_or_as_soon_after_as_a_sender_runs(database: Database, clock: Clock) -> None:
    shelf = Shelf()
    with database.session() as session:
        add_reader(session, "weekly@example.org", MONDAY - 5 * DAY, frequency="weekly")
        add_paper(session, "Paper of Thursday", MONDAY - 4 * DAY)
    clock.moment = MONDAY - 2 * DAY
    send(database, shelf, clock)
    assert not shelf.mails  # confirmed on Wednesday; it is Saturday
    clock.moment = MONDAY + DAY  # nobody sent on Monday
    send(database, shelf, clock)
    assert titles(shelf) == [("weekly@example.org", ["Paper of Thursday"])]
    assert "The week of 25 to 31 August 2025" in text_of(shelf.messages[0])
    with database.session() as session:
        add_paper(session, "Paper of Tuesday", MONDAY + DAY + HOUR)
    for day in (2, 3, 4, 5, 6):
        clock.moment = MONDAY + day * DAY
        send(database, shelf, clock)
    assert len(shelf.mails) == 1
    clock.moment = MONDAY + 7 * DAY
    send(database, shelf, clock, "daily")
    assert len(shelf.mails) == 1
    send(database, shelf, clock, "weekly")
    assert titles(shelf)[1:] == [("weekly@example.org", ["Paper of Tuesday"])]


def test_a_saved_search(database: Database, clock: Clock) -> None:
    shelf = Shelf()
    with database.session() as session:
        add_reader(session, "drift@example.org", query="drift -vision")
        add_paper(session, "Paper on drift", MONDAY - HOUR)
        add_paper(session, "Paper on drift in vision", MONDAY - HOUR)
        add_paper(session, "Paper on games", MONDAY - HOUR)
        add_paper(session, "Paper on old drift", MONDAY - 30 * DAY)
    send(database, shelf, clock)
    assert titles(shelf) == [("drift@example.org", ["Paper on drift"])]


def test_one_reader_with_two_subscriptions_gets_a_paper_once(database: Database, clock: Clock) -> None:
    shelf = Shelf()
    with database.session() as session:
        for topics in (["stream"], ["stream", "bags"]):
            add_reader(session, "ada@example.org", topics=topics)
        for name in ("stream", "bags"):
            add_paper(session, f"Paper {name}", MONDAY - HOUR, family=name)
    previewed = [text_of(message).partition("-- ")[0] for message in Sender(database, shelf, SITE, clock).preview()]
    send(database, shelf, clock)
    assert titles(shelf) == [("ada@example.org", ["Paper stream"]), ("ada@example.org", ["Paper bags"])]
    assert previewed == [text_of(message).partition("-- ")[0] for message in shelf.messages]


def test_at_most_so_many_papers_and_the_rest_is_not_mailed_later(database: Database, clock: Clock) -> None:
    shelf = Shelf()
    with database.session() as session:
        add_reader(session, "all@example.org")
        for number in range(45):
            add_paper(session, f"Paper {number:02}", MONDAY - HOUR, hotness=float(number))
    send(database, shelf, clock)
    [(_, papers)] = titles(shelf)
    assert papers == [f"Paper {number:02}" for number in range(44, 4, -1)]
    assert "and 5 more: https://papers.example.org/2025-09-01" in text_of(shelf.messages[0])
    assert shelf.messages[0]["Subject"] == "45 new papers: Paper 44"
    clock.moment += DAY
    assert send(database, shelf, clock).sent == 0


def test_a_preview_changes_nothing(database: Database, clock: Clock) -> None:
    with database.session() as session:
        add_reader(session, "all@example.org")
        add_paper(session, "Paper", MONDAY - HOUR)
    shelf = Shelf()
    sender = Sender(database, shelf, SITE, clock)
    assert (
        [message["To"] for message in sender.preview()]
        == ["all@example.org"]
        == [message["To"] for message in sender.preview()]
    )
    with database.session() as session:
        assert session.scalar(select(func.count()).select_from(Delivery)) == 0
        assert session.scalars(select(Subscription.last_digest_at)).all() == [None]
    assert not shelf.mails


def test_failures_that_pass_are_tried_again_later_with_the_same_bytes(database: Database, clock: Clock) -> None:
    shelf = Shelf({"full@example.org": MailError("452 Full")})
    with database.session() as session:
        add_reader(session, "full@example.org")
        add_reader(session, "all@example.org")
        number = add_paper(session, "Paper of now", MONDAY - HOUR).id
    report = send(database, shelf, clock)
    assert (report.sent, report.later, shelf.readers) == (1, ["full@example.org: 452 Full"], ["all@example.org"])
    with database.session() as session:
        [waiting] = session.scalars(select(OutgoingMail))
        session.get_one(Paper, number).title = "Paper with a better title"
    shelf.troubles.clear()
    assert send(database, shelf, clock).sent == 0  # not yet
    clock.moment += FIRST_PAUSE
    assert Sender(database, shelf, SITE, clock).finish().sent == 1
    assert shelf.mails[1] == Envelope("full@example.org", waiting.message_id, waiting.content)
    assert titles(shelf)[1] == ("full@example.org", ["Paper of now"])


def test_failures_that_never_pass_end(database: Database, clock: Clock) -> None:
    shelf = Shelf({"full@example.org": MailError("452 Full")})
    with database.session() as session:
        add_reader(session, "full@example.org")
        add_paper(session, "Paper", MONDAY - HOUR)
    attempts = [send(database, shelf, clock)]
    while attempts[-1].later:
        clock.moment += DAY
        attempts.append(Sender(database, shelf, SITE, clock).finish())
    assert len(attempts) == MOST_ATTEMPTS
    assert len(attempts[-1].refused) == 1
    with database.session() as session:
        assert session.scalar(select(func.count()).select_from(OutgoingMail)) == 0


def test_an_address_that_refuses_for_good_is_paused(database: Database, clock: Clock) -> None:
    shelf = Shelf({"gone@example.org": RefusedError("550 No such user")})
    with database.session() as session:
        add_reader(session, "gone@example.org")
        add_reader(session, "all@example.org")
    for day in range(MOST_REFUSED + 2):
        with database.session() as session:
            add_paper(session, f"Paper {day}", clock.moment - HOUR)
        report = send(database, shelf, clock)
        assert len(report.refused) == (1 if day < MOST_REFUSED else 0)
        clock.moment += DAY
    assert shelf.readers == ["all@example.org"] * (MOST_REFUSED + 2)
    with database.session() as session:
        paused = {subscription.email: subscription.paused_at for subscription in session.scalars(select(Subscription))}
    assert paused == {"gone@example.org": MONDAY + (MOST_REFUSED - 1) * DAY, "all@example.org": None}


def test_a_mail_that_is_taken_ends_the_count_of_refusals(database: Database, clock: Clock) -> None:
    shelf = Shelf()
    with database.session() as session:
        add_reader(session, "ada@example.org", n_refused=MOST_REFUSED - 1)
        add_paper(session, "Paper", MONDAY - HOUR)
    send(database, shelf, clock)
    with database.session() as session:
        assert session.scalars(select(Subscription.n_refused)).all() == [0]


def test_without_a_server_the_work_stops_and_nothing_is_lost(database: Database, clock: Clock) -> None:
    shelf = Shelf({"a@example.org": NoServerError("the mail server cannot be reached")})
    with database.session() as session:
        for name in "abc":
            add_reader(session, f"{name}@example.org")
        add_paper(session, "Paper", MONDAY - HOUR)
    for _ in range(MOST_ATTEMPTS + 2):  # however often: it is not the reader's fault
        report = send(database, shelf, clock)
        assert (report.sent, report.trouble) == (0, "the mail server cannot be reached")
    shelf.troubles.clear()
    assert send(database, shelf, clock).sent == 3
    assert shelf.readers == ["a@example.org", "b@example.org", "c@example.org"]


class Dying(Shelf):
    """An outbox whose sender is gone, as by kill -9, before or after the mail was taken."""

    taken = True

    def hand_over(self, mail: Envelope) -> None:
        if self.taken:
            super().hand_over(mail)
        raise SystemExit


@pytest.mark.parametrize("taken", [True, False])
def test_what_a_dead_sender_left_goes_out_when_its_time_is_over(database: Database, clock: Clock, taken: bool) -> None:
    with database.session() as session:
        add_reader(session, "a@example.org")
        add_reader(session, "b@example.org")
        add_paper(session, "Paper", MONDAY - HOUR)
    dying, shelf = Dying(), Shelf()
    dying.taken = taken
    with pytest.raises(SystemExit):
        send(database, dying, clock)
    report = send(database, shelf, clock)
    assert (report.sent, report.held, shelf.readers) == (1, 1, ["b@example.org"])
    clock.moment += HELD
    assert Sender(database, shelf, SITE, clock).finish().sent == 1
    assert shelf.readers == ["b@example.org", "a@example.org"]
    assert not taken or shelf.mails[1] == dying.mails[0]  # the one gap that SMTP leaves: twice, but the same


def test_of_two_senders_that_saw_the_same_mails_one_has_each(database: Database, clock: Clock) -> None:
    """Between the first and the second mail of one sender, another takes the second and dies holding it."""
    troubled = Shelf({f"{name}@example.org": MailError("452") for name in "ab"})
    with database.session() as session:
        for name in "ab":
            add_reader(session, f"{name}@example.org")
        add_paper(session, "Paper", MONDAY - HOUR)
    send(database, troubled, clock)
    clock.moment += FIRST_PAUSE
    dying = Dying()

    class Between(Shelf):
        def hand_over(self, mail: Envelope) -> None:
            super().hand_over(mail)
            with suppress(SystemExit):
                Sender(database, dying, SITE, clock).finish()

    shelf = Between()
    Sender(database, shelf, SITE, clock).finish()
    assert (shelf.readers, dying.readers) == (["a@example.org"], ["b@example.org"])


def test_a_reader_who_leaves_meanwhile_gets_no_more(database: Database, clock: Clock) -> None:
    shelf = Shelf({"a@example.org": MailError("452 Later")})
    with database.session() as session:
        add_reader(session, "a@example.org")
        add_paper(session, "Paper", MONDAY - HOUR)
    send(database, shelf, clock)
    with database.session() as session:
        session.delete(session.scalars(select(Subscription)).one())
    shelf.troubles.clear()
    clock.moment += DAY
    assert send(database, shelf, clock).sent == 0
    assert not shelf.mails


def test_several_senders_at_once_send_each_mail_once(database: Database, clock: Clock) -> None:
    with database.session() as session:
        for number in range(12):
            add_reader(session, f"reader{number % 9}@example.org", topics=["learn"] if number > 8 else [])
        for number in range(3):
            add_paper(session, f"Paper {number}", MONDAY - HOUR, family="learn")
    shelf = Shelf()
    together = threading.Barrier(3)
    failures: list[BaseException] = []

    def work() -> None:
        together.wait()
        try:
            send(database, shelf, clock)
        except BaseException as error:
            failures.append(error)

    senders = [threading.Thread(target=work) for _ in range(3)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert not failures
    assert Counter(shelf.readers) == {f"reader{number}@example.org": 1 for number in range(9)}


def test_one_digest_that_cannot_be_made_does_not_stop_the_others(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.session() as session:
        add_reader(session, "a@example.org")
        add_reader(session, "b@example.org")
        add_paper(session, "Paper", MONDAY - HOUR)
    made = sending_module.digest

    def broken(site: Site, subscription: Subscription, *rest: object) -> object:
        if subscription.email == "a@example.org":
            raise ZeroDivisionError
        return made(site, subscription, *rest)  # type: ignore[arg-type]

    shelf = Shelf()
    with monkeypatch.context() as patch:
        patch.setattr(sending_module, "digest", broken)
        assert send(database, shelf, clock).sent == 1
    assert send(database, shelf, clock).sent == 1
    assert shelf.readers == ["b@example.org", "a@example.org"]


def test_stopping_and_going_on(database: Database, clock: Clock) -> None:
    with database.session() as session:
        for name in "abc":
            add_reader(session, f"{name}@example.org")
        add_paper(session, "Paper", MONDAY - HOUR)
    shelf, stop = Shelf(), threading.Event()
    seen = []

    def listen(report: Report, done: int, total: int) -> None:
        seen.append((report.sent, done, total))
        stop.set()

    sender = Sender(database, shelf, SITE, clock)
    assert sender.run(stop=stop, listen=listen).stopped
    assert (shelf.readers, seen) == (["a@example.org"], [(1, 1, 3)])
    assert not sender.run().stopped
    assert shelf.readers == ["a@example.org", "b@example.org", "c@example.org"]


def test_in_a_folder_every_mail_is_once_though_senders_die(database: Database, clock: Clock, tmp_path: Path) -> None:
    with database.session() as session:
        for name in "abc":
            add_reader(session, f"{name}@example.org")
        add_paper(session, "Paper", MONDAY - HOUR)

    class DyingFolder(Folder):
        def hand_over(self, mail: Envelope) -> None:
            super().hand_over(mail)
            raise SystemExit

    for _ in range(3):
        with pytest.raises(SystemExit):
            send(database, DyingFolder(tmp_path), clock)
        clock.moment += HELD
    send(database, Folder(tmp_path), clock)
    assert len(list((tmp_path / "new").iterdir())) == 3


Story = list[tuple[int, str, int]]
"""Papers added before a sender runs, what becomes of it, and after how many hours."""

FATES = ["fine", "dies", "dies after", "full", "no server"]


def check(database: Database, story: Story) -> None:
    """Tell a story, then let senders work for days: two readers have each paper once, in one mail by Message-ID."""
    clock, shelf, count = Clock(), Shelf(), 0
    with database.session() as session:
        for name in "ab":
            add_reader(session, f"{name}@example.org", MONDAY - DAY)
    for papers, fate, hours in [*story, *[(0, "fine", 25)] * 4]:
        clock.moment += hours * HOUR
        with database.session() as session:
            for number in range(count, count + papers):
                add_paper(session, f"Paper {number}", clock.moment)
            count += papers
        outbox = Dying() if fate.startswith("dies") else Shelf()
        if isinstance(outbox, Dying):
            outbox.taken = fate == "dies after"
        elif fate != "fine":
            outbox.troubles["a@example.org"] = MailError("452") if fate == "full" else NoServerError("gone")
        with suppress(SystemExit):
            send(database, outbox, clock)
        shelf.mails += outbox.mails
    by_id = {mail.message_id: mail for mail in shelf.mails}
    assert all(mail == by_id[mail.message_id] for mail in shelf.mails)
    shelf.mails = list(by_id.values())
    for reader in "ab":
        got = Counter(paper for to, papers in titles(shelf) if to == f"{reader}@example.org" for paper in papers)
        assert got == {f"Paper {number}": 1 for number in range(count)}


def test_a_bad_day(database: Database) -> None:
    check(database, [(2, "dies after", 1), (1, "no server", 1), (0, "full", 8), (1, "dies", 20), (2, "dies after", 3)])


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(FATES), st.integers(1, 30)), min_size=1, max_size=8))
def test_any_story(new_url: Callable[..., str], migrated_url: str, story: Story) -> None:
    database = Database(new_url(migrated_url))
    try:
        check(database, story)
    finally:
        database.close()


def test_the_schedule_sends_once_a_day_from_its_hour_on_and_finishes_all_day(database: Database, clock: Clock) -> None:
    shelf = Shelf({"b@example.org": MailError("452 Full")})
    with database.session() as session:
        for name in "ab":
            add_reader(session, f"{name}@example.org", MONDAY - DAY)
        add_paper(session, "Paper", MONDAY - 2 * HOUR)
    schedule = Schedule(lambda: Sender(database, shelf, SITE, clock), hour=6)
    clock.moment = MONDAY - HOUR
    schedule.tick()
    assert not shelf.mails
    clock.moment = MONDAY
    schedule.tick()
    assert shelf.readers == ["a@example.org"]
    shelf.troubles.clear()
    with database.session() as session:
        add_paper(session, "Paper of the evening", MONDAY + HOUR)
        add_reader(session, "c@example.org", MONDAY)
    clock.moment += FIRST_PAUSE
    schedule.tick()
    assert shelf.readers == ["a@example.org", "b@example.org"]
    clock.moment = MONDAY + DAY
    schedule.tick()
    assert shelf.readers[2:] == ["a@example.org", "b@example.org", "c@example.org"]


def test_the_schedule_outlives_errors_and_tries_again(database: Database, clock: Clock) -> None:
    shelf = Shelf({"a@example.org": NoServerError("gone")})
    with database.session() as session:
        add_reader(session, "a@example.org", MONDAY - DAY)
        add_paper(session, "Paper", MONDAY - HOUR)
    senders = iter([ZeroDivisionError("no luck"), Sender(database, shelf, SITE, clock)])

    def make() -> Sender:
        made = next(senders)
        if isinstance(made, Exception):
            raise made
        return made

    schedule = Schedule(make, hour=6)
    assert schedule.tick() is None
    assert not shelf.mails
    assert (schedule.tick() or Report()).trouble == "gone"
    shelf.troubles.clear()
    schedule.tick()
    assert shelf.readers == ["a@example.org"]


def test_the_schedule_s_thread_ends_when_told(database: Database, clock: Clock) -> None:
    shelf = Shelf()
    with database.session() as session:
        add_reader(session, "a@example.org", MONDAY - DAY)
        add_paper(session, "Paper", MONDAY - HOUR)
    sent = threading.Event()

    class Telling(Shelf):
        def hand_over(self, mail: Envelope) -> None:
            shelf.hand_over(mail)
            sent.set()

    schedule = Schedule(lambda: Sender(database, Telling(), SITE, clock), hour=6)
    schedule.start()
    assert sent.wait(30)
    schedule.stop()
    assert shelf.readers == ["a@example.org"]
    assert not any(thread.name == "digests" for thread in threading.enumerate())
