import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.core.errors import StorageError, UsageError, did_you_mean
from edgeprune.core.files import sha256_file, storing, write_bytes, write_json

# A real limit of the kernel: no file of the child may pass 4 KiB.
CHILD = """
import resource, sys
from pathlib import Path
from edgeprune.core.errors import StorageError
from edgeprune.core.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path(sys.argv[1])
write_bytes(path, b"old")
try:
    write_bytes(path, b"x" * 10000)
except StorageError as error:
    print(error)
print(path.read_bytes(), [p.name for p in path.parent.iterdir()])
"""


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "f")], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert "no space left" in first
    assert "free some disk space" in first
    assert second == "b'old' ['f']"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_storage_errors_are_told_apart_from_others(number: int) -> None:
    with pytest.raises(StorageError), storing(Path("somewhere")):
        raise OSError(number, os.strerror(number))
    with pytest.raises(ConnectionResetError), storing(Path("somewhere")):
        raise ConnectionResetError


def test_json_is_whole_and_finite(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n "a": 1\n}\n'


def test_hash(tmp_path: Path) -> None:
    write_bytes(tmp_path / "f", b"abc")
    assert sha256_file(tmp_path / "f").startswith("ba7816bf")


def test_errors_are_one_line_with_what_to_type() -> None:
    assert str(UsageError("two\nlines", "do  this")) == "two lines; do this"
    assert did_you_mean("minst", ["mnist", "digits"]) == "did you mean 'mnist'?"
    assert did_you_mean("zzz", ["b", "a"]) == "choose one of: a, b"
