"""Three ways of teaching a student, in one table."""

from benchmarks.distillation import TITLES, as_markdown, parse, settings


def test_the_table_has_the_teacher_and_three_students_of_equal_size():
    row = {"click": 0.5, "box": 0.6, "corrected": 0.7, "calibration": 0.1, "recall": 0.4, "proposals": 1.2}
    student = row | {"mb": 13.5, "encoder_ms": 12.0, "ratio": 2.5, "minutes": 4.25}
    rows = dict.fromkeys(TITLES, student) | {"teacher": row | {"mb": 20.2, "encoder_ms": 30.0, "ratio": 1.0}}
    options = parse(["data", "--tune", "10"])
    about = {"cpu": "A CPU", "cores": 2, "system": "Linux", "versions": {"torch": "2"}}
    lines = as_markdown(rows, about, vars(options) | {"weights": "4cc80d0e528df7071a"}).splitlines()
    body = [line for line in lines if line.startswith("|")][2:]
    assert len(body) == 4
    assert body[0] == "| teacher | 0.500 | 0.600 | 0.700 | 0.100 | 0.400 | 1.200 | 20.2 MB | 30 ms | 1x |  |"
    assert body[2].endswith("| 13.5 MB | 12 ms | 2.5x | 4.2 min |")
    assert "decoder tuned for 10 steps" in lines[0]
    assert "4cc80d0e528d..." in lines[0]  # which weights taught


def test_all_ways_are_trained_with_the_same_settings():
    config = settings(parse(["data", "--steps", "40", "--prompts", "8"]))
    assert (config.steps, config.prompts, config.warmup, config.freeze_norm) == (40, 8, 4, False)
