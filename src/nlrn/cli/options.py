"""The options that the restoring commands share, and how they are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from .errors import CliError

# The groups of options in the help.
RESTORATION, SENSOR, FILES, COMPUTING = "Restoration", "Noise of a sensor", "Files", "Computing"

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IN", help="Files, folders, globs, URLs, or - for standard input.", show_default=False
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="File or folder of the results; - is standard output. Default: beside the input, with a suffix.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A name of `nlrn models` or a weight file; by default chosen for the task and the picture.",
        show_default=False,
        rich_help_panel=RESTORATION,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        help="Stop after this many recurrent steps: faster, less accurate.",
        show_default=False,
        rich_help_panel=RESTORATION,
    ),
]
Ensemble = Annotated[
    bool,
    typer.Option(
        "--ensemble",
        help="Average over 8 flips and rotations: 8 times slower, a little better.",
        rich_help_panel=RESTORATION,
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        help="Another non-local window: odd, or none for the whole image.",
        show_default=False,
        rich_help_panel=RESTORATION,
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=COMPUTING)
]
PrecisionName = Annotated[
    str,
    typer.Option(
        "--precision",
        help="auto, float32, bfloat16 or float16 (GPUs); auto: float16 on CUDA.",
        rich_help_panel=COMPUTING,
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        help="Memory to use, such as 4G; by default half of what is free.",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
DataRange = Annotated[
    str | None,
    typer.Option(
        "--data-range",
        metavar="WHITE|BLACK,WHITE",
        help="Value of white, or of black and white; by default by type and data.",
        show_default=False,
        rich_help_panel=RESTORATION,
    ),
]
StrengthText = Annotated[
    str,
    typer.Option(
        "--strength",
        metavar="0..1",
        help="Share of the noise or the artifacts that goes; two, such as 0.5,1, are for luma and colour.",
        rich_help_panel=RESTORATION,
    ),
]
PurposeName = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="KIND",
        help="photo, scan, screenshot or measurement: how pictures are restored, in place of what nlrn measures.",
        show_default=False,
        rich_help_panel=RESTORATION,
    ),
]
Estimate = Annotated[
    str,
    typer.Option(
        "--estimate",
        metavar="stack|page",
        help="Measure the noise once for all pages of a file, or for each.",
        rich_help_panel=RESTORATION,
    ),
]
Gain = Annotated[
    float | None,
    typer.Option(
        "--gain",
        help="Units of the data per electron; by default estimated.",
        show_default=False,
        rich_help_panel=SENSOR,
    ),
]
ReadNoise = Annotated[
    float | None,
    typer.Option(
        "--read-noise",
        help="Standard deviation without light, in units of the data; by default estimated.",
        show_default=False,
        rich_help_panel=SENSOR,
    ),
]
Offset = Annotated[
    float | None,
    typer.Option(
        "--offset",
        help="Value without light, in units of the data; by default 0.",
        show_default=False,
        rich_help_panel=SENSOR,
    ),
]
Decorrelate = Annotated[
    bool,
    typer.Option(
        "--decorrelate",
        help="Remove noise that rows, columns or neighbours share, by its spectrum: 4 times slower.",
        rich_help_panel=RESTORATION,
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale",
        help="Enlargement of each side, such as 1.5, up to 16.",
        show_default=False,
        rich_help_panel=RESTORATION,
    ),
]
SizeText = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="WxH",
        help="Size of the result in place of a scale: 4096x2160, 4096x or x2160.",
        show_default=False,
        rich_help_panel=RESTORATION,
    ),
]
FitText = Annotated[
    str | None,
    typer.Option(
        "--fit",
        metavar="WxH",
        help="Largest size within a box, such as 3840x2160, in place of a scale.",
        show_default=False,
        rich_help_panel=RESTORATION,
    ),
]
Quality = Annotated[
    int,
    typer.Option(
        "--quality",
        min=1,
        max=100,
        help="Quality of JPEG, AVIF, and lossy WebP and JPEG XL.",
        rich_help_panel=FILES,
    ),
]
ResultFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Format of results: png, tiff, jpeg, webp, jxl, avif, bmp or fits. Default: that of the input.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Pages = Annotated[
    str | None,
    typer.Option(
        "--pages",
        metavar="1-10,20",
        help="Pages of each file, or frames, counted from 1; 5- is all from the fifth on. Default: all.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="PAGE",
        help="Write a page of one file with all results under a slider, most changed first.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing outputs.", rich_help_panel=FILES)
]
KeepTime = Annotated[
    bool,
    typer.Option(
        "--keep-time",
        help="Give results the time of the last change of their inputs.",
        rich_help_panel=FILES,
    ),
]
Recursive = Annotated[
    bool,
    typer.Option(
        "-r",
        "--recursive",
        help="Folders with their subfolders, which -o will have too.",
        rich_help_panel=FILES,
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing",
        help="Leave out files whose output exists: to go on with a batch.",
        rich_help_panel=FILES,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the batch in the folder -o, or share it with a run at work.",
        rich_help_panel=FILES,
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Restore what arrives in the folders IN into the folder -o, until Ctrl-C.",
        rich_help_panel=FILES,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do the I-th of N parts of the files, I from 0.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        min=1,
        help="Processes that share the cores: for hundreds of small images.",
        rich_help_panel=COMPUTING,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show what would be done, and write nothing.", rich_help_panel=FILES),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Report on standard output, one JSON object a line.", rich_help_panel=FILES),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray",
        help="Where the files are restored: in processes here, or by Ray (nlrn[ray]).",
        rich_help_panel=COMPUTING,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="A Ray cluster, or auto for the one of this computer; by default Ray starts here.",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
Log = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="Add a line for each file to FILE: time, seconds, notes or the reason.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]


def worded(text: str) -> str:
    """A sentence of the library in the words of the command line."""
    named = re.sub(r"\bdata_range= ?", "--data-range ", text)
    named = re.sub(r"\bnoise='([a-z-]+)'", r"--noise \1", named)
    named = re.sub(r"\bpurpose='([a-z]+)'", r"--for \1", named)
    named = re.sub(r"\bpurpose=(?=\W|$)", "--for", named)
    named = re.sub(r"\b(pairs|decorrelate)=True\b|^(decorrelate)\b", r"--\1\2", named)
    named = re.sub(r"\b(sigma|model|noise|gain|read_noise|offset)=(?=\W|$)", r"--\1", named)
    return named.replace("--read_noise", "--read-noise")


def check_weight_file(output: Path, source: Path) -> None:
    """Refuses a name that is no weight file's, and the file that the weights come from.

    Raises:
        CliError: another suffix than .safetensors, or the source itself.
    """
    if output.suffix != ".safetensors":
        raise CliError(f"the weight file must be named *.safetensors, got {output}")
    if output.exists() and source.exists() and output.samefile(source):
        raise CliError(f"the output {output} is the input itself")


def os_error(error: OSError) -> str:
    """One line: the message of an operating-system error without its number, and the file if it has one."""
    text = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{text}: {error.filename}" if error.strerror and error.filename else text
