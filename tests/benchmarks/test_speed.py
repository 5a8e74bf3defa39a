"""The benchmarks: scenes, fair turns, extrapolation, the table and its file. No test depends on speed."""

import json
import subprocess
from itertools import count

import numpy as np
import pytest
from benchmarks.report import Figure, Quality, Row, Target, as_json, as_markdown
from benchmarks.timing import Timing, interleave

from benchmarks import bench, check_figures, fresh, rows, scenes, speed, timing

HEADER = {
    "cpu": "A processor",
    "cores": 2,
    "system": "Linux",
    "versions": {"torch": "2.0"},
    "threads": 2,
    "runtime": "torch",
    "precision": {"best": "bfloat16", "float32": "float32"},
    "repeat": 3,
    "load": "0.1 before, 1.0 after",
}


@pytest.mark.parametrize(
    ("make", "shape", "dtype", "objects", "sizes"),
    [
        pytest.param(scenes.cells_1024, 1024, np.uint8, (100, 130), (40, 60), id="a hundred cells"),
        pytest.param(scenes.crowd_256, 256, np.uint8, (30, 30), (40, 60), id="thirty in a small image"),
        pytest.param(scenes.field_2048, 2048, np.uint16, (1950, 2050), (14, 16), id="two thousand nuclei"),
        pytest.param(lambda: scenes.large(2048), 2048, np.uint8, (400, 520), (40, 60), id="four tiles"),
    ],
)
def test_a_scene_holds_what_the_table_says(make, shape, dtype, objects, sizes):
    scene = make()
    assert scene.image.shape == scene.labels.shape == (shape, shape)
    assert scene.image.dtype == dtype
    assert objects[0] <= scene.count <= objects[1]
    assert sizes[0] <= scene.object_size <= sizes[1]
    inside, outside = scene.image[scene.labels > 0], scene.image[scene.labels == 0]
    assert np.median(inside) > 1.5 * np.median(outside)


def test_contestants_take_turns_and_the_first_run_does_not_count(monkeypatch):
    clock = count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    order = []
    measured = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b") or 7}, 3)
    assert order[-6:] == ["a", "b"] * 3
    assert order[:-6] == ["a", "a", "b", "b"]
    assert measured["a"].timing.wall == 1.0
    assert measured["a"].timing.runs == 3
    assert measured["b"].result == 7


def test_the_median_withstands_one_disturbance(monkeypatch):
    times = iter([0, 1, 0, 1, 0, 1, 0, 9, 0, 1])  # two warm-ups, then three samples
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(times)))
    assert interleave({"a": lambda: None}, 3)["a"].timing.wall == 1.0


def test_a_run_of_ten_seconds_is_not_thrown_away_as_a_warm_up(monkeypatch):
    clock = count(step=20)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    runs = []
    assert interleave({"a": lambda: runs.append(1)}, 2)["a"].timing.wall == 20.0
    assert len(runs) == 2


def test_the_plain_baseline_is_its_encoder_and_all_its_batches():
    run = bench.Bench(repeat=1)
    run.generator = bench.PlainGenerator(None)
    run.plain = {"encoder": Timing(1.0, 2.0), "batch (256, 256)": Timing(6.0, 10.0)}
    whole = run.plain_everything(scenes.crowd_256())
    assert (whole.wall, whole.cpu) == (97.0, 162.0)


@pytest.fixture
def row() -> Row:
    return Row(
        "everything",
        "everything",
        {"baseline": Figure(100.0, 190.0), "best": Figure(0.5, 0.9), "float32": Figure(1.5, 2.8)},
        quality={"best": Quality(0.66, 0.44, 120), "float32": Quality(0.67, 0.44, 121)},
        target=Target(150, 0.6),
        note="A note.",
    )


def test_the_table_shows_times_ratios_quality_and_target(row):
    text = as_markdown([row], HEADER)
    (line,) = [line for line in text.splitlines() if line.startswith("| everything")]
    assert line == (
        "| everything [1] | 100 s (190 s) | 0.5 s (0.9 s) | 1.5 s (2.8 s) | 200x | 66.7x | 0.660 / 0.670 "
        "| 0.440 |  | >= 150x, <= 0.6 s: met |"
    )
    assert "A processor, 2 cores, 2 threads" in text
    assert "\n1. A note." in text


