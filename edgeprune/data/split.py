"""From checked arrays to a data set: a seeded, stratified split, the preprocessing, the fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError, UsageError
from edgeprune.core.inputs import INPUT, fields, plain_shape, records
from edgeprune.core.mapped import built, changed, parts
from edgeprune.data.arrays import Raw
from edgeprune.data.dataset import Dataset, EachInput, Layout, Preprocessing, Scaled, Split

#: What colour photographs are standardised with everywhere (ImageNet), in units of [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: The test set is the same for every seed of the user.
TEST_SEED = 20180

#: Bytes that are counted at once.
_COUNTED = 1 << 20


def stratified(y: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shuffled indices (rest, taken): `share` of every class is taken, at least one example and never the last.

    Example: 100 examples of class 0 and 1 of class 1 with share 0.1 -> 10 of class 0 taken, 91 examples left.
    """
    rng = np.random.default_rng(seed)
    taken = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        taken[rng.permutation(members)[:count]] = True
    return rng.permutation(np.flatnonzero(~taken)), rng.permutation(np.flatnonzero(taken))


def make_dataset(name: str, raw: Raw, *, seed: int, validation_share: float) -> Dataset:
    """Split train into train and validation by `seed`; the test set is shuffled alike for every seed.

    Shuffled, since folders come sorted by class and the first so many examples must stand for all of them.
    Raises UsageError for a share outside (0, 1), DataError when nothing is left for validation.
    """
    if not 0 < validation_share < 1:
        raise UsageError(f"validation share {validation_share} is not between 0 and 1", "give for example 0.1")
    # Numbers, labels and maps have no classes that each must be in both.
    strata = raw.y_train if raw.targets == "classes" else np.zeros(len(raw.y_train), np.int64)
    rest, taken = stratified(strata, validation_share, seed)
    if len(taken) == 0:
        raise DataError(
            f"{name}: no class has two training examples, so none can validate", "give more training examples"
        )
    train, validation = (_take(raw.x_train, raw.y_train, index) for index in (rest, taken))
    odd = np.zeros(len(raw.y_test), bool) if raw.anomalies is None else raw.anomalies
    usual = np.flatnonzero(~odd)
    test = _take(raw.x_test, raw.y_test, usual[np.random.default_rng(TEST_SEED).permutation(len(usual))])
    anomalous = _take(raw.x_test, raw.y_test, np.flatnonzero(odd)) if odd.any() else None
    preprocessing = raw.preprocessing or _chosen(train.x, raw.scale)
    fingerprint = _fingerprint((train, validation, test), raw.classes, preprocessing)
    unit = _unit(train.x) if raw.scale is None else raw.scale
    carried = raw.preprocessing is not None
    return Dataset(
        name, train, validation, test, raw.classes, preprocessing, fingerprint, unit=unit, carried=carried,
        targets=raw.targets, laid_out=raw.laid_out, whole=raw.whole, target_layout=raw.target_layout,
        anomalous=anomalous,
    )  # fmt: skip


