"""The bench's pictures: which there are, that something is on them, and what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_bench import change
from matplotlib.image import imread
from safetensors.numpy import save_file

from edgeprune.core.errors import StorageError
from edgeprune.papers import figures as bench_figures
from edgeprune.papers.figures import best_so_far, draw_figures, moving_average
from edgeprune.papers.records import ORDER, load_bench
from edgeprune.papers.weights import draw_weights

ALL = ["losses", "beta", "rewards", "density", "accuracy", "weights-acnn", "weights-edgeprune", "evaluations"]


def test_every_figure_is_drawn_wide_and_not_blank(bench_folder: Path) -> None:
    written = draw_figures(load_bench(bench_folder), bench_folder / "new" / "figures")
    assert [path.stem for path in written] == ALL
    for path in written:
        pixels = imread(path)[..., :3]
        assert pixels.shape[1] >= 1200
        inked = (pixels < 0.9).any(axis=-1)
        assert 0.01 < inked.mean() < 0.9, path.name
        # In every quarter of its width.
        assert all(part.any() for part in np.array_split(inked, 4, axis=1)), path.name


def test_a_figure_without_data_is_not_drawn(bench_folder: Path) -> None:
    for name in ("beta.json", "evals.json", "weights/acnn-0.safetensors", "weights/edgeprune-0.safetensors"):
        (bench_folder / name).unlink()
    for path in bench_folder.glob("cells/*.json"):
        change(path, rewards=[], losses=[])
    written = draw_figures(load_bench(bench_folder), bench_folder / "figures")
    assert [path.stem for path in written] == ["density", "accuracy"]
    assert sorted((bench_folder / "figures").iterdir()) == sorted(written)


def test_a_bench_that_has_just_begun_has_no_figures(bench_folder: Path) -> None:
    for path in [*bench_folder.glob("cells/*.json"), *bench_folder.glob("[bes][eva]*.json")]:
        if path.name != "bench.json":
            path.unlink()
    (bench_folder / "sparsity.json").unlink()
    assert draw_figures(load_bench(bench_folder), bench_folder / "figures") == []


def test_one_seed_of_one_method_can_be_drawn(bench_folder: Path) -> None:
    for path in bench_folder.glob("cells/*.json"):
        if path.name != "acnn-0.json":
            path.unlink()
    bench = load_bench(bench_folder)
    for draw in (bench_figures._losses, bench_figures._rewards, bench_figures._density, bench_figures._accuracy):
        figure = draw(bench)
        assert figure is not None
        figure.draw_without_rendering()


def test_density_shows_neurons_and_macs_left_and_log_time(bench_folder: Path) -> None:
    figure = bench_figures._density(load_bench(bench_folder))
    assert figure is not None
    density, time = figure.axes
    names = [label.get_text() for label in density.get_yticklabels()]
    assert names == [*ORDER[1:-1], "edgeprune@5"]
    bars = {(round(bar.get_y() + 0.18), bar.get_alpha()): bar.get_width() for bar in density.patches}
    place = names.index("acnn")
    assert bars[place, 1.0] == pytest.approx(100 / 3.46)
    assert bars[place, 0.5] == pytest.approx(100 * (219 * 81 + 81 * 43 + 430) / 266_200)
    assert time.get_xscale() == "log"


def test_weight_maps_share_a_scale_and_show_what_went(bench_folder: Path) -> None:
    figure = draw_weights(load_bench(bench_folder), "acnn")
    assert figure is not None
    maps = [axes.get_images()[0] for axes in figure.axes if axes.get_images()]
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_images()]
    assert titles[:2] == [
        "fc1.weight before: 300 of 300 neurons, 784 of 784 inputs",
        "fc1.weight after: 81 of 300 neurons, 219 of 784 inputs",
    ]
    assert len(maps) == 6
    for before, after in zip(maps[::2], maps[1::2], strict=True):
        assert before.get_clim() == after.get_clim()
        assert before.get_clim()[0] == 0
    gone = np.ma.getmaskarray(maps[1].get_array())
    assert gone.shape == (300, 784)
    assert (~gone.all(axis=0)).sum() == 219
    assert (~gone.all(axis=1)).sum() == 81


def test_damaged_weights_are_named(bench_folder: Path) -> None:
    (bench_folder / "weights" / "acnn-0.safetensors").write_bytes(b"no weights")
    with pytest.raises(StorageError, match=r"acnn-0\.safetensors"):
        draw_weights(load_bench(bench_folder), "acnn")


def test_weights_of_another_network_are_named(bench_folder: Path) -> None:
    save_file({"fc1.weight": np.ones((2, 3), "f4")}, bench_folder / "weights" / "acnn-0.safetensors")
    with pytest.raises(StorageError, match=r"has no 'fc1\."):
        draw_weights(load_bench(bench_folder), "acnn")


def test_a_folder_that_cannot_be_made_is_named(bench_folder: Path) -> None:
    (bench_folder / "figures").write_text("in the way")
    with pytest.raises(StorageError, match="figures"):
        draw_figures(load_bench(bench_folder), bench_folder / "figures")


def test_a_method_keeps_its_colour_and_a_variant_has_a_lighter_one() -> None:
    colours = [bench_figures._look(method).colour for method in ORDER]
    assert len(set(colours)) == len(ORDER)
    assert bench_figures._look("edgeprune@5").colour == "#737373"
    assert bench_figures._look("edgeprune@5") != bench_figures._look("edgeprune")


def test_moving_average_is_the_mean_of_neighbours() -> None:
    # Windows of 5; at the ends 3 and 4.
    assert moving_average(np.array([0.0, 0, 0, 10, 0, 0, 0])) == pytest.approx([0, 2.5, 2, 2, 2, 2.5, 0])
    assert moving_average(np.full(300, 7.0)) == pytest.approx(np.full(300, 7.0))


def test_a_search_that_ended_early_keeps_its_best() -> None:
    assert best_so_far([[1, 2], [1, 1, 3, 4, 5]], 4).tolist() == [[1, 2, 2, 2], [1, 1, 3, 4]]
