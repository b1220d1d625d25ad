"""Faults of buckets, on every kind of them."""

from __future__ import annotations

import base64
import itertools
import os
import signal
import ssl
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from bundler.errors import (
    ConfigurationError,
    CredentialsRefused,
    Locked,
    ToolFailed,
    Unavailable,
    VerificationFailed,
)
from bundler.store import Store, checking, lease, open_store, prune
from tests.support import stores
from tests.support.faultyfront import Fault, Front
from tests.support.storefixtures import Files, Make, contents, enter
from tests.support.storewriter import Writers, running, states_in

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    "fault",
    [
        Fault("", status=500, code="InternalError", times=2),
        Fault("", status=503, code="SlowDown", times=2),
        Fault("", status=429, code="TooManyRequests", times=2),
        Fault("", "cut"),
        Fault("", "lost"),
    ],
    ids=["500", "slowdown", "throttled", "cut", "lost-answer"],
)
def test_what_passes_is_waited_for(
    faulty: tuple[Front, stores.Server], states: Make, tmp_path: Path, fault: Fault
) -> None:
    """Each kind of object that a push writes meets it once."""
    before, server = faulty
    names = ["store.json", "content/", "versions/", "sets/", "current.json"]
    store = open_store(server.url())
    for number, name in enumerate(names, 1):
        before.faults.append(replace(fault, contains=name))
        store.push(states(A=b"%d" % number))
        assert not before.faults, f"nothing wrote {name}"
        assert contents(store, tmp_path)["A"] == {"state": b"%d" % number}
    numbers = [change.number for change in store.history()]
    assert numbers == list(range(len(names), 0, -1)), "each once, though sent twice"


UNSIGNED = "UNSIGNED-PAYLOAD"


def unsigned(server: stores.Server, before: Front, states: Make) -> tuple[bool, bool]:
    """Whether a push signs no part of a large file, and whether it signs nothing else."""
    before.signed.clear()
    open_store(server.url()).push(states(A=os.urandom(10 * MEBIBYTE), B=b"small"))
    parts = {value for path, value in before.signed.items() if "partNumber=" in path}
    others = {value for path, value in before.signed.items() if "/content/" not in path}
    assert parts
    assert others
    return parts == {UNSIGNED}, UNSIGNED in others


