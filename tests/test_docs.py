"""The documents: their Python runs, their commands exist, their links lead somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tifffile

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(
    r"(?P<before>[^\n]*)\n+```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
NOT_RUN = "<!-- not run here:"
"""Comment, with a reason, on the line above a Python block that the test cannot run."""


def blocks(document: Path, language: str) -> list[str]:
    """Code blocks of a document, without those marked as not run."""
    text = document.read_text(encoding="utf-8")
    return [
        found["code"]
        for found in _BLOCK.finditer(text)
        if found["language"] == language and not found["before"].startswith(NOT_RUN)
    ]


def _with(language: str) -> list[Any]:
    return [pytest.param(path, id=path.name) for path in DOCUMENTS if blocks(path, language)]


@pytest.fixture
def working_folder(tmp_path, monkeypatch) -> Path:
    """A folder with the files that the documents' examples read."""
    from napari_lightsam.samples import read_sample

    image = read_sample("nuclei_fluorescence")[120:320, 240:440]
    tifffile.imwrite(tmp_path / "cells.tif", image)
    truth = tifffile.imread(ROOT / "tests" / "data" / "samples" / "nuclei_fluorescence_labels.tif")
    for name, array in (("images", image), ("labels", truth[120:320, 240:440])):
        (tmp_path / "my_images" / name).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "my_images" / name / "a.tif", array)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", _with("python"))
def test_the_python_of_a_document_runs_from_top_to_bottom(document, working_folder):
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, code in enumerate(blocks(document, "python"), start=1):
        exec(compile(code, f"{document.name}, block {number}", "exec"), names)


def test_a_document_shows_how_an_image_becomes_labels(working_folder):
    """The first example of the README is the main one, and its result holds the nuclei."""
    names: dict[str, Any] = {}
    exec(blocks(ROOT / "README.md", "python")[0], names)
    assert names["labels"].shape == names["image"].shape
    assert names["labels"].max() > 5


def commands() -> list[Any]:
    """All `lightsam ...` commands of the documents, in blocks and within sentences."""
    found = []
    for document in DOCUMENTS:
        lines = [
            line
            for kind in ("bash", "powershell")
            for code in blocks(document, kind)
            for line in code.splitlines()
        ]
        lines += re.findall(r"`(lightsam [^`]+)`", document.read_text(encoding="utf-8"))
        for line in lines:
            for part in (part.strip() for part in re.split(r"&&|;|\|", line)):
                words = shlex.split(part, comments=True)
                if words[:1] == ["lightsam"]:
                    found.append(pytest.param(words[1:], id=f"{document.name}: {part[:60]}"))
    return found


@pytest.mark.parametrize("words", commands())
def test_a_command_in_a_document_exists_and_takes_these_arguments(words):
    import click
    import typer

    from napari_lightsam.cli import app

    command: Any = typer.main.get_command(app)
    context = None
    try:
        while True:
            context = command.make_context(command.name or "lightsam", list(words), parent=context)
            if not hasattr(command, "commands"):
                return
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    except click.exceptions.Exit as end:  # --help and --version end here
        assert end.exit_code == 0
    except click.UsageError as error:
        pytest.fail(f"lightsam {' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("document", [pytest.param(path, id=path.name) for path in DOCUMENTS])
def test_every_relative_link_of_a_document_leads_to_a_file(document):
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    missing = [
        link
        for link in links
        if "://" not in link
        and not link.startswith("#")
        and not (document.parent / link.split("#")[0]).exists()
    ]
    assert missing == []


def test_every_page_is_listed_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
