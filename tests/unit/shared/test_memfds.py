"""Anonymous files in memory."""

import fcntl
import hashlib
import os

import pytest

from sandrun_shared import memfds
from sandrun_shared.memfds import Memfd, sha256_of


def test_a_new_one_is_read_from_its_start_and_can_be_sealed() -> None:
    fd = memfds.create("test", b"data")
    try:
        assert os.read(fd, 9) == b"data"
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        with pytest.raises(PermissionError):
            os.write(fd, b"more")
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_one_that_cannot_be_filled_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(28, "no space")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(memfds.os, "pwrite", fails)
    with pytest.raises(OSError, match="no space"):
        memfds.create("test", b"data")
    assert os.listdir("/proc/self/fd") == before


def test_an_owned_one_knows_its_size() -> None:
    memfd = Memfd.create("test", b"data")
    memfd.append(b"more")
    assert (memfd.size, memfd.read_at(0, 99)) == (8, b"datamore")
    assert sha256_of(memfd) == hashlib.sha256(b"datamore").hexdigest()
    memfd.close()
    memfd.close()
    with pytest.raises(ValueError, match="closed"):
        memfd.fileno()
