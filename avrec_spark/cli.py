"""`avrec …`: thin commands over the pipelines; every error ends as one paragraph and an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from avrec_spark import config, doctor
from avrec_spark.errors import EXIT_FAILED, UsageError
from avrec_spark.pipelines import runner

app = typer.Typer(
    help="From raw audio, video and behaviour to evaluated, explained, tracked recommendations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Option("--config", help="A settings file, e.g. conf/demo.yaml.")]
Overrides = Annotated[Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="Override one setting.")]
RunId = Annotated[Optional[str], typer.Option(help="Identifies the run; its finished jobs are not repeated.")]
Model = Annotated[str, typer.Option(help="A model of avrec_spark.models.registry.")]
Parameters = Annotated[Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="A model parameter.")]
Out = Annotated[Path, typer.Option(help="Folder for metrics.json and recommendations.parquet.")]


def main() -> None:
    app()


@app.command()
def demo(
    config_file: Annotated[Optional[Path], typer.Option("--config", help="Default: conf/demo.yaml.")] = None,
    overrides: Overrides = None,
    run_id: RunId = None,
) -> None:
    """Render the small world, run the whole flow on it, and print where the report is."""

    def action() -> None:
        settings = config.load(config_file or config.shipped("demo.yaml"), overrides or ())
        runner.render_world(settings)
        _run(runner.expand("demo"), settings, run_id)

    _exit(action)


@app.command("run")
def run_(name: str, config_file: Config, overrides: Overrides = None, run_id: RunId = None) -> None:
    """Run a JOB or a PIPELINE (media, behaviour, daily) in this process."""
    _exit(lambda: _run(runner.expand(name), config.load(config_file, overrides or ()), run_id))


def _run(jobs: tuple[str, ...], settings: config.Settings, run_id: str | None) -> None:
    run_id = runner.run(jobs, settings, run_id)
    if "report" in jobs:
        report = Path(settings.lakehouse.root, "reports", run_id, "index.html")
        typer.echo(f"Report: {report.resolve()}")


media = typer.Typer(help="Look at media files.", no_args_is_help=True)
app.add_typer(media, name="media")


@media.command()
def inspect(
    file: Annotated[str, typer.Argument(help="A path, or a URI such as s3://bucket/film.mp4.")],
    out: Annotated[Optional[Path], typer.Option(help="Folder for the pictures; default: inspect/NAME.")] = None,
    config_file: Annotated[Optional[Path], typer.Option("--config", help="A settings file.")] = None,
    overrides: Overrides = None,
) -> None:
    """Show what the features job sees in one file: a table, a contact sheet, waveform, mel spectrogram, transcript."""
    from rich.console import Console

    from avrec_spark import inspection

    def action() -> None:
        settings = config.load(config_file, overrides or ())
        usable = inspection.inspect(file, settings.features, out or Path("inspect", Path(file).stem), Console())
        if not usable:
            raise typer.Exit(EXIT_FAILED)

    _exit(action)


@app.command()
def evaluate(
    train: Annotated[Path, typer.Option(help="Interactions: Parquet, CSV or a Delta table.")],
    test: Annotated[Path, typer.Option(help="Interactions that were held out.")],
    model: Annotated[list[str], typer.Option(help="A model of the registry; several are compared, paired by user.")],
    out: Out,
    validation: Annotated[Optional[Path], typer.Option(help="Held out for choosing settings.")] = None,
    item_features: Annotated[Optional[list[str]], typer.Option(metavar="NAME=FILE")] = None,
    parameters: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="[MODEL.]KEY=VALUE", help="A parameter of the model, or of one of them."),
    ] = None,
    k: Annotated[Optional[list[int]], typer.Option("-k", help="Cut-off; may be repeated.")] = None,
    reference: Annotated[Optional[str], typer.Option(help="Compared with; default: the first model.")] = None,
    categories: Annotated[Optional[Path], typer.Option(help="File of item_id, categories: for calibration.")] = None,
    groups: Annotated[Optional[Path], typer.Option(help="File of item_id, group: for exposure fairness.")] = None,
    segments: Annotated[Optional[Path], typer.Option(help="File of user_id, segment: figures of each.")] = None,
    executor: Annotated[str, typer.Option(help="numpy or spark.")] = "numpy",
) -> None:
    """Fit models on one file of interactions and evaluate them on another."""
    from rich.console import Console

    from avrec_spark.evaluation import commands, comparison

    def action() -> None:
        features = dict(_pair(text, "--item-features") for text in item_features or ())
        given = {"categories": categories, "groups": groups, "segments": segments}
        files: dict[str, Any] = {
            "train": train,
            "test": test,
            "validation": validation,
            "item_features": {name: Path(file) for name, file in features.items()},
            "knowledge": {name: path for name, path in given.items() if path is not None},
            "executor": executor,
        }
        values, ks = _by_model(model, _parameters(parameters)), tuple(k or (10,))
        # Tables are as wide as they are where nobody sees them on a terminal.
        console = Console(width=None if Console().is_terminal else 200)
        if len(model) == 1:
            metrics = commands.run_evaluate(model=model[0], parameters=values[model[0]], ks=ks, out=out, **files)
            console.print(*comparison.metrics_tables({model[0]: metrics}, console.width))
            return
        found, compared = comparison.run_comparison(model, values, ks, out, reference, **files)
        for table in comparison.metrics_tables(found, console.width):
            console.print(table)
            console.print()
        console.print(comparison.comparison_table(compared, reference or model[0]))
        for warning in comparison.warnings(compared):
            console.print(f"Warning: {warning}", markup=False)
        console.print(f"Page: {(out / 'comparison.html').resolve()}", markup=False, soft_wrap=True)

    _exit(action)


@app.command()
def yardstick(
    name: str,
    model: Model,
    out: Out,
    data: Annotated[
        Optional[Path], typer.Option(help="Folder of the protocol's data; default: what make data brought.")
    ] = None,
    executor: Annotated[str, typer.Option(help="numpy or spark.")] = "numpy",
    parameters: Parameters = None,
) -> None:
    """Run a published protocol on its own data, e.g. `avrec yardstick lf-100k --model ease --out out`."""
    from avrec_spark.evaluation import commands

    def action() -> None:
        metrics = commands.run_yardstick(
            name=name, model=model, data=data, out=out, executor=executor, parameters=_parameters(parameters)
        )
        typer.echo(_table(metrics))

    _exit(action)


@app.command()
def tune(
    model: Model,
    out: Annotated[
        Path, typer.Option(help="File for the chosen settings, e.g. tuned.yaml; train takes it by --config.")
    ],
    trials: Annotated[int, typer.Option(help="Trials in all; those of an interrupted search count.")] = 30,
    yardstick: Annotated[Optional[str], typer.Option(help="Search on this protocol's validation part.")] = None,
    config_file: Annotated[
        Optional[Path], typer.Option("--config", help="Or on the latest snapshot of these settings.")
    ] = None,
    data: Annotated[Optional[Path], typer.Option(help="Folder of the protocol's data.")] = None,
    parts: Annotated[int, typer.Option(min=1, help="Validation parts of the protocol to average over.")] = 1,
    metric: Annotated[
        Optional[str], typer.Option(help="What to maximise; default: the protocol's, or promotion's.")
    ] = None,
    parameters: Annotated[
        Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="A model parameter that is not searched.")
    ] = None,
) -> None:
    """Search a model's settings on validation; test is never looked at. The same command again goes on."""
    from avrec_spark.pipelines import tune as tuning

    def action() -> None:
        if (yardstick is None) == (config_file is None):
            raise UsageError("Say where to search.", "Give one of --yardstick and --config.")
        request = tuning.Request(model, trials, out, _parameters(parameters), metric)
        if yardstick is not None:
            found = tuning.on_yardstick(request, yardstick, data, parts)
        else:
            found = tuning.on_snapshot(request, config.load(config_file))
        typer.echo(f"{found.metric} {found.value:.4f} on validation, {found.trials} trials, {found.pruned} cut short")
        typer.echo(" ".join(f"--set {name}={json.dumps(value)}" for name, value in found.parameters.items()))
        typer.echo(f"Settings: {out.resolve()}")

    _exit(action)


