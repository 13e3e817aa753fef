"""Commands that judge classes alone say so of other data, before anything is done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.cli.main import main


@pytest.mark.parametrize("command", ["bench paper", "shapley"])
def test_numbers_are_refused_in_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    np.savez("own.npz", x_train=x[:40], y_train=x[:40, 0], x_test=x[40:], y_test=x[40:, 0])
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--data", "own.npz", "--quiet"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == (
        f"error: edgeprune {command} judges classes, and own has 1 number to predict; edgeprune run takes such data, "
        "and validates the files it makes"
    )