def first_examples(dataset: Dataset, count: int) -> Dataset:
    """The first `count` training examples, which the split has shuffled, and a third as many of validation.

    Preprocessing and the test set stay; the fingerprint is another. Where there are no more it is `dataset` itself.
    """
    if count >= len(dataset.train):
        return dataset
    train, validation = (
        Split(split.x[:some], split.y[:some])
        for split, some in ((dataset.train, count), (dataset.validation, -(-count // 3)))
    )
    fingerprint = _fingerprint((train, validation, dataset.test), dataset.classes, dataset.preprocessing)
    return replace(dataset, train=train, validation=validation, fingerprint=fingerprint)


def in_own_order(test: Split) -> Split:
    """A test set as `make_dataset` got it, before it was shuffled."""
    order = np.argsort(np.random.default_rng(TEST_SEED).permutation(len(test)))
    return Split(test.x[order], test.y[order])


def as_given(dataset: Dataset) -> Dataset | None:
    """The same examples as they were given, where they were brought into the layout of images; else None.

    None as well where the data's own scaling is of the channels that images have.
    """
    if dataset.laid_out == "given":
        return None
    if dataset.laid_out == "axis":
        return _otherwise(dataset, lambda x: x[:, 0], "given")
    return _otherwise(dataset, lambda x: np.moveaxis(x, 1, -1), "given")


def channels_first(dataset: Dataset) -> Dataset | None:
    """The same examples with their last axis as the first: pictures of any number of bands. Else None."""
    if dataset.laid_out != "given" or len(plain_shape(dataset.input_shape)) != 3:
        return None
    return _otherwise(dataset, lambda x: np.moveaxis(x, -1, 1), "transposed")


def as_integers(dataset: Dataset) -> Dataset | None:
    """The same examples with the inputs that were given as integers taken as such: tokens, say. Else None."""
    if not dataset.whole or isinstance(dataset.preprocessing, EachInput) != (dataset.train.x.dtype.names is not None):
        return None
    dataset = as_given(dataset) or dataset
    own = dataset.preprocessing
    preprocessing = EachInput(
        {
            name: None if name in dataset.whole else own.of(name) if isinstance(own, EachInput) else own
            for name in fields(dataset.train.x)
        }
    )

    def as_whole(split: Split) -> Split:
        arrays = {
            name: changed(each, lambda part: part.astype(np.int64)) if name in dataset.whole else each
            for name, each in fields(split.x).items()
        }
        return Split(records(arrays) if split.x.dtype.names else arrays[INPUT], split.y)

    return _anew(dataset, as_whole, preprocessing)


def in_order(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The same examples with their several inputs in the order of `names`."""
    if dataset.train.x.dtype.names in (None, tuple(names)):
        return dataset
    assert isinstance(dataset.preprocessing, EachInput)

    return _anew(
        dataset,
        lambda split: Split(records({name: split.x[name] for name in names}), split.y),
        EachInput({name: dataset.preprocessing.of(name) for name in names}),
    )


def _anew(dataset: Dataset, change: Callable[[Split], Split], preprocessing: Scaled) -> Dataset:
    """With every split changed: under another fingerprint."""
    splits = tuple(map(change, (dataset.train, dataset.validation, dataset.test)))
    fingerprint = _fingerprint(splits, dataset.classes, preprocessing)
    train, validation, test = splits
    return replace(
        dataset, train=train, validation=validation, test=test, preprocessing=preprocessing, fingerprint=fingerprint,
        anomalous=None if dataset.anomalous is None else change(dataset.anomalous),
    )  # fmt: skip


def _otherwise(dataset: Dataset, change: Callable[[NDArray[Any]], NDArray[Any]], laid_out: Layout) -> Dataset | None:
    def otherwise(split: Split) -> Split:
        x, y = split.x, split.y
        # Targets that are pictures have their channels where the inputs have them.
        pictures = dataset.targets == "numbers" and y.ndim == x.ndim and laid_out != dataset.laid_out != "axis"
        return Split(changed(x, contiguous), changed(y, contiguous) if pictures else y)

    def contiguous(x: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(change(x))

    train, validation, test = map(otherwise, (dataset.train, dataset.validation, dataset.test))
    preprocessing = dataset.one_scaled
    if dataset.carried:
        alike = len({*zip(preprocessing.mean, preprocessing.std, strict=True)}) == 1
        if not alike:
            return None
        count = train.x.shape[1]
        preprocessing = Preprocessing(
            preprocessing.scale, preprocessing.mean[:1] * count, preprocessing.std[:1] * count
        )
    else:
        preprocessing = choose_preprocessing(train.x, None if dataset.unit == _unit(train.x) else dataset.unit)
    fingerprint = _fingerprint((train, validation, test), dataset.classes, preprocessing)
    return replace(
        dataset, train=train, validation=validation, test=test, preprocessing=preprocessing, fingerprint=fingerprint,
        laid_out=laid_out, anomalous=None if dataset.anomalous is None else otherwise(dataset.anomalous),
    )  # fmt: skip


def preprocessed(dataset: Dataset, preprocessing: Scaled) -> Dataset:
    """The same examples, preprocessed otherwise: under another fingerprint."""
    return dataset if preprocessing == dataset.preprocessing else _anew(dataset, lambda split: split, preprocessing)


def _chosen(x: NDArray[Any], scale: float | None) -> Scaled:
    if x.dtype.names is None:
        return choose_preprocessing(x, scale)
    return EachInput({name: choose_preprocessing(each) for name, each in fields(x).items()})


def choose_preprocessing(x: NDArray[Any], scale: float | None = None) -> Preprocessing:
    """ImageNet's constants for 8-bit colour images, mean and standard deviation of `x` per channel or feature else.

    `scale` None means 1/255 for uint8 and 1 for floats. A constant channel or feature gets std 1: it becomes 0.
    """
    if scale is None:
        scale = _unit(x)
        if x.dtype == np.uint8 and x.ndim == 4 and x.shape[1] == 3:
            return Preprocessing(scale, IMAGENET_MEAN, IMAGENET_STD)
    mean, std = moments(x)
    # float64 arithmetic leaves a trace of rounding where a feature is constant.
    varies = std > np.maximum(np.abs(mean) * 1e-6, 1e-30)
    std = np.where(varies, std * scale, 1.0)
    return Preprocessing(scale, tuple((mean * scale).tolist()), tuple(std.tolist()))


def _unit(x: NDArray[Any]) -> float:
    return 1 / 255 if x.dtype == np.uint8 else 1.0


def _take(x: NDArray[Any], y: NDArray[Any], index: NDArray[np.int64]) -> Split:
    return Split(_rows(x, index), _rows(y, index))


def _rows(x: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
    # Indexing keeps the memory order of a user's transposed view.
    return built(len(index), lambda part: np.ascontiguousarray(x[index[part]]), x)


def moments(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (C,) of channels or (D,) of features.

    Channel by channel, so that no float64 copy of all data is made.
    """
    if x.dtype == np.uint8 and x.ndim > 2:
        values, counts = np.arange(256), np.zeros((x.shape[1], 256), np.int64)
        # A few at a time: to be counted, bytes become integers of eight.
        step = max(1, _COUNTED // x[:1, 0].size)
        for start, channel in product(range(0, len(x), step), range(x.shape[1])):
            counts[channel] += np.bincount(x[start : start + step, channel].ravel(), minlength=256)
        total = counts.sum(1)
        mean = counts @ values / total
        return mean, np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    found = [(part.stop - part.start, *_moments_of(x[part])) for part in parts(x)]
    if len(found) == 1:
        return found[0][1:]
    counts, means, stds = (np.array(each) for each in zip(*found, strict=True))
    mean = np.average(means, 0, counts)
    return mean, np.sqrt(np.average(stds**2 + (means - mean) ** 2, 0, counts))


def _moments_of(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if x.ndim == 2:
        return x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    found = [(x[:, c].mean(dtype=np.float64), x[:, c].std(dtype=np.float64)) for c in range(x.shape[1])]
    means, stds = zip(*found, strict=True)
    return np.array(means), np.array(stds)


def _fingerprint(splits: tuple[Split, ...], classes: tuple[str, ...], preprocessing: Scaled) -> str:
    digest = hashlib.sha256(repr((classes, preprocessing)).encode())
    for split in splits:
        digest.update(repr((split.x.shape, str(split.x.dtype))).encode())
        for each in (*fields(split.x).values(), split.y):
            for part in parts(each):
                digest.update(np.ascontiguousarray(each[part]).data)
    return digest.hexdigest()
