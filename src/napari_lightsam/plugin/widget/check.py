"""The part of the dock widget that checks the quality of a result on a few objects drawn at random."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_lightsam.plugin.objects.quality import SAMPLE, Verdict
from napari_lightsam.plugin.widget.parts import enable, rest_focus, show_if

if TYPE_CHECKING:
    from napari_lightsam.plugin.controller import Controller

_BACK = "Judge the object before this one again."
_TIPS = {
    Verdict.CORRECT: "One object, and its outline is right.",
    Verdict.WRONG: "No object, or its outline is clearly off.",
    Verdict.MERGED: "Several objects in one.",
    Verdict.SPLIT: "Only a part: the rest of the object has another label.",
}


class CheckBox(QWidget):
    """Leads through the check, and shows what came of it.

    Parameters
    ----------
    controller
        Of the widget.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._checking = controller.checking
        self.start_button = QPushButton(f"Check {SAMPLE} random objects")
        self.seed = QSpinBox()
        self.seed.setRange(0, 9999)
        self.seed.setPrefix("seed ")
        self.seed.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)
        self.seed.setToolTip("Decides which objects are drawn: the same seed draws the same ones.")
        self.seed.setAccessibleName("Seed of the random sample")
        self.question = QLabel()
        self.question.setWordWrap(True)
        self.verdicts = {
            verdict: QPushButton(f"{number} {str(verdict).capitalize()}")
            for number, verdict in enumerate(Verdict, 1)
        }
        self.back_button = QPushButton("Back")
        self.field_button = QPushButton("Count missed objects")
        self.missed = QSpinBox()
        self.false = QSpinBox()
        self.result = QLabel()
        self._build()
        self._connect()

    def _build(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 4, 0, 0)
        column.setSpacing(4)
        row = QHBoxLayout()
        self.start_button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        row.addWidget(self.start_button, 1)
        row.addWidget(self.seed)
        column.addLayout(row)
        column.addWidget(self.question)
        self._answers = QWidget()
        grid = QGridLayout(self._answers)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        for place, (verdict, button) in enumerate(self.verdicts.items()):
            button.setToolTip(f"{_TIPS[verdict]} (key {place + 1})")
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            grid.addWidget(button, place // 2, place % 2)
        self.back_button.setToolTip(_BACK)
        grid.addWidget(self.back_button, 2, 0, 1, 2)
        column.addWidget(self._answers)
        column.addWidget(self.field_button)
        self._counts = QWidget()
        counts = QGridLayout(self._counts)
        counts.setContentsMargins(0, 0, 0, 0)
        for place, (box, name, tip) in enumerate(
            (
                (
                    self.missed,
                    "Missed objects",
                    "Objects in the frame without an outline: click them, or type how many.",
                ),
                (self.false, "False outlines", "Outlines in the frame that are no real objects."),
            )
        ):
            box.setRange(0, 100_000)
            box.setKeyboardTracking(False)
            box.setToolTip(tip)
            box.setAccessibleName(f"{name} in the field")
            counts.addWidget(QLabel(name), place, 0)
            counts.addWidget(box, place, 1)
        column.addWidget(self._counts)
        self.result.setWordWrap(True)
        self.result.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.result.setToolTip("With 95% intervals by Wilson; kept with the layer.")
        column.addWidget(self.result)

    def _connect(self) -> None:
        checking = self._checking
        self.start_button.clicked.connect(self._start)
        for verdict, button in self.verdicts.items():
            button.clicked.connect(partial(self._judge, verdict))
        self.back_button.clicked.connect(lambda: checking.step_back())
        self.field_button.clicked.connect(self._field)
        self.missed.valueChanged.connect(checking.set_missed)
        self.false.valueChanged.connect(checking.set_false)
        checking.changed.connect(self.refresh)

    # --- what the user does --------------------------------------------------------------------------

    def _start(self) -> None:
        check = self._checking.check
        if self._checking.current is not None:
            self._checking.pause()
        elif check is not None and check.next is not None and check.seed == self.seed.value():
            self._checking.resume()
        else:
            self._checking.start(self.seed.value())

    def _judge(self, verdict: Verdict, checked: bool = False) -> None:
        self._checking.judge(verdict)

    def judge_by(self, number: int) -> bool:
        """Give the verdict of a number, from 1; tells whether an object is being judged and there is one."""
        asking = self._checking.current is not None and 1 <= number <= len(self.verdicts)
        if asking:
            self._checking.judge(list(self.verdicts)[number - 1])
        return asking

    def _field(self) -> None:
        if self._checking.field is None:
            self._checking.add_field()
        else:
            self._checking.end_field()

    # --- what is shown -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Bring the section in step with the check."""
        checking, check = self._checking, self._checking.check
        asking, counting = checking.current is not None, checking.field is not None
        unfinished = check is not None and check.next is not None and check.seed == self.seed.value()
        self.start_button.setText(
            "Pause" if asking else "Go on with the check" if unfinished else f"Check {SAMPLE} random objects"
        )
        enable(
            self.start_button,
            "" if asking else checking.why_not(),
            "Say of objects drawn at random what they are: that tells how good all of them are.",
        )
        if asking:
            rest_focus(self.seed)
        self.seed.setEnabled(not asking)
        show_if(self.question, asking)
        show_if(self._answers, asking)
        if check is not None and asking and checking.current in check.sampled:
            number = check.sampled.index(checking.current) + 1
            said = dict(check.verdicts).get(checking.current)
            before = f" You said: {said}." if said else ""
            self.question.setText(
                f"{number} of {len(check.sampled)}: object {checking.current} is ... (keys 1 to 4){before}"
            )
            enable(
                self.back_button,
                "" if number > 1 else "This is the first one.",
                _BACK,
            )
        show_if(self.field_button, check is not None and not asking)
        self.field_button.setText(
            "Done counting"
            if counting
            else "Count in another field"
            if check is not None and check.fields
            else "Count missed objects"
        )
        self.field_button.setToolTip(
            "Keep the counts."
            if counting
            else "Search a part of the plane, placed at random, for missed objects."
        )
        show_if(self._counts, counting)
        if checking.field is not None:
            for box, value in (
                (self.missed, checking.field.missed),
                (self.false, checking.field.false),
            ):
                box.blockSignals(True)
                box.setValue(value)
                box.blockSignals(False)
        self._show_result()

    def _show_result(self) -> None:
        check = self._checking.check
        lines = []
        if check is not None and check.verdicts:
            lines.append(f"Precision {check.precision.text}")
            others = ", ".join(f"{n} {v}" for v in Verdict if v != "correct" and (n := check.counts[v]))
            lines.extend([others] if others else [])
        if check is not None and check.fields:
            lines.append(f"Recall {check.recall.text}")
        if lines and self._checking.is_outdated:
            lines.append("⚠ The objects were changed since: this is what they were before.")
        self.result.setText("\n".join(lines))
        show_if(self.result, bool(lines))
