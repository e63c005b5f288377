"""The commands `sie encode`, `sie score` and `sie extract`: their options, and nothing else."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sie_cli.batch.job import Job
from sie_cli.failing import UseError, one_line
from sie_cli.options import DEFAULT_URL, ApiKey, Gpu, Json, Pool, Url, target

INPUT_HELP = "Texts; or one .txt (a text a line), .jsonl or .parquet file; or - for stdin (the default)."
BATCH, CONCURRENCY, BUDGET_S = 64, 8, 900.0

Form = StrEnum("Form", ["DENSE", "SPARSE", "MULTIVECTOR"])
Dtype = StrEnum("Dtype", ["FLOAT32", "FLOAT16", "INT8", "UINT8", "BINARY", "UBINARY"])
Inputs = Annotated[list[str] | None, typer.Argument(metavar="[TEXT...|FILE|-]", help=INPUT_HELP, show_default=False)]
Model = Annotated[str, typer.Option("--model", "-m", help="Model of the catalogue, for example BAAI/bge-m3.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help=".jsonl, .npz or .parquet file; without it JSON lines to stdout.")
]
Field = Annotated[str, typer.Option("--field", help="Field or column that holds the text.")]
IdField = Annotated[str | None, typer.Option("--id-field", help="Field or column of ids; default: line or row number.")]
Instruction = Annotated[str | None, typer.Option("--instruction", help="Task description for models that read one.")]
Options = Annotated[list[str] | None, typer.Option("--option", help="Further model option, key=value; repeat.")]
KeepGoing = Annotated[
    bool,
    typer.Option("--keep-going", "-k", help="Set records aside that are refused or cannot be read, and do the others."),
]
Errors = Annotated[
    Path | None,
    typer.Option("--errors", help="Where refused records go; means --keep-going; default: OUTPUT.errors.jsonl."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin anew; replace the output and what was begun.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, max=1000, help="Records in one request.")]
Concurrency = Annotated[int, typer.Option("--concurrency", "-c", min=1, max=256, help="Requests under way at a time.")]
Budget = Annotated[
    float, typer.Option("--wait", min=0.1, help="Longest time in seconds for one request, waits included.")
]


def register(app: typer.Typer) -> None:
    """Add the three commands."""
    for command in (encode, score, extract):
        app.command()(command)


def encode(  # noqa: PLR0913 - the documented options
    inputs: Inputs = None,
    *,
    model: Model,
    output: Output = None,
    output_type: Annotated[
        list[Form] | None, typer.Option("--output-type", help="What a text becomes; repeat for several.")
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option("--dtype", help="Numbers of the vectors; default float32.")] = None,
    is_query: Annotated[bool, typer.Option("--is-query", help="The texts are queries, not documents.")] = False,
    instruction: Instruction = None,
    option: Options = None,
    field: Field = "text",
    id_field: IdField = None,
    keep_going: KeepGoing = False,
    errors: Errors = None,
    overwrite: Overwrite = False,
    batch_size: BatchSize = BATCH,
    concurrency: Concurrency = CONCURRENCY,
    wait: Budget = BUDGET_S,
    gpu: Gpu = None,
    pool: Pool = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Embed texts: from arguments, stdin or a file, to stdout or a file. Started again, it goes on where it stopped."""
    with one_line():
        job = Job(
            "encode",
            model,
            target(gpu, pool),
            output_types=tuple(map(str, output_type or ())),
            dtype=None if dtype is None else str(dtype),
            instruction=instruction,
            options=_model_options(option or (), is_query=is_query or None),
        )
        _execute(job, locals())


def score(  # noqa: PLR0913 - the documented options
    query: Annotated[str, typer.Argument(help="What the texts are scored against.")],
    inputs: Inputs = None,
    *,
    model: Model,
    output: Output = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Only the best so many, the best first.")] = None,
    instruction: Instruction = None,
    option: Options = None,
    field: Field = "text",
    id_field: IdField = None,
    keep_going: KeepGoing = False,
    errors: Errors = None,
    overwrite: Overwrite = False,
    batch_size: BatchSize = BATCH,
    concurrency: Concurrency = CONCURRENCY,
    wait: Budget = BUDGET_S,
    gpu: Gpu = None,
    pool: Pool = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Score texts against a query, in the order of the input; with --top-k the best ones, ranked."""
    with one_line():
        job = Job(
            "score",
            model,
            target(gpu, pool),
            query=query,
            instruction=instruction,
            options=_model_options(option or ()),
        )
        _execute(job, locals())


def extract(  # noqa: PLR0913 - the documented options
    inputs: Inputs = None,
    *,
    model: Model,
    output: Output = None,
    labels: Annotated[
        list[str] | None, typer.Option("--labels", "-l", help="What to look for, separated by commas; repeat.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0.0, max=1.0, help="Leave out findings with a lower score.")
    ] = None,
    instruction: Instruction = None,
    option: Options = None,
    field: Field = "text",
    id_field: IdField = None,
    keep_going: KeepGoing = False,
    errors: Errors = None,
    overwrite: Overwrite = False,
    batch_size: BatchSize = BATCH,
    concurrency: Concurrency = CONCURRENCY,
    wait: Budget = BUDGET_S,
    gpu: Gpu = None,
    pool: Pool = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Find entities, labels and more in texts; one line of findings for each text."""
    wanted = [part.strip() for text in labels or () for part in text.split(",") if part.strip()]
    with one_line():
        job = Job(
            "extract",
            model,
            target(gpu, pool),
            labels=tuple(wanted),
            instruction=instruction,
            options=_model_options(option or (), threshold=threshold),
        )
        _execute(job, locals())


def _execute(job: Job, given: dict[str, Any]) -> None:
    """What is the same for all three: `given` are the arguments of the command by name."""
    from sie_cli.batch.command import Given, execute  # noqa: PLC0415 - `sie --help` is quick without
    from sie_cli.batch.sources import Columns  # noqa: PLC0415

    keep_going = given["keep_going"] or given["errors"] is not None
    execute(
        job,
        Given(
            url=given["url"],
            api_key=given["api_key"],
            inputs=given["inputs"] or (),
            columns=Columns(given["field"], given["id_field"], keep_going),
            output=given["output"],
            errors=given["errors"],
            keep_going=keep_going,
            overwrite=given["overwrite"],
            batch_size=given["batch_size"],
            concurrency=given["concurrency"],
            budget_s=given["wait"],
            is_json=given["as_json"],
            top_k=given.get("top_k"),
        ),
    )


def _model_options(assignments: Sequence[str], **known: Any) -> dict[str, Any]:
    """Model options: those with a flag of their own, then `key=value` ones, whose values are JSON or else texts.

    Raises:
        UseError: one is not `key=value`.
    """
    options = {name: value for name, value in known.items() if value is not None}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name:
            raise UseError(f"--option '{assignment}' is not like key=value")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options
