from __future__ import annotations

import sys

import pytest

from edgeprune.core.errors import UsageError
from edgeprune.core.userfile import call_user, is_user_function, load_function


@pytest.fixture
def user(tmp_path):
    def write(text: str, function: str = "make") -> str:
        (tmp_path / "own.py").write_text(text)
        return f"{tmp_path}/own.py:{function}"

    return write


def test_runs_the_function_with_its_folder_on_the_path(tmp_path, user):
    (tmp_path / "a_helper.py").write_text("VALUE = 7\n")
    (tmp_path / "late_helper.py").write_text("VALUE = 8\n")
    spec = user("import a_helper\ndef make():\n    import late_helper\n    return a_helper.VALUE, late_helper.VALUE\n")
    before = list(sys.path)
    assert call_user(load_function(spec, "model"), spec) == (7, 8)
    assert sys.path == before


def test_a_changed_file_is_read_again_and_leaves_nothing_behind(tmp_path, user):
    # Same size, same second: what a cached .pyc would take for the same file.
    assert [call_user(load_function(user(f"def make(): return {n}"), "model"), "it") for n in (1, 2)] == [1, 2]
    assert not (tmp_path / "__pycache__").exists()


def test_dataclasses_in_the_users_file(user):
    text = (
        "import dataclasses\n@dataclasses.dataclass(slots=True)\nclass A:\n    n: 'int' = 3\ndef make(): return A()\n"
    )
    assert call_user(load_function(user(text), "model"), "it").n == 3


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("def make(:\n", "model file own.py fails at own.py line 1: SyntaxError: "),
        ("x = 1\nimport no_such_module_at_all\n", "own.py line 2: ModuleNotFoundError: No module named"),
        ("def f():\n    raise ValueError('one\\ntwo')\n\nf()\n", "own.py line 2: ValueError: one"),
        ("import sys\nsys.exit(3)\n", "own.py line 2: SystemExit: 3"),
        ("raise KeyError\n", "own.py line 1: KeyError; correct"),
        ("a = '\0'\n", "own.py fails"),
        ("def mak(): pass\n", "has no function 'make'; did you mean 'mak'?"),
        ("from math import sin\n", "has no function 'make'; define it: def make(): ..."),
        ("make = 3\n", "'make' in model file"),
    ],
)
def test_files_that_fail(user, fails, text, phrase):
    fails(UsageError, phrase, load_function, user(text), "model")


def test_syntax_error_in_bytes(tmp_path, fails):
    (tmp_path / "own.py").write_bytes(b"\xff\xfe\x00")
    fails(UsageError, "model file own.py fails", load_function, f"{tmp_path}/own.py:make", "model")


@pytest.mark.parametrize(
    ("spec", "phrase"),
    [
        ("nowhere/own.py:make", "data file nowhere/own.py does not exist"),
        ("own.py", "data 'own.py' names no function; write FILE.py:FUNCTION, as in own.py:make_data"),
        ("own.py:", "as in own.py:make_data"),
        ("own.txt:make", "data 'own.txt:make' names no function"),
    ],
)
def test_what_names_no_function(fails, spec, phrase):
    fails(UsageError, phrase, load_function, spec, "data")


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("def make():\n    return 1 / 0\n", "it fails at own.py line 2: ZeroDivisionError: division by zero"),
        ("import json\ndef make():\n    x = 1\n    json.loads('{')\n", "it fails at own.py line 4: JSONDecodeError"),
        ("\n\ndef make(width):\n    pass\n", "it fails at own.py line 3: TypeError: make() missing 1 required"),
        ("class make:\n    def __init__(self):\n        raise SystemExit\n", "it fails at own.py line 3: SystemExit"),
    ],
)
def test_functions_that_fail(user, fails, text, phrase):
    fails(UsageError, phrase, call_user, load_function(user(text), "model"), "it")


def test_what_is_a_user_function():
    assert is_user_function("a/b.py:make")
    assert is_user_function("a/b.py")
    assert not is_user_function("data.npz")
