"""The documents: their Python runs, their commands exist, their links lead somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
]
CARDS = sorted((ROOT / "src").rglob("*.md"))

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


def prose(document: Path) -> str:
    """Text of a document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """What links lead to in a document: its headings, in the spelling of GitHub."""
    titles = re.findall(r"^#+ +(.*?) *$", prose(document), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


def _with(language: str) -> list[Any]:
    return [pytest.param(path, id=path.name) for path in DOCUMENTS if blocks(path, language)]


@pytest.fixture
def working_folder(tmp_path, monkeypatch) -> Path:
    """A folder with the files that the documents' examples read."""
    from napari_lightsam.samples import read_sample

    part = np.s_[352:480, 0:128]  # small, so that every example is quick
    image = read_sample("nuclei_fluorescence")[part]
    tifffile.imwrite(tmp_path / "cells.tif", image)
    truth = tifffile.imread(ROOT / "tests" / "data" / "samples" / "nuclei_fluorescence_labels.tif")
    for name, array in (("images", image), ("labels", truth[part])):
        (tmp_path / "my_images" / name).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "my_images" / name / "a.tif", array)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", _with("python"))
def test_the_python_of_a_document_runs_from_top_to_bottom(document, working_folder, loaded_once):
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, code in enumerate(blocks(document, "python"), start=1):
        exec(compile(code, f"{document.name}, block {number}", "exec"), names)
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
        # A sentence names a command without what it needs; --help accepts that, but no unknown option.
        text = document.read_text(encoding="utf-8")
        lines += [f"{inline} --help" for inline in re.findall(r"`(lightsam [^`]+)`", text)]
        for line in lines:
            for part in (part.strip() for part in re.split(r"&&|;|\|", line)):
                words = shlex.split(part, comments=True)
                if words[:1] == ["lightsam"]:
                    found.append(pytest.param(words[1:], id=f"{document.name}: {part[:60]}"))
    return found


@pytest.mark.parametrize("words", commands())
def test_a_command_in_a_document_exists_and_takes_these_arguments(words):
    import typer

    from napari_lightsam.cli import app

    command: Any = typer.main.get_command(app)
    context = None
    try:
        while hasattr(command, "commands"):
            context = command.make_context(command.name or "lightsam", list(words), parent=context)
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(command.name, list(words), parent=context)
    except typer.Exit as end:  # --help ends here
        if end.exit_code != 0:
            raise


@pytest.mark.parametrize("document", [pytest.param(path, id=path.name) for path in [*DOCUMENTS, *CARDS]])
def test_every_relative_link_of_a_document_leads_to_a_file_and_a_heading_in_it(document):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)) if "://" not in link]
    missing = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert missing == []


def options(command: Any, name: str) -> list[tuple[str, str]]:
    """All (command, long option) pairs of the command line, below a command."""
    if hasattr(command, "commands"):
        return [pair for sub, one in command.commands.items() for pair in options(one, f"{name} {sub}")]
    named = [(name, flag) for one in command.params for flag in [*one.opts, *one.secondary_opts]]
    return [(name, flag) for name, flag in named if flag.startswith("--") and flag != "--help"]


def test_every_option_of_the_command_line_stands_in_a_document():
    import typer

    from napari_lightsam.cli import app

    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    found = options(typer.main.get_command(app), "lightsam")
    assert len(found) > 100
    assert [pair for pair in found if not re.search(rf"(?<![\w-]){pair[1]}(?![\w-])", text)] == []


def test_every_public_name_stands_in_a_document():
    import napari_lightsam

    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert [name for name in napari_lightsam.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_every_page_is_listed_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
