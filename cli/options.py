"""Options that several verbs share, and how their text becomes values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..manifest import Precision, ResizePolicy, Size

if TYPE_CHECKING:
    from ..bands import Bands
    from ..exporter.normalization import Normalization
    from ..exporter.sizes import DynamicSize

_SIZE = re.compile(r"(\d+)x(\d+)")

#: Panels of `--help`.
MODEL_PANEL = "Model"
INPUT_PANEL = "Input"
OUTPUT_PANEL = "Output"

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A NAME.atrous directory.")]
OutputArgument = Annotated[Path, typer.Argument(metavar="OUT", help="The bundle to write: NAME.atrous.")]
ClassesOption = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=MODEL_PANEL,
        help='Classes: text with a name a line; JSON [{"name": …, "color": \\[r, g, b]}, …], names, or id2label.',
    ),
]
SizeOption = Annotated[
    str | None, typer.Option(metavar="HxW", rich_help_panel=INPUT_PANEL, help="One input size, e.g. 360x480.")
]
DynamicOption = Annotated[
    str | None,
    typer.Option(
        metavar="MIN:OPT:MAX", rich_help_panel=INPUT_PANEL, help="A range of sizes, e.g. 64x64:360x480:1024x1024."
    ),
]
NormalizationOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        rich_help_panel=INPUT_PANEL,
        help="Pixels' normalization: imagenet, caffe, lite, tensorflow, mmseg, none, or a preprocessor_config.json.",
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B", rich_help_panel=INPUT_PANEL, help="Mean of scaled pixels, e.g. 123.675,116.28,103.53."
    ),
]
StdOption = Annotated[
    str | None, typer.Option(metavar="R,G,B", rich_help_panel=INPUT_PANEL, help="Standard deviation of scaled pixels.")
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        metavar="FACTOR",
        rich_help_panel=INPUT_PANEL,
        help="Factor of pixels before; 1/255 if no mean and no std is above 1, else 1.",
    ),
]
ColorOption = Annotated[
    Literal["RGB", "BGR"] | None,
    typer.Option(rich_help_panel=INPUT_PANEL, help="Order of the network's channels, and of mean and std."),
]
BandsOption = Annotated[
    str | None,
    typer.Option(
        metavar="BANDS",
        rich_help_panel=INPUT_PANEL,
        help="Of a network that takes other images than RGB: N or NAME,NAME,…, then :uint8, :uint16 or :float32, then "
        ":LOW..HIGH, e.g. red,green,blue,nir or 1:uint16:0..4095; or a JSON file of names, dtype, ranges, colors and "
        "crf_weights.",
    ),
]
ResizeOption = Annotated[
    ResizePolicy,
    typer.Option(
        rich_help_panel=INPUT_PANEL,
        help="How images are fitted to the input: padded and tiled, resized to it, or resized keeping their aspect "
        "ratio and padded.",
    ),
]
AlignCornersOption = Annotated[
    bool,
    typer.Option("--align-corners", rich_help_panel=MODEL_PANEL, help="How training upsampled the logits."),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        rich_help_panel=MODEL_PANEL,
        help="Of a network with one channel, whose sigmoid is the probability of the second class: labels are 1 where "
        "it is above P; 0.5 by default.",
    ),
]
LicenseOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", rich_help_panel=OUTPUT_PANEL, help="License of the weights, kept in the manifest."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=OUTPUT_PANEL, help="Replace an existing bundle.")
]
ComparedImagesOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="PATH", help="Images or folders to compare on; by default synthetic ones."),
]
ComparedMasksOption = Annotated[
    Path | None, typer.Option(help="Folder of masks: NAME.png for each picture; compares mean IoU as well.")
]
BackendOption = Annotated[
    str, typer.Option(metavar="NAME", help="A backend that `atrous doctor` lists, or auto for the first that works.")
]
PrecisionOption = Annotated[
    Literal["auto", Precision], typer.Option(help="Precision of the network; auto for the most precise that works.")
]
FastOption = Annotated[
    bool,
    typer.Option("--fast", help="Compute in bfloat16 where `atrous add-bf16` verified it on this kind of CPU."),
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="CPU threads; 0 for all cores.")]


def chosen_size(size: str | None, dynamic: str | None) -> Size | DynamicSize | None:
    """The values of --size and --dynamic, of which at most one may be given."""
    from ..exporter.sizes import DynamicSize

    if size and dynamic:
        raise typer.BadParameter("--size HxW and --dynamic MIN:OPT:MAX exclude each other; pass one")
    if dynamic:
        return DynamicSize(*parse_range(dynamic))
    return parse_size(size) if size else None


def chosen_normalization(
    name: str | None,
    mean: str | None,
    std: str | None,
    scale: float | None,
    color: Literal["RGB", "BGR"] | None,
    bands: Bands | None = None,
) -> Normalization | None:
    """The normalization of --normalization, or of --mean, --std, --scale and --color; None if none is given."""
    from ..exporter.normalization import find_normalization, parse_normalization

    numbers = {"--mean": mean, "--std": std, "--scale": scale, "--color": color}
    given = [option for option, value in numbers.items() if value is not None]
    if name and given:
        raise typer.BadParameter(f"--normalization and {', '.join(given)} exclude each other; pass one or the other")
    if given:
        return parse_normalization(mean, std, scale, color, bands)
    return find_normalization(name, bands) if name else None


def chosen_bands(text: str | None) -> Bands | None:
    """The value of --bands: `4`, `red,green,blue,nir`, `1:uint16`, `grey:uint16:0..4095` or a JSON file."""
    if text is None:
        return None
    from ..exporter.read_bands import parse_bands, read_bands

    return read_bands(Path(text)) if text.endswith(".json") else parse_bands(text)


def parse_size(text: str) -> Size:
    """`360x480` → (360, 480): height, width."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size; expected HEIGHTxWIDTH in pixels, e.g. 360x480")
    return int(match[1]), int(match[2])


def parse_range(text: str) -> tuple[Size, Size, Size]:
    """`64x64:360x480:1024x1024` → (min, opt, max)."""
    parts = text.split(":")
    if len(parts) != 3:
        raise typer.BadParameter(f"{text!r} is not a range; expected MIN:OPT:MAX, e.g. 64x64:360x480:1024x1024")
    smallest, best, largest = map(parse_size, parts)
    return smallest, best, largest
