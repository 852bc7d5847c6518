"""`scanloop validate-external`: a bundle judged on a labelled set from elsewhere, as it is."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from scanloop.artifacts import read_json
from scanloop.config import ExternalConfig, IngestConfig
from scanloop.config_file import load_config
from scanloop.errors import ConfigError
from scanloop.faults import listed

HELP = """Judge a bundle on a foreign labelled set: nothing is fitted again, neither threshold nor temperature.

OUT/catalog holds the set as ingest takes it in, OUT/external what was found: metrics with intervals, calibration, the
difference to what the bundle promised, and whether the confidence has drifted. A set with other classes is refused.
"""
EXAMPLES = """Examples:

scanloop validate-external --bundle runs/brain/bundle --source /data/other --public --out runs/other

scanloop validate-external --bundle runs/xray/bundle --source pneumonia.npz --split test
--class 0=NORMAL --class 1=PNEUMONIA --out runs/mnist

scanloop validate-external --bundle runs/xray/bundle --evaluation runs/xray/evaluation --config configs/nih_cxr.yaml
--class normal=NORMAL --class abnormal=PNEUMONIA --out runs/nih
"""


def validate_external(  # noqa: PLR0913  a keyword for each option
    *,
    bundle: Annotated[Path, typer.Option(help="Model directory")],
    out: Annotated[Path, typer.Option(help="Folder that receives catalog and external")],
    source: Annotated[
        str | None, typer.Option(help="Folder, .tar, their address, or .npz with MedMNIST's keys")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Table below the source with the columns path and label")] = None,
    labelled_dir: Annotated[
        str, typer.Option(help="Folder of class folders, where no table tells labels")
    ] = "labelled",
    config: Annotated[
        Path | None, typer.Option(help="YAML whose section ingest names the set, in place of these")
    ] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="THEIRS=OURS, where names differ")] = None,
    split: Annotated[str, typer.Option(help="Part of the set that judges: all, train, validation, test")] = "all",
    threshold: Annotated[float, typer.Option(help="Probability from which an image counts as positive")] = 0.5,
    evaluation: Annotated[
        Path | None, typer.Option(help="The bundle's own evaluation: judge at its operating points, too")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="A public set: paths and ids stay as they are")] = False,
    key_file: Annotated[str | None, typer.Option(help="Secret of the pseudonyms, of a set that is not public")] = None,
    resamples: Annotated[int, typer.Option(help="Resamples of each interval")] = 1000,
) -> None:
    """Take the set in, judge the bundle on it, print what was found."""
    from scanloop.steps.ingest import ingest
    from scanloop.steps.validate_external import validate_external as step

    if (source is None) == (config is None):
        raise ConfigError("say which set judges: either --source or --config")
    named = [(one.partition("=")[0], one.partition("=")[2]) for one in classes or ()]
    if wrong := [one for one in classes or () if "=" not in one]:
        raise ConfigError(f"--class {wrong[0]}: write THEIRS=OURS")
    values = {"classes": dict(named), "split": split, "threshold": threshold, "resamples": resamples}
    try:
        judged = ExternalConfig.model_validate(values)
        taken = load_config(config).ingest if config else IngestConfig.model_validate(
            _limits(bundle) | {"source": _source(source or "", labels, labelled_dir, public, key_file)}
        )  # fmt: skip
    except ValidationError as error:
        raise ConfigError(listed("validate-external", error)) from error
    taken = taken.model_copy(update=_limits(bundle))
    ingest(taken, output=out / "catalog")
    step(judged, catalog=out / "catalog", bundle=bundle, evaluation=evaluation, output=out / "external")
    _print(read_json(out / "external" / "external.json"), out)


def _limits(bundle: Path) -> dict[str, Any]:
    """Sizes under which the bundle's own archive came in: a foreign image is shrunk as they were."""
    facts = read_json(bundle / "preprocess.json")
    return {
        "short_side_px": facts["archive_px"], "min_side_px": facts["min_side_px"], "max_pixels": facts["max_pixels"],
    }  # fmt: skip


def _source(path: str, labels: str | None, labelled_dir: str, public: bool, key_file: str | None) -> dict[str, Any]:
    if path.endswith(".npz"):
        return {"kind": "npz", "path": path}
    private = {"path": path, "deidentify": not public, "key_file": key_file}
    if labels is not None:
        return private | {"kind": "table", "table": labels}
    return private | {"kind": "folder", "labelled_dir": labelled_dir}


def _print(found: dict[str, Any], out: Path) -> None:
    size = f"{found['images']} images, {found['groups']} groups"
    known = f"{found['left_out_as_learnt_from']} left out, from which the model learnt"
    table = Table(title=f"external validation: {size}, {known}", title_justify="left")
    for name in ("metric", "here", "promised", "difference"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, entry in found["metrics"].items():
        cells = [_written(one) for one in (entry, found["promised"].get(name), found["difference"].get(name))]
        table.add_row(name, *cells)
    for name, entry in (found["at_threshold"] or {}).items():
        if isinstance(entry, dict):
            table.add_row(f"{name} at {found['at_threshold']['threshold']:g}", _written(entry), "", "")
    for point in found["operating_points"]:
        table.add_section()
        sign = ">=" if point["target"] == "tpr" else "<="
        table.add_row(f"threshold {point['threshold']:.4g} for {point['target'].upper()} {sign} {point['aimed_at']:g}")
        for name in ("sensitivity", "specificity", "ppv", "npv"):
            here, promised = point[name], point["promised"][name]
            table.add_row(f"  {name}", _written(here), _written(promised), _written(point["difference"].get(name)))
    console = Console(soft_wrap=True)
    console.print(table)
    drift = found["confidence_drift"]
    console.print(
        f"confidence: PSI {drift['score']:.3f} against the bundle's own, by chance below {drift['chance']:.3f}"
    )
    console.print(str(out / "external" / "external.json"))


def _written(entry: dict[str, Any] | None) -> str:
    if not entry or entry.get("value") is None:
        return ""
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
