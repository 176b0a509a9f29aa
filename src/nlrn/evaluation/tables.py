"""Figures of the literature, and tables that set measured ones beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from .benchmark import Result

# PSNR in dB of white-noise removal: set -> method -> sigma -> figure. Source of the grey figures: the comparison
# tables of DAGL (Mou et al., ICCV 2021) and SwinIR (Liang et al., ICCVW 2021); of the colour ones: GroupSC
# (Lecouat et al., ECCV 2020) and SwinIR.
LITERATURE: dict[str, dict[str, dict[float, float]]] = {
    "Set12": {
        "BM3D": {15: 32.37, 25: 29.97, 50: 26.72},
        "WNNM": {15: 32.70, 25: 30.28, 50: 27.05},
        "DnCNN": {15: 32.86, 25: 30.44, 50: 27.18},
        "FFDNet": {15: 32.75, 25: 30.43, 50: 27.32},
        "N3Net": {15: 33.03, 25: 30.55, 50: 27.43},
        "NLRN": {15: 33.16, 25: 30.80, 50: 27.64},
        "DRUNet": {15: 33.25, 25: 30.94, 50: 27.90},
        "SwinIR": {15: 33.36, 25: 31.01, 50: 27.91},
    },
    "BSD68": {
        "BM3D": {15: 31.08, 25: 28.57, 50: 25.60},
        "WNNM": {15: 31.37, 25: 28.83, 50: 25.87},
        "DnCNN": {15: 31.73, 25: 29.23, 50: 26.23},
        "FFDNet": {15: 31.63, 25: 29.19, 50: 26.29},
        "N3Net": {15: 31.78, 25: 29.30, 50: 26.39},
        "NLRN": {15: 31.88, 25: 29.41, 50: 26.47},
        "DRUNet": {15: 31.91, 25: 29.48, 50: 26.59},
        "SwinIR": {15: 31.97, 25: 29.50, 50: 26.58},
    },
    "Urban100": {
        "BM3D": {15: 32.35, 25: 29.70, 50: 25.95},
        "WNNM": {15: 32.97, 25: 30.39, 50: 26.83},
        "DnCNN": {15: 32.64, 25: 29.95, 50: 26.26},
        "FFDNet": {15: 32.40, 25: 29.90, 50: 26.50},
        "N3Net": {15: 33.08, 25: 30.19, 50: 26.82},
        "NLRN": {15: 33.45, 25: 30.94, 50: 27.49},
        "DRUNet": {15: 33.44, 25: 31.11, 50: 27.96},
        "SwinIR": {15: 33.70, 25: 31.30, 50: 27.98},
    },
    "CBSD68": {
        "CBM3D": {15: 33.52, 25: 30.71, 50: 27.38},
        "DnCNN": {15: 33.90, 25: 31.24, 50: 27.95},
        "FFDNet": {15: 33.87, 25: 31.21, 50: 27.96},
        "GroupSC": {15: 34.12, 25: 31.40, 50: 28.05},
        "DRUNet": {15: 34.30, 25: 31.69, 50: 28.51},
        "SwinIR": {15: 34.42, 25: 31.78, 50: 28.56},
    },
}

# The classic for grey and for colour, and the network of the paper (which has no published colour model).
CLASSICS = {"CBSD68": "CBM3D"}
HEADING = ("set", "sigma", "model", "steps", "noisy", "PSNR", "SSIM", "BM3D", "diff", "NLRN", "diff", "sec")

Row = tuple[str, ...]


def rows(results: list[Result]) -> list[Row]:
    """The rows under `HEADING`, as text."""
    return [_row(result) for result in results]


def _row(result: Result) -> Row:
    return (
        result.dataset,
        f"{result.sigma:g}",
        result.model,
        "" if result.steps is None else str(result.steps),
        f"{result.noisy_psnr:.2f}",
        f"{result.psnr:.2f}",
        f"{result.ssim:.4f}",
        *_beside(result, CLASSICS.get(result.dataset, "BM3D")),
        *_beside(result, "NLRN"),
        f"{result.seconds / len(result.images):.2f}",
    )


def _beside(result: Result, method: str) -> tuple[str, str]:
    """A figure of the literature and the difference to it, both empty where there is none."""
    figure = LITERATURE.get(result.dataset, {}).get(method, {}).get(result.sigma)
    return ("", "") if figure is None else (f"{figure:.2f}", f"{result.psnr - figure:+.2f}")


def as_rich(results: list[Result]) -> Table:
    """The table for a terminal: narrow enough for 80 columns, so without the noisy images' PSNR."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    shown = [i for i, name in enumerate(HEADING) if name != "noisy"]
    for i in shown:
        left = HEADING[i] in ("set", "model")
        table.add_column(HEADING[i], justify="left" if left else "right", no_wrap=left)
    for row in rows(results):
        table.add_row(*(row[i] for i in shown))
    return table


def as_markdown(results: list[Result]) -> str:
    """The table in Markdown."""
    rule = tuple("---" if name in ("set", "model") else "--:" for name in HEADING)
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEADING, rule, *rows(results))]
    return "\n".join(lines) + "\n"
