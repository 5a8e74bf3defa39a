"""The tables of `python -m benchmarks.profile`."""

from __future__ import annotations

from typing import Any

from .report import where, written

AREAS = {1: 256, 4: 1024, 16: 4096, 64: 16384}
"""Windows decoded at once in a trial: their tokens."""


def as_markdown(found: dict[str, Any], about: dict[str, Any]) -> str:
    """Write all tables."""
    lines = [
        f"{where(about)}; OpenVINO, medians.",
        *_encoder_lines(found["encoder"]),
        *_split_lines("One click on a cached embedding, 1024 x 1024", found["click"]),
    ]
    for split in found["everything"].values():
        lines += _split_lines(f"Everything, object-aware: {split['best']['title']}", split)
    lines += _trial_lines(found["trials"]) + _memory_lines(found["memory"])
    return "\n".join(lines) + "\n"


def _encoder_lines(found: dict[str, Any]) -> list[str]:
    plain = found["plain"]
    lines = [
        "",
        f"## Encoder, {found['side']} x {found['side']}",
        "",
        f"{found['gflop']:.1f} GFLOP in matrix products and convolutions; the plain baseline's "
        f"{plain['gflop']:.1f} GFLOP take {written(plain['ms'] / 1e3, 's')} in float32 PyTorch.",
        "",
        "| | time | GFLOP/s | one large product reaches | of that | at that rate | ratio to the baseline "
        "| ratio at that rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for column in ("best", "float32"):
        row = found[column]
        lines.append(
            f"| {row['precision']} | {written(row['ms'] / 1e3, 's')} | {row['gflops']:.0f} "
            f"| {row['product_gflops']:.0f} | {row['of_limit']:.0%} | {written(row['limit_ms'] / 1e3, 's')} "
            f"| {row['ratio']:.2g}x | {row['limit_ratio']:.2g}x |"
        )
    for column in ("best", "float32"):
        row = found[column]
        lines += ["", f"| {row['precision']} | time | share | GFLOP | of one large product's rate |"]
        lines.append("|---|---|---|---|---|")
        for kind, own in row["kinds"].items():
            count = f"{own['gflop']:.1f} | {own['of_limit']:.0%}" if own["gflop"] else "| "
            lines.append(f"| {kind} | {written(own['ms'] / 1e3, 's')} | {own['share']:.0%} | {count} |")
    return lines


def _split_lines(title: str, split: dict[str, Any]) -> list[str]:
    """Write the steps of a run, in the best precision and in float32."""
    best, full = split["best"], split["float32"]
    lines = ["", f"## {title}", "", "| step | best | share | float32 |", "|---|---|---|---|"]
    for step, ms in sorted(best["steps"].items(), key=lambda item: -item[1]):
        share = ms / sum(best["steps"].values())
        other = written(full["steps"].get(step, 0.0) / 1e3, "s")
        lines.append(f"| {step.replace('_', ' ')} | {written(ms / 1e3, 's')} | {share:.0%} | {other} |")
    lines.append(
        f"| all, without timers | {written(best['ms'] / 1e3, 's')} | | {written(full['ms'] / 1e3, 's')} |"
    )
    return lines


def _trial_lines(found: dict[str, float]) -> list[str]:
    rows = {
        f"{what} the {part}'s graph": written(found[f"{verb}_{part}"], "s")
        for part in ("encoder", "decoder")
        for verb, what in (("build", "building"), ("compile", "compiling"))
    }
    rows["encoder, open frame size / fixed size"] = f"{found['open_to_fixed']:.2f}"
    rows |= {f"64 windows, {n} at once": written(found[f"windows_64_by_{n}_ms"] / 1e3, "s") for n in AREAS}
    rows["frame by OpenVINO and 8 windows by PyTorch in turns, CPU time / each by itself"] = (
        f"{found['two_libraries_cpu']:.2f}"
    )
    rows["the same in turns, CPU time"] = written(found["two_libraries_cpu_ms"] / 1e3, "s")
    rows["frame and 8 windows both by OpenVINO, CPU time"] = written(found["one_library_cpu_ms"] / 1e3, "s")
    return [
        "",
        "## Trials, best precision",
        "",
        "| | |",
        "|---|---|",
        *(f"| {a} | {b} |" for a, b in rows.items()),
    ]


def _memory_lines(found: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## Memory of everything, 1024 x 1024",
        "",
        "| resident after | best | float32 |",
        "|---|---|---|",
    ]
    for stage in found["best"]:
        cells = (found[column][stage] for column in ("best", "float32"))
        values = " | ".join("" if value is None else written(value, "MiB") for value in cells)
        lines.append(f"| {stage.replace('_', ' ')} | {values} |")
    imports = [f"{name} {written(value, 'MiB')}" for name, value in found["libraries"].items() if value]
    lines += ["", f"A bare process after each import: {', '.join(imports)}."]
    if found["plain_peak"] is not None:
        lines += ["", f"The plain baseline peaks at {written(found['plain_peak'], 'MiB')}."]
    return lines
