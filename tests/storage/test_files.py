"""Files that are replaced whole: through links, with mode and owner, and no temporaries left."""

import os
import subprocess
import sys

import pytest

from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.storage.files import (
    clear_leftovers,
    real_path,
    replacing,
    temporary_of,
    user_path,
    writable,
)
from grokfast.storage.processes import alive, here, started


def write(path, text="new"):
    with replacing(path) as temporary:
        temporary.write_text(text)


@pytest.fixture
def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_link_stays_and_what_it_stands_for_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    real = tmp_path / "far" / "real.h5"
    real.write_text("old")
    (tmp_path / "one").symlink_to("far/real.h5")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with replacing(tmp_path / "two") as temporary:
        assert temporary.parent == real.parent
        temporary.write_text("new")
    assert real.read_text() == "new"
    assert (tmp_path / "two").is_symlink()
    assert (tmp_path / "one").is_symlink()
    assert sorted(p.name for p in real.parent.iterdir()) == ["real.h5"]


def test_a_link_to_what_is_not_there_yet(tmp_path):
    (tmp_path / "link").symlink_to("later.h5")
    write(tmp_path / "link")
    assert (tmp_path / "later.h5").read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "lost").symlink_to("nowhere/later.h5")
    with pytest.raises(UsageError, match="no such folder: .*nowhere"):
        writable(tmp_path / "lost")


def test_a_link_through_a_linked_folder(tmp_path):
    """``..`` in a link is counted from where the link really lies, as the system does."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "short").symlink_to("a/b")
    (tmp_path / "a" / "b" / "link").symlink_to("../real.h5")
    write(tmp_path / "short" / "link")
    assert (tmp_path / "a" / "real.h5").read_text() == "new"


def test_a_link_without_an_end(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match="leads to itself"):
        real_path(tmp_path / "a")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_mode_of_an_existing_file_is_kept(mode, tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(mode)
    with replacing(path) as temporary:
        assert temporary.stat().st_mode & 0o077 == 0  # nobody else reads it before it is known
        temporary.write_text("new")
    assert path.stat().st_mode & 0o7777 == mode
    assert path.read_text() == "new"


def test_a_new_file_has_the_users_mode(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may")
def test_owner_of_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    os.chown(path, 12345, 54321)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_an_owner_that_may_not_be_given_is_no_error(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")

    def refused(*arguments):
        raise PermissionError(1, "Operation not permitted")

    found = os.fstat
    monkeypatch.setattr(os, "fchown", refused)
    monkeypatch.setattr(
        os, "fstat", lambda d: os.stat_result((*found(d)[:4], 4711, 4711, *found(d)[6:]))
    )
    write(path)
    assert path.read_text() == "new"


@pytest.mark.parametrize("name", ["run[1-3].h5", "run*.h5", "run?.h5"])
def test_clean_up_knows_no_patterns(name, tmp_path, gone):
    (tmp_path / "run1.h5").write_text("a result")
    mine, others = tmp_path / f".{name}.{gone}.tmp", tmp_path / f".run1.h5.{gone}.tmp"
    mine.write_text("")
    others.write_text("")
    write(tmp_path / name)
    assert (tmp_path / "run1.h5").read_text() == "a result"
    assert others.exists()
    assert not mine.exists()


def test_clean_up_leaves_what_a_living_process_writes(tmp_path, gone):
    there, token = here(), "0123abcd"
    keep = [
        f".a.h5.{os.getpid()}.tmp",
        f".a.h5.@{there}.{os.getpid()}.{token}.tmp",
        temporary_of(tmp_path / "a.h5").name,
        f".a.h5.@elsewhere.{gone}.{token}.tmp",  # nobody can be asked
        f".a.h5.@elsewhere.{gone}-5.{token}.tmp",
        f".a.h5.ckpt.@{there}.{gone}.{token}.tmp",  # of another file
        f".b.a.h5.{gone}.tmp",
        f".a.h5.{gone}.tmp2",
        ".a.h5.mine.tmp",
    ]
    away = [
        f".a.h5.{gone}.tmp",
        f".a.h5.@{there}.{gone}.{token}.tmp",
        f".a.h5.@{there}.{gone}-77.{token}.tmp",
    ]
    if begun := started(os.getpid()):  # the number of a dead process, used again
        away.append(f".a.h5.@{there}.{os.getpid()}-{begun - 1}.{token}.tmp")
    old = f".a.h5.@elsewhere.{gone}.89abcdef.tmp"
    for name in (*keep, *away, old):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / old, (0, 0))
    clear_leftovers(tmp_path / "a.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(keep)


def test_two_writers_in_one_process_have_a_temporary_each(tmp_path):
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a").read_text() == "one"  # who ends last


def test_devices_and_folders_are_refused(tmp_path):
    for path, says in ((os.devnull, "device or pipe"), (tmp_path, "is a folder")):
        with pytest.raises(UsageError, match=says):
            writable(path)
    with pytest.raises(EnvironmentProblem, match="it is there and no file"):
        write(real_path(user_path(os.devnull)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is no folder"):
        writable(tmp_path / "file" / "a.h5")


def test_a_folder_that_goes_is_said(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    with (
        pytest.raises(EnvironmentProblem, match="its folder has gone"),
        replacing(folder / "a") as temporary,
    ):
        temporary.unlink()
        folder.rmdir()


def test_home_is_meant_by_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a.h5") == tmp_path / "a.h5"
    with pytest.raises(UsageError, match="cannot expand '~nobody-of-this-name/a'"):
        user_path("~nobody-of-this-name/a")
    with pytest.raises(UsageError, match="zero byte"):
        user_path("a\0b")


def test_a_number_that_is_used_again_is_another_process(gone):
    assert alive(os.getpid())
    assert not alive(gone)
    begun = started(os.getpid())
    if not begun:
        pytest.skip("this system does not tell when a process began")
    assert alive(os.getpid(), begun)
    assert not alive(os.getpid(), begun - 1)


def test_what_cannot_be_read_is_told_as_it_is(tmp_path):
    from grokfast.storage.files import check_file

    (tmp_path / "d").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for path, says in (
        (tmp_path / "d", "d is a folder; name a file"),
        (tmp_path / "x", "no such file: .*x"),
        (tmp_path / "n" / "x", "no such folder: .*n"),
        (tmp_path / "file" / "x", "file is no folder"),
        (tmp_path / "link", "link is a link to nowhere, which is not there"),
        (user_path(os.devnull), "is a device or pipe"),
    ):
        with pytest.raises(UsageError, match=says):
            check_file(path)
    check_file(tmp_path / "file")
