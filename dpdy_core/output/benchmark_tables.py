"""A benchmark as tables for readers: markdown, and LaTeX with booktabs."""

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
Column = tuple[str, str, int]  # heading, place in a mean, decimals

COLUMNS: dict[str, tuple[Column, ...]] = {
    "plain": (
        ("PSNR", "psnr", 2),
        ("SSIM", "ssim", 3),
        ("MS-SSIM", "ms_ssim", 3),
        ("LPIPS", "lpips", 3),
        ("FLIP", "flip", 3),
    ),
    "dycheck": (
        ("mPSNR", "covisible.psnr", 2),
        ("mSSIM", "covisible.ssim", 3),
        ("mLPIPS", "covisible.lpips", 3),
        ("mFLIP", "covisible.flip", 3),
        ("PSNR", "psnr", 2),
        ("SSIM", "ssim", 3),
        ("LPIPS", "lpips", 3),
    ),
    "nvidia": (("PSNR", "psnr", 2), ("SSIM", "ssim", 3), ("LPIPS", "lpips", 3), ("FLIP", "flip", 3)),
}
LOWER = ("LPIPS", "FLIP", "mLPIPS", "mFLIP")
MASKED = ("mPSNR", "mSSIM", "mLPIPS")
OURS = "ours"
DEVIATES = "*"
_PUBLISHED = (("psnr", 2), ("ssim", 3), ("lpips", 3), ("pck_t", 3))


@dataclass(frozen=True)
class Table:
    title: str
    header: list[str]
    rows: list[list[str]]


def tables(document: Document) -> list[Table]:
    """Our scenes; then, where there are published rows, the means and the scenes of all methods."""
    columns = COLUMNS[document["protocol"]]
    rows = [
        [_marked(scene["scene"], [scene]), str(scene["views"]), _size(scene), *_cells(scene["mean"], columns)]
        for scene in document["scenes"]
    ]
    rows.append(["mean", str(sum(s["views"] for s in document["scenes"])), "", *_cells(document["mean"], columns)])
    headings = [f"{name} {'↓' if name in LOWER else '↑'}" for name, *_ in columns]
    made = [Table(f"Protocol {document['protocol']}", ["scene", "views", "size", *headings], rows)]
    if document["published"] is not None:
        made += [_means(document), *_per_scene(document)]
    return made


def markdown(document: Document) -> str:
    """All tables, then the notes."""
    lines = ["# Benchmark", ""]
    for table in tables(document):
        first = [name in ("scene", "method", "source") for name in table.header]
        lines += [
            f"## {table.title}",
            "",
            _line(table.header),
            "|" + "|".join("---" if f else "--:" for f in first) + "|",
        ]
        lines += [*(_line(row) for row in table.rows), ""]
    lines += [f"- {note}" for note in _notes(document)]
    return "\n".join(lines) + "\n"


def latex(document: Document) -> str:
    """All tables, for a document that loads booktabs; the notes are comments."""
    lines = [f"% {note}" for note in _notes(document)]
    for table in tables(document):
        columns = "".join("l" if name in ("scene", "method", "source") else "r" for name in table.header)
        lines += ["", r"\begin{table}", r"\centering", rf"\caption{{{_escaped(table.title)}}}"]
        lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _row(table.header), r"\midrule"]
        lines += [*(_row(row) for row in table.rows), r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _means(document: Document) -> Table:
    columns = [column for column in COLUMNS["dycheck"] if column[0] in MASKED]
    own = [_marked(OURS, document["scenes"]), *_cells(document["mean"], columns), _number(document["pck_t"], 3)]
    names = ", ".join(scene["scene"] for scene in document["scenes"])
    rows = [
        [row["method"], *(_number(row[key], digits) for key, digits in _PUBLISHED), row["source"]]
        for row in document["published"]["means"]
    ]
    title = f"Beside published means: {document['published']['protocol']}"
    headings = [f"{name} {'↓' if name in LOWER else '↑'}" for name in MASKED]
    return Table(title, ["method", *headings, "PCK-T ↑", "source"], [[*own, f"this run; {names}"], *rows])


def _per_scene(document: Document) -> list[Table]:
    """mPSNR / mSSIM / mLPIPS of each method on those of our scenes that have published rows."""
    known = document["published"]["per_scene"]
    scenes = [scene for scene in document["scenes"] if scene["scene"] in known]
    if not scenes:
        return []
    columns = [column for column in COLUMNS["dycheck"] if column[0] in MASKED]
    rows = [[OURS, *(" / ".join(_cells(scene["mean"], columns)) for scene in scenes)]]
    for method in known[scenes[0]["scene"]]:
        values = [known[scene["scene"]][method] for scene in scenes]
        rows.append([method, *(f"{v['psnr']:.2f} / {v['ssim']:.3f} / {v['lpips']:.3f}" for v in values)])
    title = f"mPSNR / mSSIM / mLPIPS a scene; published: {document['published']['per_scene_source']}"
    return [Table(title, ["method", *(_marked(scene["scene"], [scene]) for scene in scenes)], rows)]


def _notes(document: Document) -> list[str]:
    deviates = any(scene["deviations"] for scene in document["scenes"])
    mark = [f"{DEVIATES} deviates from the protocol: not comparable with published numbers"] if deviates else []
    return [*mark, "– means that there is no number", *document["notes"]]


def _marked(name: str, scenes: list[Document]) -> str:
    return f"{name}{DEVIATES}" if any(scene["deviations"] for scene in scenes) else name


def _size(scene: Document) -> str:
    return "x".join(map(str, scene["resolution"]))


def _cells(mean: Document, columns: tuple[Column, ...] | list[Column]) -> list[str]:
    cells = []
    for _, place, digits in columns:
        value: Any = mean
        for key in place.split("."):
            value = value[key]
        cells.append(_number(value, digits))
    return cells


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _row(cells: list[str]) -> str:
    guard = "{}" if cells[0].startswith(("[", "*")) else ""  # which would belong to the line break before it
    return guard + " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    """`text` for LaTeX."""
    special = {
        "\\": r"\textbackslash{}",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "–": "--",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
    special |= {char: rf"\{char}" for char in "&%$#_{}"} | {"^": r"\textasciicircum{}"}
    return "".join(special.get(char, char) for char in text)