@pytest.mark.parametrize(
    "target",
    [pytest.param(Target(250), id="too small a ratio"), pytest.param(Target(most=0.4), id="too slow")],
)
def test_a_missed_target_is_told(row, target):
    assert target.words(row).endswith(": not met")


def test_documents_can_quote_every_figure_of_the_file(row):
    results = {"speed": json.loads(json.dumps(as_json([row], HEADER)))}
    for name, text in {
        "speed.rows.everything.best.ms": "500",
        "speed.rows.everything.best.ratio": "200",
        "speed.rows.everything.float32.cpu_seconds": "2.8",
        "speed.rows.everything.float32.ap50": "0.67",
        "speed.rows.everything.baseline.seconds": "100",
        "speed.precision.best": "bfloat16",
    }.items():
        quoted = f"<!-- figure: {name} -->{text}<!-- /figure -->"
        assert check_figures.check_document(quoted, results) == []


def test_memory_is_reported_in_mib_and_compared(row):
    memory = Row("m", "memory", {"baseline": Figure(4000.0), "best": Figure(800.0)}, "MiB", target=Target(4))
    (line,) = [line for line in as_markdown([memory], HEADER).splitlines() if line.startswith("| memory")]
    assert "| 4000 MiB | 800 MiB |  | 5x |" in line
    assert as_json([memory], HEADER)["rows"]["m"]["best"] == {"mib": 800.0, "ratio": 5.0}


def test_a_scene_is_segmented_and_judged():
    scene = scenes.crowd_256()
    segmenter = bench.load("float32", "torch")
    assert segmenter.precision == "float32"
    found = bench.judge(scene, bench.segment(segmenter, scene).labels)
    assert found.ap50 > 0.3
    nothing = bench.judge(scene, np.zeros((256, 256), np.int32))
    assert (nothing.ap50, nothing.msa, nothing.found) == (0.0, 0.0, 0)


def test_prompts_lie_in_their_objects():
    scene = scenes.crowd_256()
    points, boxes = rows.pick_prompts(scene, 5)
    labels = scene.labels[points[:, 0].astype(int), points[:, 1].astype(int)]
    assert len(set(labels) - {0}) == 5
    for label, (y0, x0, y1, x1) in zip(labels, boxes, strict=True):
        assert np.count_nonzero(scene.labels == label) == np.count_nonzero(
            scene.labels[y0:y1, x0:x1] == label
        )


def test_peak_memory_is_that_of_the_new_process_alone():
    held = np.ones((1000, 2**17))  # 1000 MiB in this process
    code = "from benchmarks.fresh import peak_memory; print(peak_memory() or 0)"
    peak = float(fresh.run_fresh(["-c", code]))
    if not peak:
        pytest.skip("this system does not tell peak memory")
    assert 2 < peak < 500 < held.nbytes / 2**20


def test_the_peak_memory_of_a_task_is_read_from_what_it_prints(monkeypatch):
    seen = []
    monkeypatch.setattr(fresh, "run_fresh", lambda a: seen.append(a) or 'noise\n{"peak_mib": 512.5}\n')
    assert fresh.memory_of("everything", "float32", "torch") == 512.5
    assert seen == [["-m", "benchmarks.fresh", "everything", "float32", "torch"]]


def test_a_process_that_fails_is_an_error():
    with pytest.raises(subprocess.CalledProcessError):
        fresh.run_fresh(["-c", "raise SystemExit(3)"])


def test_the_command_prints_a_table_and_writes_only_where_it_is_told(tmp_path, monkeypatch, capsys):
    committed = tmp_path / "committed.json"
    monkeypatch.setattr(speed, "RESULTS", committed)
    assert speed.main(["--only", "startup_import", "--repeat", "1", "--runtime", "torch"]) == 0
    printed = capsys.readouterr().out
    assert "| `import napari_lightsam` [1] |" in printed
    assert not committed.exists()
    target = tmp_path / "speed.json"
    speed.main(["--only", "startup_import", "--repeat", "1", "--runtime", "torch", "--json", str(target)])
    results = json.loads(target.read_text())
    assert set(results["rows"]) == {"startup_import"}
    assert results["rows"]["startup_import"]["best"]["seconds"] > 0
    assert len(results["weights"]) == 64
    assert target.with_suffix(".md").read_text() == capsys.readouterr().out


def test_an_unknown_row_is_refused_with_the_names_of_all(capsys):
    with pytest.raises(SystemExit):
        speed.main(["--only", "nothing"])
    assert "everything_1024" in capsys.readouterr().err