@app.command()
def recommend(
    config_file: Config,
    user: Annotated[Optional[str], typer.Option(help="What this user is recommended.")] = None,
    item: Annotated[Optional[str], typer.Option(help="What is similar to this item.")] = None,
    history: Annotated[Optional[str], typer.Option(metavar="ITEM,ITEM,…", help="What goes with these items.")] = None,
    tags: Annotated[Optional[str], typer.Option(metavar="TAG,TAG,…", help="What suits a taste for these.")] = None,
    overrides: Overrides = None,
) -> None:
    """Look at a result of the last run, with titles and reasons."""
    from avrec_spark.pipelines import look

    def action() -> None:
        if sum(choice is not None for choice in (user, item, history, tags)) != 1:
            raise UsageError("Say whose recommendations to show.", "Give one of --user, --item, --history and --tags.")
        settings = config.load(config_file, overrides or ())
        if user is not None:
            look.show_user(settings, user)
        elif item is not None:
            look.show_item(settings, item)
        elif tags is not None:
            look.show_tastes(settings, tags.split(","))
        else:
            look.show_history(settings, str(history).split(","))

    _exit(action)


@app.command()
def find(
    config_file: Config,
    text: Annotated[Optional[str], typer.Option(help="Words that say what to look for.")] = None,
    file: Annotated[Optional[str], typer.Option(help="A media file: what looks or sounds like it.")] = None,
    among: Annotated[Optional[list[str]], typer.Option(metavar="MODALITY", help="Search this; repeatable.")] = None,
    model: Annotated[str, typer.Option(help="A run of pretrain, or of train with align above 0.")] = "latest",
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    overrides: Overrides = None,
) -> None:
    """Find items across modalities: by a text, or by a media file, among what items look, sound and read like."""
    from avrec_spark.pipelines import look

    def action() -> None:
        if (text is None) == (file is None):
            raise UsageError("Say what to look for.", "Give one of --text and --file.")
        look.show_found(config.load(config_file, overrides or ()), text, file, among or (), model, k)

    _exit(action)


