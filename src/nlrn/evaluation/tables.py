"""Figures of the literature, and tables that set measured ones beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .protocol import DENOISING, JPEG_REMOVAL, REAL_NOISE, SUPER_RESOLUTION

if TYPE_CHECKING:
    from .benchmark import Result

# PSNR in dB: task -> set -> method -> level -> figure. Sources: grey noise, the comparison tables of DAGL (Mou et al.,
# ICCV 2021) and SwinIR (Liang et al., ICCVW 2021), for LSSC that of TNRD (Chen, Pock, IEEE TPAMI 2017); colour noise,
# GroupSC (Lecouat et al., ECCV 2020) and SwinIR; super-resolution, Pyramid Attention Networks (Mei et al., 2020) for
# NLRN, VDSR's paper (Kim et al., CVPR 2016) for the others; JPEG, SwinIR.
LITERATURE: dict[str, dict[str, dict[str, dict[float, float]]]] = {
    "denoise": {
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
            "LSSC": {15: 31.27, 25: 28.70},
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
    },
    "upscale": {
        "Set5": {
            "SRCNN": {2: 36.66, 3: 32.75, 4: 30.48},
            "VDSR": {2: 37.53, 3: 33.66, 4: 31.35},
            "NLRN": {2: 38.00, 3: 34.27, 4: 31.92},
        },
        "Set14": {
            "SRCNN": {2: 32.42, 3: 29.28, 4: 27.49},
            "VDSR": {2: 33.03, 3: 29.77, 4: 28.01},
            "NLRN": {2: 33.46, 3: 30.16, 4: 28.36},
        },
    },
    "dejpeg": {
        "classic5": {
            "AR-CNN": {10: 29.03, 20: 31.15, 30: 32.51, 40: 33.34},
            "DnCNN": {10: 29.40, 20: 31.63, 30: 32.91, 40: 33.77},
            "DRUNet": {10: 30.16, 20: 32.39, 30: 33.59, 40: 34.41},
            "SwinIR": {10: 30.27, 20: 32.52, 30: 33.73, 40: 34.52},
        },
    },
}

TASKS = {task.name: task for task in (DENOISING, SUPER_RESOLUTION, JPEG_REMOVAL, REAL_NOISE)}
# Two methods of the literature that a task's table shows; for colour noise the classic is another one, and the paper
# has no colour model.
BESIDE = {
    "denoise": ("BM3D", "NLRN"),
    "upscale": ("VDSR", "NLRN"),
    "dejpeg": ("AR-CNN", "DnCNN"),
    "photo": (),
}
SUBSTITUTES = {("CBSD68", "BM3D"): "CBM3D"}
# The method of the literature that a model of nlrn is. `ssc` is of the family of LSSC.
PUBLISHED = {"bm3d": "BM3D", "wnnm": "WNNM", "ssc": "LSSC"}
LEFT = ("set", "model")

Row = tuple[str, ...]


def published(task: str, dataset: str, level: float | None) -> dict[str, float]:
    """PSNR in dB of the methods that a task's table shows, as the literature has it; empty where there is none."""
    figures = LITERATURE.get(task, {}).get(dataset, {})
    methods = [SUBSTITUTES.get((dataset, method), method) for method in BESIDE[task]]
    found = {method: figures.get(method, {}) for method in methods}
    return {
        method: levels[level] for method, levels in found.items() if level is not None and level in levels
    }


def heading(task: str) -> Row:
    """The columns of a task's table."""
    kind = TASKS[task]
    columns = ["set", *([kind.level] if kind.level else []), "model", "steps", kind.degraded, "PSNR"]
    columns += ["unrounded"] if kind is SUPER_RESOLUTION else []
    columns += ["SSIM"]
    for method in BESIDE[task]:
        columns += [method, "diff"]
    columns += ["published"] if task == DENOISING.name else []
    return (*columns, "sec")


def rows(results: list[Result]) -> list[Row]:
    """The rows under `heading`, as text."""
    return [_row(result) for result in results]


def _row(result: Result) -> Row:
    cells = [result.dataset]
    cells += [f"{result.level:g}"] if result.level is not None else []
    cells += [result.model, "" if result.steps is None else str(result.steps)]
    cells += [f"{result.input_psnr:.2f}", f"{result.psnr:.2f}"]
    cells += [f"{result.exact_psnr:.2f}"] if result.exact_psnr is not None else []
    cells += [f"{result.ssim:.4f}"]
    for method in BESIDE[result.task]:
        cells += _beside(result, SUBSTITUTES.get((result.dataset, method), method))
    if result.task == DENOISING.name:
        method = PUBLISHED.get(result.model, "")
        cells += _beside(result, SUBSTITUTES.get((result.dataset, method), method))[:1]
    return (*cells, f"{result.seconds / len(result.images):.2f}")


def _beside(result: Result, method: str) -> tuple[str, str]:
    """A figure of the literature and the difference to it, both empty where there is none."""
    figures = LITERATURE.get(result.task, {}).get(result.dataset, {}).get(method, {})
    figure = None if result.level is None else figures.get(result.level)
    return ("", "") if figure is None else (f"{figure:.2f}", f"{result.psnr - figure:+.2f}")


def as_rich(results: list[Result]) -> Table:
    """The table of one task for a terminal: narrow enough for 80 columns, so without some of the columns."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    names, lines = heading(results[0].task), rows(results)
    left_out = {"denoise": "noisy", "upscale": "SSIM"}.get(results[0].task)
    shown = [i for i, name in enumerate(names) if name != left_out and any(line[i] for line in lines)]
    for i in shown:
        left = names[i] in LEFT
        table.add_column(names[i], justify="left" if left else "right", no_wrap=left)
    for line in lines:
        table.add_row(*(line[i] for i in shown))
    return table


def as_markdown(results: list[Result]) -> str:
    """The table of one task in Markdown."""
    names = heading(results[0].task)
    rule = tuple("---" if name in LEFT else "--:" for name in names)
    lines = ["| " + " | ".join(cells) + " |" for cells in (names, rule, *rows(results))]
    return "\n".join(lines) + "\n"
