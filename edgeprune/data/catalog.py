"""Which data sets there are, and the one way to load any of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import platformdirs

from edgeprune.core.errors import DataError, did_you_mean
from edgeprune.core.inputs import plain_shape
from edgeprune.core.progress import Progress
from edgeprune.core.userfile import is_user_function
from edgeprune.data.arrays import Raw, call_function, read_npz
from edgeprune.data.cifar import load_cifar10
from edgeprune.data.dataset import Dataset
from edgeprune.data.digits import load_digits
from edgeprune.data.idx import FASHION_MNIST, MNIST, load_idx
from edgeprune.data.images import load_images
from edgeprune.data.split import make_dataset
from edgeprune.tasks.names import OwnTargets, TaskName

_OWN = "(or an image folder, a .zip of one, an .npz file, or FILE.py:FUNCTION)"


@dataclass(frozen=True, slots=True)
class Known:
    """A data set with a name: what it is, and how to load it from the folder that holds data sets."""

    about: str
    load: Callable[[Path, Progress], Raw]
    #: Whether a mirror image is still of its class.
    mirrors: bool


DATASETS: dict[str, Known] = {
    "mnist": Known("handwritten digits, 60,000 + 10,000 grey images of 28x28", partial(load_idx, MNIST), False),
    "fashion-mnist": Known("clothes, 60,000 + 10,000 grey images of 28x28", partial(load_idx, FASHION_MNIST), True),
    "cifar10": Known("photographs, 50,000 + 10,000 colour images of 32x32", load_cifar10, True),
    "digits": Known("handwritten digits, 1,797 grey images of 8x8, no download", lambda *_: load_digits(), False),
}


def data_folder(data_dir: Path | None) -> Path:
    """Where named data sets lie: `data_dir`, else EDGEPRUNE_DATA, else this user's cache."""
    if data_dir is not None:
        return data_dir
    if named := os.environ.get("EDGEPRUNE_DATA"):
        return Path(named).expanduser()
    return Path(platformdirs.user_cache_dir("edgeprune")) / "data"


def load_data(
    source: str,
    data_dir: Path | None,
    *,
    seed: int,
    validation_share: float = 0.1,
    progress: Progress,
    task: TaskName | OwnTargets | None = None,
) -> Dataset:
    """The data set that `source` names, split by `seed`; a name goes before a file of the same name.

    | source | what |
    |---|---|
    | a name in DATASETS | looked for in `data_dir`, EDGEPRUNE_DATA or the cache, else downloaded |
    | FOLDER, FILE.zip | train/CLASS/IMAGE and test/CLASS/IMAGE |
    | FILE.npz | x_train, y_train, x_test, y_test, and `preprocessing` if its owner says so |
    | FILE.py:FUNCTION | a function that returns these, as a dict or a tuple, or streams `train` and `test` |

    Targets of one's own are what `task` wants, or what they look like (see `read_targets`).

    Raises DataError for data that is missing, damaged or not usable, UsageError for a user's function that fails.
    """
    name, raw = _load(source, data_dir, progress, task)
    dataset = make_dataset(name, raw, seed=seed, validation_share=validation_share)
    # Of data of one's own: colour images are taken for photographs, grey ones may be writing.
    mirrors = DATASETS[source].mirrors if source in DATASETS else plain_shape(dataset.input_shape)[:1] == (3,)
    # Pictures are what they are; arrays of one's own may be anything.
    own = is_user_function(source) or source.lower().endswith(".npz")
    return replace(dataset, mirrors=mirrors, laid_out=dataset.laid_out if own and source not in DATASETS else "given")


def _load(
    source: str, data_dir: Path | None, progress: Progress, task: TaskName | OwnTargets | None
) -> tuple[str, Raw]:
    if source in DATASETS:
        return source, DATASETS[source].load(data_folder(data_dir), progress)
    if is_user_function(source):
        file, _, function = source.rpartition(":")
        return f"{Path(file).stem}.{function}", call_function(source, progress, task)
    path = Path(source).expanduser()
    if not source or not path.exists():
        if re.search(r"[/\\.~]", source):
            raise DataError(f"data set {source} does not exist", "check the path given to --data")
        raise DataError(f"unknown data set '{source}'", f"{did_you_mean(source, DATASETS)} {_OWN}")
    name = path.resolve().stem if path.is_file() else path.resolve().name
    if path.is_dir() or path.suffix.lower() == ".zip":
        return name, load_images(path, progress)
    if path.suffix.lower() == ".npz":
        return name, read_npz(path, task)
    raise DataError(f"data file {path} is neither .zip nor .npz", "give " + _OWN.strip("()").removeprefix("or "))
