"""Score files into files of decisions: each input once, each output whole or absent, and again if something changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import PurePosixPath
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from tabserve import __version__
from tabserve.arrays import Array
from tabserve.inference.errors import InvalidRequest
from tabserve.schema.columns import Misfit
from tabserve.scoring.arrow import readable
from tabserve.scoring.scorer import Basis, Scorer, error_rows
from tabserve.scoring.storage import Place, RunError, is_hidden
from tabserve.scoring.tables import FORMATS, WRITERS, Block, blocks, format_of
from tabserve.scoring.where import Condition, parse

DONE, PROGRESS = "_tabserve.json", "_progress.json"
"""The files that list the inputs of a finished run, and those that an unfinished run has finished."""
_ERRORS = "_errors"
_PLACE = "_place"
"""The column that a condition's table has besides those of the file."""
OnError: TypeAlias = Literal["fail", "record"]
Told: TypeAlias = Callable[[Sequence[str], Array, Basis], None]
"""A call with the ids, the positions in the input, and the basis of decisions."""
Report: TypeAlias = Callable[[str, int, float], None]
"""A call with an input's name, how many more of its rows are read, and their share of all bytes, 0 to 1."""
_ENDINGS = ", ".join(ending for endings in FORMATS.values() for ending in endings)


class Log(Protocol):
    """Takes the decisions on each input's rows, at once or not at all."""

    def writing(self, uri: str, name: str, time: float) -> AbstractContextManager[Told]:
        """Take those on an input, which are there when the block ends.

        name: what stands for the input, the bundle and the options. time: of the decisions, in seconds since 1970.
        """


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a run, the same for every input.

    keep: input columns to carry along. where: the condition on rows that are scored. now: what `default: now` becomes;
    the start of the run where it is None. format: of the outputs; None for each input's own.
    together: whether a block is answered by the engine for its size, and not by that for one row.
    on_error: whether a row that cannot be decided ends the run, or is written to `_errors`. most_errors: how many such
    rows are too many.
    """

    keep: tuple[str, ...] = ()
    where: str | None = None
    now: float | None = None
    format: str | None = None
    on_error: OnError = "fail"
    most_errors: int | None = None
    together: bool = False


class Finished(msgspec.Struct, frozen=True):
    """A finished input, with its results and the bundle that decided it.

    modified: the input's time, in nanoseconds since 1970. errors_in: the file of its errors, None if there are none.
    """

    input: str
    size: int
    modified: int
    bundle: str
    output: str
    rows: int
    decided: int
    errors: int
    errors_in: str | None = None


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The contents of `_tabserve.json` and `_progress.json`; `now` is the value of `default: now`.

    logged: the time of the decisions in the decision log, in seconds since 1970; 0 without a log.
    """

    name: str
    version: str
    bundle: str
    tabserve: str
    libraries: dict[str, str]
    options: Options
    now: float
    rows: int
    errors: int
    inputs: list[Finished]
    logged: float = 0.0


class Input(msgspec.Struct, frozen=True):
    """A file to score. relative: its path below the source."""

    path: str
    relative: str
    size: int
    modified: int


def run(
    open_scorer: Callable[[float], Scorer],
    source: str,
    target: str,
    options: Options,
    report: Report,
    open_log: Callable[[Scorer], Log] | None = None,
) -> Record:
    """Score every input of `source` into the folder `target`; finished inputs are skipped.

    open_scorer: makes a scorer with this `now`. open_log: makes the log of its decisions.
    Raises RunError, ConditionError, BundleError and OSError.
    """
    condition = parse(options.where) if options.where else None
    found, out = Place.of(source), Place.of(target)
    inputs = found.patiently(lambda: _inputs(found, out))
    if not inputs:
        raise RunError(f"{source}: no files that end in {_ENDINGS}")
    before, begun = _read(out, DONE), _read(out, PROGRESS)
    now = _now(options, begun)
    scorer = open_scorer(now)
    out.patiently(out.clear)
    logging = None
    if open_log is not None:
        logged = begun.logged if begun is not None and begun.logged else datetime.now(UTC).timestamp()
        logging = _Logging(open_log(scorer), source.partition("://")[0] if "://" in source else "file", logged)
        _write(out, PROGRESS, _record(scorer, options, now, begun.inputs if begun else [], logging))
    scoring = _Scoring(scorer, found, out, condition, options, logging)
    known = {one.output: one for old in (before, begun) if old for one in old.inputs}
    finished: list[Finished] = []
    total = sum(one.size for one in inputs) or 1
    for one in inputs:
        output = _output(one, scorer.bundle.digest, options)
        if output in known and out.patiently(partial(out.has, output)):
            report(one.relative, 0, one.size / total)
            finished.append(known[output])
            continue
        errors = sum(other.errors for other in finished)
        score = partial(scoring.score, one, output, errors, report, one.size / total)
        finished.append((found if out.is_local else out).patiently(score))
        _write(out, PROGRESS, _record(scorer, options, now, finished, logging))
    return _finish(out, _record(scorer, options, now, finished, logging), before)


