"""A probe that misbehaves, for the host's side. EDGEPRUNE_FAKE_PROBE says how, EDGEPRUNE_FAKE_FLAG a file: once only.

With a flag file it behaves badly in its first process at the op EDGEPRUNE_FAKE_OP, and like the real probe afterwards.
"""

import os
import runpy
import sys
import time


def misbehave(how: str) -> None:
    """Answer a request in a way that no probe should."""
    out = sys.stdout.buffer
    if how == "hang":
        time.sleep(600)
    elif how == "die":
        sys.stderr.write("out of memory\n")
        sys.stderr.flush()
        os._exit(7)
    elif how == "abort":
        os.abort()
    elif how == "garbage":
        out.write(b"\xff\xfe\x00 not json\n")
    elif how == "flood":
        for _ in range(100):
            out.write(b"x" * 1_000_000)
    elif how == "nested":
        out.write(b"[" * 100_000 + b"]" * 100_000 + b"\n")
    elif how == "array":
        out.write(b"[1, 2]\n")
    elif how == "two":
        out.write(b'{"ok": true, "n": 1}\n{"ok": true, "n": 2}\n')
    elif how == "other":
        out.write(b'{"ok": true, "n": 99}\n')
    elif how == "stderr":
        while True:
            sys.stderr.write("warning " * 1000)
    elif how == "eof":
        os.close(1)
        time.sleep(600)
    out.flush()


def main() -> None:
    """Misbehave always, or once and then be the real probe."""
    how = sys.argv[1] if len(sys.argv) > 1 else os.environ["EDGEPRUNE_FAKE_PROBE"]
    flag = os.environ.get("EDGEPRUNE_FAKE_FLAG")
    if not flag:
        sys.stdin.readline()
        misbehave(how)
        time.sleep(600)
    probe = runpy.run_path(os.environ["EDGEPRUNE_REAL_PROBE"])
    if not os.path.exists(flag):
        serve = probe["main"].__globals__["_serve"]

        def fail_at(state, request):  # type: ignore[no-untyped-def]
            if request.get("op") == os.environ["EDGEPRUNE_FAKE_OP"]:
                open(flag, "w").close()
                misbehave(how)
            return serve(state, request)

        probe["main"].__globals__["_serve"] = fail_at
    probe["main"]()


if __name__ == "__main__":
    main()