@app.command("doctor")
def doctor_() -> None:
    """Versions, Java, JARs, slots, disk, write access: what is missing and how to get it."""
    raise typer.Exit(doctor.main(before_setup=False))


def _exit(action: object) -> None:
    raise typer.Exit(runner.guarded(action))  # type: ignore[arg-type]


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{option} {text} has no value.", f"Write {option} NAME=VALUE.")
    return name, value


def _parameters(pairs: list[str] | None) -> dict[str, object]:
    """`key=value` pairs; values are JSON where they can be, else text."""

    def parse(text: str) -> object:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    return {name: parse(value) for name, value in (_pair(text, "--set") for text in pairs or ())}


def _by_model(models: list[str], parameters: dict[str, object]) -> dict[str, dict[str, object]]:
    """Parameters of each model: those under its name, `MODEL.KEY`, and those under none, which are of all."""
    found: dict[str, dict[str, object]] = {model: {} for model in models}
    for key, value in parameters.items():
        owner, dot, name = key.partition(".")
        if dot and owner not in found:
            raise UsageError(f"--set {key} is of the model {owner}, which is not evaluated.", f"Add --model {owner}.")
        for model in [owner] if dot else models:
            found[model][name if dot else key] = value
    return found


def _table(metrics: dict[str, dict[str, float]]) -> str:
    lines = [
        f"{name:<14}{value['mean']:8.4f}  [{value['low']:.4f}, {value['high']:.4f}]" for name, value in metrics.items()
    ]
    return "\n".join(lines)