@pytest.mark.parametrize("faulty", ["s3"], indirect=True)
def test_contents_are_signed_where_no_tls_brings_them_whole(
    faulty: tuple[Front, stores.Server],
    states: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Vendors' clients do the same, and there are servers that want it."""
    before, server = faulty
    assert unsigned(server, before, states) == (False, False)
    monkeypatch.setenv("AWS_UNSIGNED_PAYLOAD", "true")
    assert unsigned(server, before, states) == (True, True)
    monkeypatch.delenv("AWS_UNSIGNED_PAYLOAD")

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    before.socket = context.wrap_socket(before.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    endpoint = os.environ["AWS_ENDPOINT_URL"].replace("http://", "https://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert unsigned(server, before, states) == (True, False)
    monkeypatch.setenv("AWS_UNSIGNED_PAYLOAD", "false")
    assert unsigned(server, before, states) == (False, False)


# Azure numbers the parts of an upload in base64; the second that comes is as good.
PARTS = {"s3": "partNumber=", "gcs": "partNumber=", "azure": "comp=block&"}


def test_a_cut_part_of_a_large_upload_is_sent_again(
    faulty: tuple[Front, stores.Server],
    states: Make,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    before, server = faulty
    part = PARTS[request.node.callspec.params["faulty"]]
    store, large = open_store(server.url()), os.urandom(20 * MEBIBYTE)
    before.faults += [Fault(part, "cut", skip=1), Fault(part, "lost")]
    store.push(states(A=large))
    assert not before.faults
    assert contents(store, tmp_path)["A"] == {"state": large}


COMPLETE = {
    "s3": ("uploadId=", "POST"),
    "gcs": ("uploadId=", "POST"),
    "azure": ("comp=blocklist", "PUT"),
}


def test_an_upload_that_was_completed_is_complete_although_the_answer_was_lost(
    faulty: tuple[Front, stores.Server],
    states: Make,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """A second request to complete it is refused, and so is one for an upload that has ended."""
    before, server = faulty
    contains, method = COMPLETE[request.node.callspec.params["faulty"]]
    refused = Fault(contains, status=404, code="NoSuchUpload", method=method)
    store, large = open_store(server.url()), os.urandom(9 * MEBIBYTE)
    before.faults = [Fault(contains, "lost", method=method), replace(refused)]
    store.push(states(A=large))
    assert not before.faults
    assert contents(store, tmp_path)["A"] == {"state": large}
    for status, kind in ((404, ToolFailed), (409, Unavailable)):
        before.faults = [replace(refused, status=status, times=99)]
        with pytest.raises(kind, match=f"answered {status} when asked to write content/"):
            store.push(states(A=os.urandom(9 * MEBIBYTE)))
    before.faults = []
    assert contents(store, tmp_path)["A"] == {"state": large}


def test_a_small_object_that_is_refused_is_not_the_earlier_one(
    faulty: tuple[Front, stores.Server],
) -> None:
    """Such as the record of a join, which has the same name and size in each attempt of a run."""
    before, server = faulty
    objects = open_store(server.url()).objects
    objects.write("joined", [b"1"], 1)
    before.faults = [Fault("joined", status=400, code="InvalidRequest")]
    with pytest.raises(ToolFailed, match="answered 400"):
        objects.write("joined", [b"2"], 1)


@pytest.mark.parametrize("status", [404, 409, 412])
def test_an_object_that_is_refused_and_does_not_exist_is_written_again(
    faulty: tuple[Front, stores.Server], states: Make, status: int
) -> None:
    """S3 answers 409 to one of two writers, without a promise that the other succeeds."""
    before, server = faulty
    store = open_store(server.url())
    for number, name in enumerate(("probe/", "versions/", "sets/"), 1):
        before.faults = [Fault(name, status=status, code="ConditionalRequestConflict")]
        store.push(states(A=b"%d" % number))
        assert not before.faults
    assert not checking.check(open_store(store.url)).problems
    before.faults = [Fault("sets/", status=status, code="NoSuchKey", times=99)]
    with pytest.raises(ToolFailed, match=r"refuses to create sets/0+3\.json"):
        store.push(states(A=b"4"))
    before.faults = [Fault("probe/", "lost", skip=skip) for skip in range(3)]
    open_store(server.url()).push(states(A=b"1"))


def test_an_object_that_was_cut_short_is_damage(store: Store, states: Make, tmp_path: Path) -> None:
    """A read after its end is refused by buckets."""
    store.push(states(A=os.urandom(9 * MEBIBYTE), B=b"small"))
    for version in store.currents().values():
        (name,) = version.objects
        store.objects.write(name, [b"x" * (version.state.size // 2)], version.state.size // 2)
    with pytest.raises(VerificationFailed, match="altered"):
        contents(store, tmp_path)
    assert len(checking.check(store).problems) == 2


def test_a_cut_download_is_asked_for_again(
    faulty: tuple[Front, stores.Server], states: Make, tmp_path: Path
) -> None:
    before, server = faulty
    store, large = open_store(server.url()), os.urandom(9 * MEBIBYTE)
    store.push(states(A=large, B=b"small"))
    before.faults += [
        Fault("content/", "lost", method="GET", times=2),
        Fault("current.json", method="GET", times=2),
    ]
    assert contents(open_store(store.url), tmp_path)["A"] == {"state": large}
    assert not before.faults


def test_what_does_not_pass_is_an_error_of_its_kind(
    faulty: tuple[Front, stores.Server], states: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, server = faulty
    store = open_store(server.url(), patience=1.0)
    store.push(states(A=b"1"))
    before.faults = [Fault("/", times=1000, method="*")]
    with pytest.raises(Unavailable, match="answered 503"):
        store.current()
    for status, code in ((401, "Unauthorized"), (403, "AuthenticationFailed")):
        before.faults = [Fault("/", status=status, code=code, times=9, method="*")]
        with pytest.raises(CredentialsRefused):
            store.current()
        with pytest.raises(CredentialsRefused):
            store.push(states(A=b"2"))
    before.faults = []
    assert store.require_current().number == 1
    with pytest.raises(ConfigurationError, match="the bucket does not exist"):
        open_store(f"{server.scheme}://elsewhere/x").push(states(A=b"1"))
    for name, value in before.environment(server.environment).items():
        monkeypatch.setenv(name, value.replace(str(before.server_address[1]), "9"))
    with pytest.raises(Unavailable, match="did not answer"):
        open_store(store.url, patience=0.5).current()


WRONG = {
    "s3": ("AWS_ACCESS_KEY_ID", "AKIAWRONG"),
    "azure": ("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"wrong").decode()),
}


@pytest.mark.parametrize("new_url", WRONG, indirect=True)  # Google's stand-in looks at no key
def test_wrong_credentials_are_refused_without_being_shown(
    url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv(*WRONG[request.node.callspec.params["new_url"]])
    with pytest.raises(CredentialsRefused) as refused:
        open_store(url).current()
    reported = str(refused.value) + refused.value.hint
    assert not [value for name, value in os.environ.items() if "KEY" in name and value in reported]


def test_a_thousand_small_states_are_a_few_requests(
    faulty: tuple[Front, stores.Server], states: Make
) -> None:
    before, server = faulty
    store = open_store(server.url())
    news = [states(**{f"K{n}": b"%d" % (n * step) for n in range(300)}) for step in (1, 7)]
    store.push(news[0])
    before.requests.clear()
    open_store(store.url).push(news[1])
    assert len(before.requests) <= 9, before.requests
    before.requests.clear()
    open_store(store.url).push(news[1])
    whole = "the pointer twice, the versions, and whether their objects exist"
    assert len(before.requests) <= 6, whole


# --- a death at every request ---------------------------------------------------------------------


class Dying:
    """Writers to one kind of store which die by SIGKILL when a request of theirs was carried out.

    That is the same to the store as dying before the next one.
    """

    def __init__(self, before: Front, server: stores.Server, writers: Writers, root: Path) -> None:
        self.before, self.server, self.writers, self.root = before, server, writers, root
        self.environment = before.environment(server.environment)
        self.pushed = 0
        self.seen: dict[str, Files] = {}

    def states(self, size: int = 1) -> tuple[Path, dict[str, Files]]:
        """A folder with states that nobody has pushed yet, one of them of this size."""
        self.pushed += 1
        value = b"%d" % self.pushed
        files = {"A": value, "B": value.ljust(size), f"C{self.pushed % 3}": value}
        folder = self.root / f"states-{self.pushed}"
        for key, content in files.items():
            (folder / key).mkdir(parents=True)
            (folder / key / "state").write_bytes(content)
        return folder, {key: {"state": content} for key, content in files.items()}

    def lives(self, work: str, url: str, folder: Path, step: int) -> bool:
        """Whether the writer had fewer than `step` requests to make."""
        self.before.victim = self.writers.begin(self.environment, work, url, folder)
        self.before.faults = [Fault("", "death", method="*", skip=step)]
        (ended,) = self.writers.let_go()
        assert ended in (0, -signal.SIGKILL)
        assert bool(self.before.faults) == (ended == 0)
        self.before.faults = []
        return ended == 0

    def contents(self, store: Store) -> dict[str, Files]:
        """What a pull gives; no version that was pulled before is pulled again."""
        current = store.current()
        now = {key: entry.version for key, entry in current.keys.items()} if current else {}
        new = {key: version for key, version in now.items() if version not in self.seen}
        found = contents(store, self.root, new)
        self.seen.update({new[key]: files for key, files in found.items()})
        return {key: self.seen[version] for key, version in now.items()}


@pytest.fixture(scope="module")
def forked() -> Iterator[Writers]:
    with running() as found:
        yield found


@pytest.fixture
def dying(
    faulty: tuple[Front, stores.Server],
    forked: Writers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Dying:
    before, server = faulty
    enter(server, monkeypatch)  # writers stand behind the front; who looks after them does not
    return Dying(before, server, forked, tmp_path)


def test_a_first_push_killed_at_any_request_leaves_nothing_or_all(dying: Dying) -> None:
    for step in itertools.count():
        store = open_store(dying.server.url())
        folder, new = dying.states()
        lived = dying.lives("push", store.url, folder, step)
        assert dying.contents(store) in ([new] if lived else [{}, new])
        if lived:
            assert step > 10
            return


@pytest.mark.parametrize(
    ("work", "least", "size"), [("push", 8, 5 * MEBIBYTE + 1), ("rollback", 4, 1), ("prune", 8, 1)]
)
def test_a_writer_killed_at_any_request_leaves_the_old_or_the_new(
    dying: Dying, work: str, least: int, size: int
) -> None:
    """On one store, which has to get over all that the dead have left in it."""
    store = open_store(dying.server.url())
    sets = {}
    for number in (1, 2):
        store.push(states_in(dying.states()[0]))
        sets[number] = now = dying.contents(store)
    for step in itertools.count():
        folder, new = dying.states(size)
        back = sets.get(max(sets) - 1, {})
        after = {"push": {**now, **new}, "rollback": back, "prune": now}[work]
        lived = dying.lives(work, store.url, folder, step)
        allowed = [after] if lived else [now, after]
        now = dying.contents(store)
        assert now in allowed
        sets[store.require_current().number] = now
        if lived:
            assert step > least
            break
    fresh = open_store(store.url)
    current = fresh.require_current()
    assert not current.retired
    assert not checking.check(fresh).problems
    assert len(list(fresh.history())) == current.number - current.oldest + 1


# --- fifty writers, listings that lag, clocks that are off ----------------------------------------


@pytest.mark.parametrize("new_url", ["s3", "gcs", "azure"], indirect=True)
def test_fifty_writers_in_five_processes_lose_nothing(
    store: Store, forked: Writers, tmp_path: Path
) -> None:
    """On a folder in `test_storage_races`."""
    mine = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "GOOGLE_", "AZURE_"))}
    for number in range(50):
        folder = tmp_path / str(number % 5) / f"own-{number}"
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(b"%d" % number)
    for number in range(5):
        forked.begin(mine, "fifty", store.url, tmp_path / str(number))
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(forked.let_go)
        while not ended.done():
            current = store.current()
            if current is not None:  # a reader of one key of a push sees the other
                assert len(current.change.moves) == 2
                assert current.keys["shared"].version == current.change.moves[1].after
            time.sleep(0.1)
    assert ended.result() == [0] * 5
    changes = list(store.history())
    assert [change.number for change in changes] == list(range(50, 0, -1))
    moves = [move for change in changes for move in change.moves if move.key == "shared"]
    assert [move.before for move in moves] == [*(move.after for move in moves[1:]), None]
    found = contents(store, tmp_path)
    assert found.pop("shared") in found.values()
    assert found == {f"own-{number}": {"state": b"%d" % number} for number in range(50)}


def test_a_listing_that_lags_hides_nothing(
    faulty: tuple[Front, stores.Server], states: Make, tmp_path: Path
) -> None:
    """It neither shows what was written since, nor that something has gone."""
    before, server = faulty
    store = open_store(server.url())
    before.lags = True
    for value in (b"1", b"2", b"3", b"4"):
        store.push(states(A=value))
        prune.prune(store, prune.PruneRules(keep=2))
    assert before.listings
    assert contents(store, tmp_path) == {"A": {"state": b"4"}}
    store.rollback()
    assert contents(store, tmp_path) == {"A": {"state": b"3"}}
    assert not checking.check(open_store(store.url)).problems


def test_the_stores_clock_says_what_is_a_leftover(
    faulty: tuple[Front, stores.Server], states: Make, tmp_path: Path
) -> None:
    """Whatever this machine's clock says."""
    before, server = faulty
    store = open_store(server.url())
    store.push(states(A=b"1"))
    left = f"content/{'0' * 64}.00000000"
    store.objects.write(left, [b"left by a writer that died"], 26)
    before.ahead = 23 * 3600
    assert prune.prune(store, prune.PruneRules()).leftovers == ()
    before.ahead = 25 * 3600
    assert prune.prune(store, prune.PruneRules()).leftovers == (left,)
    assert contents(store, tmp_path) == {"A": {"state": b"1"}}
    # So it does of what was current until a moment ago.
    store.push(states(A=b"2"))
    rules = [prune.PruneRules(keep=1, older_than=hours * 3600.0) for hours in (26, 24)]
    assert [len(prune.prune(store, it, dry_run=True).versions) for it in rules] == [0, 1]
    # A lease that was taken before the store's clock went on has run out by it.
    dead = lease._Lease(uuid.uuid4().hex, "dead", 0, ("A",))
    lease._acquire(store.objects, dead, 60.0, 0.0)
    with pytest.raises(Locked):
        lease.lease(store.objects, ["A"], "next").__enter__()
    before.ahead += 61
    with lease.lease(store.objects, ["A"], "next"):
        pass


def test_a_lease_that_cannot_be_given_back_does_not_fail_what_succeeded(
    faulty: tuple[Front, stores.Server],
) -> None:
    before, server = faulty
    store = open_store(server.url())
    with lease.lease(store.objects, ["A"], "first", length=5.0):
        before.faults = [Fault("/", status=403, code="ExpiredToken", times=99, method="*")]
    assert len(before.requests) > 3
    before.faults = []
    with pytest.raises(Locked, match="first is refreshing it now"):
        lease.lease(store.objects, ["A"], "next").__enter__()
    with pytest.raises(Locked, match="expired"):
        lease.Held(length=1.0, renewed=time.monotonic() - 2).check()


def test_a_clock_that_is_off_does_not_disturb_the_order(
    store: Store, states: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, clock in ((b"1", "2030-01-01T00:00:00Z"), (b"2", "1999-01-01T00:00:00Z")):
        monkeypatch.setattr("bundler.system.times.now", lambda clock=clock: clock)
        store.push(states(A=value))
    assert contents(store, tmp_path) == {"A": {"state": b"2"}}
    changes = list(store.history())
    assert [change.made for change in changes] == ["2030-01-01T00:00:00Z"] * 2
    assert [change.number for change in changes] == [2, 1]
    assert not prune.prune(store, prune.PruneRules(keep=1)).leftovers


@pytest.mark.parametrize("faulty", ["s3"], indirect=True)
@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (403, "RequestTimeTooSkewed", CredentialsRefused, "clock"),
        (403, "InvalidObjectState", ToolFailed, "archived"),
        (301, "PermanentRedirect", ConfigurationError, "region"),
        (409, "OperationAborted", Unavailable, "answered 409"),
    ],
)
def test_an_error_says_what_its_code_means(
    faulty: tuple[Front, stores.Server], status: int, code: str, kind: type[Exception], says: str
) -> None:
    before, server = faulty
    before.faults = [Fault("/", status=status, code=code, times=99, method="*")]
    with pytest.raises(kind, match=says):
        open_store(server.url(), patience=0.1).current()