class _Logging(NamedTuple):
    """The log of a run, the scheme of its inputs' URIs, and the time of its decisions."""

    log: Log
    scheme: str
    time: float

    def writing(self, one: Input, output: str) -> AbstractContextManager[Told]:
        """Take the decisions on an input, whose output is named for it."""
        return self.log.writing(f"{self.scheme}://{one.path}", PurePosixPath(output).stem, self.time)


class _Scoring:
    """Reads, scores and writes each input."""

    def __init__(
        self,
        scorer: Scorer,
        source: Place,
        out: Place,
        condition: Condition | None,
        options: Options,
        logging: _Logging | None,
    ) -> None:
        self._scorer, self._source, self._out = scorer, source, out
        self._condition, self._options, self._logging = condition, options, logging
        schema = scorer.bundle.schema
        fields = [*([schema.id] if schema.id else []), *schema.fields]
        self._wanted = list(dict.fromkeys([*fields, *options.keep, *(condition.columns if condition else ())]))

    def score(self, one: Input, output: str, before: int, report: Report, share: float) -> Finished:
        """Score an input; its output appears when it is whole.

        before: errors in earlier inputs. share: the input's share of all bytes. Raises RunError and OSError.
        """
        rows = decided = 0
        done = 0.0
        errors: list[Misfit] = []
        logging = self._logging.writing(one, output) if self._logging else nullcontext()
        with self._out.whole(output) as stream, logging as tell:  # the log's is whole before the output is
            writer = None
            for block in self._blocks(one):
                made, misfits = self._scored(one, block, tell)
                errors += misfits
                self._refuse(one, errors, before)
                writer = writer or WRITERS[str(format_of(output))](stream, made.schema)
                writer.write(made)
                read = len(block.places) + len(block.unread)
                rows, decided = rows + read, decided + made.num_rows
                report(one.relative, read, (block.done - done) * share)
                done = block.done
            writer = writer or WRITERS[str(format_of(output))](stream, self._scorer.schema)
            writer.close()
            errors_in = self._write_errors(output, errors) if errors else None
        report(one.relative, 0, (1 - done) * share)
        digest = self._scorer.bundle.digest
        return Finished(one.path, one.size, one.modified, digest, output, rows, decided, len(errors), errors_in)

    def _blocks(self, one: Input) -> Iterator[Block]:
        try:
            yield from blocks(self._source.files, one.path, one.size, self._scorer.bundle.schema, self._wanted)
        except InvalidRequest as error:
            raise RunError(f"{one.path}: {error}") from error

    def _scored(self, one: Input, block: Block, tell: Told | None) -> tuple[pa.RecordBatch, list[Misfit]]:
        """The decided rows, with id, kept columns and positions in the file; and the errors of the others."""
        batch, places = block.batch, block.places
        if self._condition is not None:
            chosen = _chosen(batch, self._condition, self._scorer)
            batch, places = batch.take(chosen), places[chosen.to_numpy()]
        try:
            texts, recording = format_of(one.path) == "csv", tell is not None
            (decided, errors), basis = self._scorer.record(batch, texts=texts, recording=recording)
        except InvalidRequest as error:
            raise RunError(f"{one.path}: {error}") from error
        rows = decided.column("row").to_numpy()
        decided = decided.set_column(0, self._scorer.schema.field("row"), pa.array(places[rows], pa.int64()))
        misfits = [Misfit(int(places[each["row"]]), *list(each.values())[1:]) for each in errors.to_pylist()]
        identity = self._scorer.bundle.schema.id
        ids = _ids(one, decided, identity) if identity is not None or tell is not None else []
        if identity is not None:
            at, kind = decided.schema.get_field_index(identity), decided.schema.field(identity)
            decided = decided.set_column(at, kind, pa.array(ids, pa.string()))
        if tell is not None and len(rows):
            tell(ids, places[rows], basis)
        return self._with_kept(one, decided, batch, rows), sorted([*block.unread, *misfits])

    def _with_kept(self, one: Input, decided: pa.RecordBatch, batch: pa.RecordBatch, rows: Array) -> pa.RecordBatch:
        columns = dict(zip(decided.schema.names, decided.columns, strict=True))
        identity = self._scorer.bundle.schema.id
        for name in self._options.keep:
            if name not in batch.schema.names:
                raise RunError(f"{one.path}: no column `{name}` to keep")
            if name in columns and name != identity:
                raise RunError(f"--keep {name}: the output has a column of that name")
            columns[name] = batch.column(name).take(pa.array(rows))
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=self._schema(batch.schema))

    def _schema(self, given: pa.Schema) -> pa.Schema:
        kept = [given.field(name) for name in self._options.keep if name in given.names]
        own = self._scorer.schema
        return pa.schema([*own, *(field.remove_metadata() for field in kept if field.name not in own.names)])

    def _refuse(self, one: Input, errors: Sequence[Misfit], before: int) -> None:
        """Raise if there are more errors than the options allow."""
        most = self._options.most_errors
        if errors and self._options.on_error == "fail":
            raise RunError(f"{one.path}: row {_told(errors[0])}")
        if most is not None and before + len(errors) > most:
            last = _told(errors[-1])
            raise RunError(f"{one.path}: more than {most} rows cannot be decided; the last of them: row {last}")

    def _write_errors(self, output: str, errors: Sequence[Misfit]) -> str:
        name = f"{_ERRORS}/{PurePosixPath(output).with_suffix('.parquet')}"
        with self._out.whole(name) as stream:
            pq.write_table(pa.Table.from_batches([error_rows(errors)]), stream, compression="zstd")
        return name


