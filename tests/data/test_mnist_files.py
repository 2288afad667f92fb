"""MNIST on disk: search order, arrays, damage. The tests with ``shared`` read the real files."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from look_alike import (
    BOMB,
    CONTENTS,
    FILES,
    IMAGES,
    NAMES,
    ONE_BIT,
    PACKED,
    SHAPES,
    Server,
    assert_complete,
    put,
)

from grokfast.data import mnist
from grokfast.data.idx import BadFile
from grokfast.data.mnist import (
    fetch_mnist,
    find_mnist,
    load_mnist,
    verify_mnist,
)
from grokfast.errors import EnvironmentProblem

# ---- search


def test_nothing_on_this_machine(machine: Path) -> None:
    assert find_mnist(files=FILES) is None


@pytest.mark.parametrize("packed", [False, True])
def test_order_of_the_places(
    tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    """Adding better places one by one, each is found before the ones already there."""
    named, variable = tmp_path / "named", tmp_path / "variable"
    cached_torchvision = tmp_path / "xdg/torchvision/MNIST/raw"
    for place in (machine, cached_torchvision, Path("data/MNIST/raw").absolute()):
        put(place, packed)
        assert find_mnist(files=FILES) == place
    put(variable, packed)
    monkeypatch.setenv("GROKFAST_DATA", str(variable))
    assert find_mnist(files=FILES) == variable
    assert find_mnist(named, files=FILES) == variable
    put(named, packed)
    assert find_mnist(named, files=FILES) == named
    assert find_mnist(str(named), files=FILES) == named


def test_a_torchvision_root_may_be_named(tmp_path: Path) -> None:
    raw = put(tmp_path / "root/MNIST/raw", packed=False)
    assert find_mnist(tmp_path / "root", files=FILES) == raw
    assert fetch_mnist(tmp_path / "root", files=FILES) == raw
    assert_complete(tmp_path / "root", data_only=False)


def test_tilde_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "m")
    assert find_mnist("~/m", files=FILES) == tmp_path / "m"
    assert (find_mnist("../m", files=FILES) or Path()).resolve() == tmp_path / "m"
    with pytest.raises(EnvironmentProblem, match="cannot expand"):
        find_mnist("~no-such-user-at-all/m", files=FILES)


def test_relative_xdg_is_ignored_and_home_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert mnist._user_cache() == tmp_path / ".cache"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert mnist._user_cache() == tmp_path / "Library" / "Caches"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert mnist._user_cache() == tmp_path / "local"


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(mnist.Path, "home", no_home)
    monkeypatch.setattr(sys, "platform", "linux")
    assert find_mnist(files=FILES) is None
    with pytest.raises(EnvironmentProblem, match="no home folder"):
        load_mnist(files=FILES)


def test_incomplete_places_are_passed_over(machine: Path, tmp_path: Path) -> None:
    put(tmp_path / "half")
    (tmp_path / "half" / f"{IMAGES}.gz").unlink()
    assert find_mnist(tmp_path / "half", files=FILES) is None
    put(machine)
    assert find_mnist(tmp_path / "half", files=FILES) == machine


# ---- arrays


@pytest.mark.parametrize("packed", [False, True])
def test_arrays(tmp_path: Path, packed: bool) -> None:
    arrays = load_mnist(put(tmp_path / "m", packed), download=False, files=FILES)
    for array, name, shape in zip(arrays, NAMES, SHAPES, strict=True):
        assert array.dtype == np.uint8 and array.shape == shape and array.flags.writeable
        assert CONTENTS[name].endswith(array.tobytes())
    assert arrays.train_images is arrays[0] and arrays.test_labels is arrays[3]


# ---- damage

DAMAGE = {
    "truncated plain": (CONTENTS[IMAGES][:-3], "truncated: 55 bytes, the header promises 58"),
    "truncated gzip": (PACKED[f"{IMAGES}.gz"][:-20], "gzip stream ends early"),
    "one bit": (ONE_BIT, "wrong SHA-256"),
    "wrong magic": (b"\x80\x02" + CONTENTS[IMAGES][2:], "wrong magic number"),
    "labels for images": (CONTENTS[NAMES[1]], "holds uint8 [7], not uint8 [7, 3, 2]"),
    "too large": (CONTENTS[IMAGES] + b"\0", "wrong size: more than 58 bytes"),
    "bomb": (BOMB, "wrong size: more than 58 bytes"),
    "page": (b"<!DOCTYPE html>\n<title>Sign in</title>", "HTML"),
    "empty": (b"", "too few for a header"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("where", ["data_dir", "GROKFAST_DATA"])
def test_damage_in_a_named_folder_is_an_error(
    tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, damage: str, where: str
) -> None:
    content, reason = DAMAGE[damage]
    bad = put(tmp_path / "bad", images=content)
    put(machine)  # a good copy elsewhere does not hide it
    data_dir = bad if where == "data_dir" else None
    if where == "GROKFAST_DATA":
        monkeypatch.setenv("GROKFAST_DATA", str(bad))
    for call in (find_mnist, fetch_mnist, load_mnist):
        with pytest.raises(BadFile) as caught:
            call(data_dir, files=FILES)
        assert str(bad / f"{IMAGES}.gz") in str(caught.value) and reason in str(caught.value)
        assert caught.value.exit_code == 3 and caught.value.hint
    assert (bad / f"{IMAGES}.gz").read_bytes() == content, "the user's file was touched"
    statuses = verify_mnist(bad, files=FILES)
    assert statuses[IMAGES].state == "bad" and reason in str(statuses[IMAGES])
    assert [statuses[name].state for name in NAMES[1:]] == ["ok"] * 3


def test_damage_in_torchvisions_folder_is_a_warning(machine: Path) -> None:
    bad = put(Path("data/MNIST/raw").absolute(), images=DAMAGE["one bit"][0])
    put(machine)
    with pytest.warns(UserWarning, match=re.escape(str(bad / IMAGES)) + r".*wrong SHA-256"):
        assert find_mnist(files=FILES) == machine


@pytest.mark.parametrize("packed", [False, True])
def test_damage_in_our_cache_is_replaced(server: Server, machine: Path, packed: bool) -> None:
    put(machine, packed, images=DAMAGE["one bit"][0])
    with pytest.warns(UserWarning, match="passed over.*wrong SHA-256"):
        assert load_mnist(files=FILES).train_images.shape == (7, 3, 2)
    assert server.paths == [f"/good/{IMAGES}.gz"], "only the bad file is downloaded"
    assert_complete(machine)


def test_damage_is_named_when_nothing_else_is_there(machine: Path) -> None:
    put(machine, images=DAMAGE["page"][0])
    with (
        pytest.warns(UserWarning),
        pytest.raises(EnvironmentProblem, match=re.escape(f"{IMAGES}.gz") + ".*HTML"),
    ):
        load_mnist(download=False, files=FILES)


def test_verify_names_all_four(tmp_path: Path) -> None:
    statuses = verify_mnist(tmp_path / "nowhere", files=FILES)
    assert {name: str(status) for name, status in statuses.items()} == dict.fromkeys(
        NAMES, "missing"
    )
    assert statuses[IMAGES].path is None
    folder = put(tmp_path / "m")
    (folder / f"{NAMES[1]}.gz").unlink()
    (folder / f"{NAMES[2]}.gz").unlink()
    (folder / f"{NAMES[2]}.gz").symlink_to(tmp_path / "gone")
    states = [s.state for s in verify_mnist(folder, files=FILES).values()]
    assert states == ["ok", "missing", "bad", "ok"]


# ---- the real thing


def test_table() -> None:
    """Sizes are known from the published format: a 16 or 8 byte header, then the values."""
    assert [spec.size for spec in mnist.MNIST] == [47040016, 60008, 7840016, 10008]
    assert all(re.fullmatch("[0-9a-f]{64}", spec.sha256) for spec in mnist.MNIST)


def test_digests_are_the_published_ones(shared: Path) -> None:
    readme = (shared / "data/mnist/README.md").read_text()
    for spec in mnist.MNIST:
        assert f"| {spec.name} | {spec.sha256} |" in readme


def test_the_real_files(shared: Path) -> None:
    folder = shared / "data/mnist"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_mnist(folder) == folder == fetch_mnist(folder)
        arrays = load_mnist(folder, download=False)
    assert {str(status) for status in verify_mnist(folder).values()} == {"ok"}
    assert arrays.train_images.shape == (60000, 28, 28)
    assert arrays.train_labels.shape == (60000,)
    assert arrays.test_images.shape == (10000, 28, 28)
    assert arrays.test_labels.shape == (10000,)
    assert all(array.dtype == np.uint8 for array in arrays)
    assert arrays.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert arrays.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(arrays.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    # The mean that every MNIST example normalises with.
    assert arrays.train_images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)


def test_look_alikes_are_not_mnist(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"holds uint8 \[7, 3, 2\], not uint8 \[60000, 28, 28\]"):
        find_mnist(put(tmp_path / "m"))


def test_no_torch_at_import() -> None:
    code = "import sys, grokfast.data.mnist; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
