"""Figures in Markdown are compared with the results they quote."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "check_figures.py"
_spec = importlib.util.spec_from_file_location("check_figures", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
check_figures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_figures)

RESULTS = {
    "evaluation": {"sets": {"dsb2018": {"ap50": 0.6649, "objects": 12345, "none": None}}, "model": "lightsam"}
}


def quote(name: str, text: str) -> str:
    return f"AP <!-- figure: {name} -->{text}<!-- /figure --> here"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("evaluation.sets.dsb2018.ap50", "0.66", id="two decimals"),
        pytest.param("evaluation.sets.dsb2018.ap50", "0.665", id="three decimals"),
        pytest.param("evaluation.sets.dsb2018.objects", "12345", id="a count"),
        pytest.param("evaluation.sets.dsb2018.objects", "12,345", id="a count with a comma"),
        pytest.param("evaluation.model", "lightsam", id="a name"),
    ],
)
def test_a_figure_that_equals_its_result_passes(name, text):
    assert check_figures.check_document(quote(name, text), RESULTS) == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param(quote("evaluation.sets.dsb2018.ap50", "0.67"), "says '0.67'", id="another number"),
        pytest.param(quote("evaluation.sets.dsb2018.ap50", ""), "says ''", id="no number"),
        pytest.param(quote("evaluation.sets.dsb2018.ap75", "0.5"), "'ap75' is missing", id="an unknown key"),
        pytest.param(quote("speed.click", "1"), "'speed' is missing", id="an unknown file"),
        pytest.param(quote("evaluation.sets", "0.5"), "not one value", id="a table"),
        pytest.param(quote("evaluation.sets.dsb2018.none", "0.5"), "not one value", id="nothing measured"),
        pytest.param("<!-- figure: evaluation.model -->lightsam", "not closed", id="an unclosed comment"),
        pytest.param("<!--figure: evaluation.model-->a<!-- /figure -->", "another way", id="other spacing"),
    ],
)
def test_a_figure_that_does_not_is_named(document, message):
    (problem,) = check_figures.check_document(document, RESULTS)
    assert message in problem


def repository(tmp_path: Path, text: str) -> Path:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "evaluation.json").write_text(json.dumps(RESULTS["evaluation"]))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "models.md").write_text(text)
    return tmp_path


def test_the_script_fails_on_a_wrong_figure_and_passes_after_writing(tmp_path, capsys):
    root = repository(tmp_path, quote("evaluation.sets.dsb2018.ap50", "0.70"))
    assert check_figures.main(["--root", str(root)]) == 1
    assert "docs/models.md: evaluation.sets.dsb2018.ap50" in capsys.readouterr().err.replace("\\", "/")
    assert check_figures.main(["--root", str(root), "--write"]) == 0
    assert (root / "docs" / "models.md").read_text() == quote("evaluation.sets.dsb2018.ap50", "0.66")
    assert check_figures.main(["--root", str(root)]) == 0


def test_code_blocks_are_examples_and_left_alone():
    text = f"```html\n{quote('nowhere.at.all', '0.1')}\n```\n{quote('evaluation.model', 'old')}\n"
    (problem,) = check_figures.check_document(text, RESULTS)
    assert problem.startswith("evaluation.model")
    assert check_figures.update_document(text, RESULTS) == text.replace("old", "lightsam")


def test_every_figure_quoted_in_this_repository_is_right(capsys):
    assert check_figures.main([]) == 0, capsys.readouterr().err