def _ids(one: Input, decided: pa.RecordBatch, identity: str | None) -> list[str]:
    """The ids of decided rows; a row without one gets the input's name and its position."""
    places = decided.column("row").to_pylist()
    given = [None] * len(places) if identity is None else decided.column(identity).to_pylist()
    return [known or f"{one.relative}/{at}" for known, at in zip(given, places, strict=True)]


def _told(misfit: Misfit) -> str:
    field = f", field `{misfit.field}`" if misfit.field else ""
    return f"{misfit.record}{field}: expected {misfit.expected}, got {misfit.got}"


def _chosen(batch: pa.RecordBatch, condition: Condition, scorer: Scorer) -> pa.Array:
    """The positions of the rows that meet the condition."""
    table = pa.Table.from_batches([readable(batch, scorer.bundle.schema)])
    table = table.append_column(_PLACE, pa.array(np.arange(batch.num_rows)))
    try:
        return table.filter(condition.expression)[_PLACE].combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise RunError(f"--where: {error}") from error


def _inputs(source: Place, out: Place) -> list[Input]:
    """The files of a path, a folder or a pattern, by name, except those that begin with _ or `.`."""
    pattern = PurePosixPath(source.path)
    folder = pattern
    while any(sign in str(folder) for sign in "*?["):
        folder = folder.parent
    (info,) = source.files.get_file_info([str(folder)])
    if info.type == fs.FileType.File:
        return [_input(info, pattern.name)]
    found = source.files.get_file_info(fs.FileSelector(str(folder), recursive=True, allow_not_found=True))
    inputs = []
    for one in sorted(found, key=lambda each: str(each.path)):
        relative = PurePosixPath(one.path).relative_to(folder)
        ours = out.files == source.files and PurePosixPath(one.path).is_relative_to(out.path)
        matches = folder == pattern or fnmatch(one.path, str(pattern))
        if one.type == fs.FileType.File and format_of(one.path) and matches and not is_hidden(relative) and not ours:
            inputs.append(_input(one, str(relative)))
    return inputs


def _input(info: fs.FileInfo, relative: str) -> Input:
    if format_of(info.path) is None:
        raise RunError(f"{info.path}: expected a file that ends in {_ENDINGS}")
    return Input(info.path, relative, info.size, info.mtime_ns or 0)


def _output(one: Input, digest: str, options: Options) -> str:
    """The name of an input's output, which changes with the input, the bundle and the options."""
    kind = options.format or str(format_of(one.path))
    answers = msgspec.structs.replace(options, on_error="fail", most_errors=None)
    content = msgspec.json.encode([one.path, one.size, one.modified, digest, answers])
    path = PurePosixPath(one.relative)
    stem = path.name.partition(".")[0]
    name = f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}{FORMATS[kind][0]}"
    return str(path.with_name(name))


def _now(options: Options, begun: Record | None) -> float:
    if options.now is not None:
        return options.now
    return begun.now if begun is not None else datetime.now(UTC).timestamp()


def _record(scorer: Scorer, options: Options, now: float, finished: list[Finished], logging: _Logging | None) -> Record:
    manifest = scorer.bundle.manifest
    return Record(
        manifest.name,
        manifest.version,
        scorer.bundle.digest,
        __version__,
        manifest.libraries,
        options,
        now,
        sum(one.rows for one in finished),
        sum(one.errors for one in finished),
        finished,
        logging.time if logging else 0.0,
    )


def _read(out: Place, name: str) -> Record | None:
    content = out.patiently(lambda: out.read(name))
    try:
        return None if content is None else msgspec.json.decode(content, type=Record)
    except msgspec.MsgspecError as error:
        raise RunError(f"{out.below(name)}: not written by this version of tabserve: {error}") from error


def _write(out: Place, name: str, record: Record) -> None:
    def write() -> None:
        with out.whole(name) as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")

    out.patiently(write)


def _finish(out: Place, record: Record, before: Record | None) -> Record:
    """Remove replaced outputs, list those of earlier runs, and mark the run as finished."""
    again = {one.input for one in record.inputs}
    earlier = before.inputs if before else []
    record = msgspec.structs.replace(
        record, inputs=[*(one for one in earlier if one.input not in again), *record.inputs]
    )
    if before is not None and before.inputs == record.inputs:
        record = before  # there was nothing to do
    kept = {name for one in record.inputs for name in (one.output, one.errors_in)}
    for name in {name for one in earlier for name in (one.output, one.errors_in)} - kept - {None}:
        out.patiently(partial(out.remove, str(name)))
    _write(out, DONE, record)
    out.patiently(lambda: out.remove(PROGRESS))
    out.patiently(out.clear)
    return record
