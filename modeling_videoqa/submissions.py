"""Files of predictions: our own, a line for each question, and those that the official scripts and servers take.

Everything is checked before anything is written, and a file appears whole or not at all. The qids of the tables are
text, those of the official files whole numbers; the writers and readers here turn one into the other.
"""

import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .files import write_whole
from .metrics import check_prediction

Predictions = Mapping[str, Mapping[str, Any]]
Questions = Iterable[Mapping[str, Any]]

PREDICTION_KEYS = ("label", "probabilities", "start", "end", "evidence")
TVQA_SPLITS = ("val", "test_public")
# What meta.json of TVQA's test server holds: text, but for the flags. "with_ts": the annotated moments were an input.
TVQA_META_FLAGS = ("is_ensemble", "with_ts", "show_on_leaderboard")
TVQA_META_TEXTS = ("author", "institution", "description", "paper_link", "code_link")
TVQA_META_KEYS = ("model_name", *TVQA_META_FLAGS, *TVQA_META_TEXTS)
MAX_MEMBER_BYTES = 64 * 2**20  # of a file in a zip, unpacked; the largest official one has some 200 kB


def write_predictions(path: str | os.PathLike, predictions: Predictions) -> Path:
    """Write predictions as JSON lines: `{"qid": str, "label": int, "probabilities": [float], "start": float, ...}`.

    Args:
        path: of the file; the folder is made, and an older file is replaced as a whole.
        predictions: by qid, with the keys "label" and, where they are known, "probabilities", "start", "end" (seconds)
            and "evidence" (sentences), as `predict` gives them. numpy's numbers will do.

    Returns:
        The path.

    Raises:
        ValueError: a qid is not a str, a key is missing or unknown, or a value is nothing that JSON can hold, such as
            NaN. No file is written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_predictions(f"{folder}/predictions.jsonl", {"7": {"label": 1, "start": 0.5, "end": 2.0}})
        ...     path.read_text()
        '{"qid": "7", "label": 1, "start": 0.5, "end": 2.0}\\n'
    """
    lines = []
    for qid, prediction in predictions.items():
        where = f"prediction for qid {qid!r}"
        if not isinstance(qid, str):
            raise ValueError(f"{where}: the qid is of type {type(qid).__name__}. A str is allowed: pass str(qid).")
        _check_keys(prediction, where)
        try:
            line = json.dumps({"qid": qid, **prediction}, allow_nan=False, default=_plain)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{where}: {error}. Text, finite numbers, lists of them and None are allowed: convert the value, and "
                f"give None for an unknown time."
            ) from error
        lines.append(line + "\n")
    return write_whole(path, "".join(lines).encode())


def read_predictions(
    path: str | os.PathLike, questions: Questions, allow_missing: bool = False
) -> dict[str, dict[str, Any]]:
    """Read what `write_predictions` wrote, checked against the questions.

    Args:
        path: of the file.
        questions: rows of the table of questions, or the table itself.
        allow_missing: True lets questions be without a prediction.

    Returns:
        Predictions by qid, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is malformed, or a qid is unknown, repeated or missing; the message names file and line.

    Example:
        >>> import tempfile
        >>> rows = [{"qid": "7", "choices": ["a", "b"]}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_predictions(f"{folder}/predictions.jsonl", {"7": {"label": 1, "start": 0.5, "end": 2.0}})
        ...     read_predictions(path, rows)
        {'7': {'label': 1, 'start': 0.5, 'end': 2.0}}
    """
    rows, predictions, lines = {row["qid"]: row for row in questions}, {}, {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            record = _parsed(line, where, dict)
            qid = record.pop("qid", None)
            if not isinstance(qid, str) or qid not in rows:
                raise ValueError(
                    f"{where}: qid is {qid!r:.80}. One of the {len(rows)} questions' is allowed, as str: pass the "
                    f"questions that were predicted, or drop the line."
                )
            if qid in lines:
                raise ValueError(
                    f"{where}: qid {qid!r} was there before, in line {lines[qid]}. Each is allowed once: drop one of "
                    f"the two lines."
                )
            _check_keys(record, where)
            _check_values(record, rows[qid], where)
            predictions[qid], lines[qid] = record, number
    missing = [qid for qid in rows if qid not in predictions]
    if missing and not allow_missing:
        raise ValueError(
            f"{path}: {len(missing)} of {len(rows)} questions have no line, the first is qid {missing[0]!r}. Every "
            f"question needs one: predict all, or pass allow_missing=True."
        )
    return predictions


def write_tvqa_submission(
    path: str | os.PathLike,
    predictions: Mapping[str, Predictions],
    questions: Mapping[str, Questions],
    meta: Mapping[str, Any],
) -> Path:
    """Write the zip that TVQA's test server takes: `prediction_val.json`, `prediction_test_public.json`, `meta.json`.

    The server wants both splits; one alone is written too. The same input gives the same bytes.

    Args:
        path: of the zip; the folder is made, and an older file is replaced as a whole.
        predictions: `{"val": ..., "test_public": ...}`, each by qid with the key "label".
        questions: the tables of questions of the same splits.
        meta: exactly the keys of `TVQA_META_KEYS`: text, and bool for "is_ensemble", "with_ts" and
            "show_on_leaderboard".

    Returns:
        The path.

    Raises:
        ValueError: a split or a key is not what the server knows, or a prediction is missing, unknown or malformed. No
            file is written.

    Example:
        >>> import tempfile
        >>> meta = {key: key not in TVQA_META_FLAGS and "ours" for key in TVQA_META_KEYS}
        >>> rows = [{"qid": "137292", "choices": list("abcde")}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_tvqa_submission(
        ...         f"{folder}/a.zip", {"test_public": {"137292": {"label": 4}}}, {"test_public": rows}, meta
        ...     )
        ...     read_tvqa_submission(path)
        {'test_public': {'137292': {'label': 4}}}
    """
    if not predictions or predictions.keys() != questions.keys() or not predictions.keys() <= set(TVQA_SPLITS):
        raise ValueError(
            f"predictions are for {list(predictions)}, questions for {list(questions)}. The splits {list(TVQA_SPLITS)} "
            f"are allowed, the same in both: pass {{'val': ...}} for validation, {{'test_public': ...}} for test."
        )
    _check_meta(meta)
    members = {}
    for split in predictions:
        answers = _complete(predictions[split], questions[split], f"split {split!r}")
        members[f"prediction_{split}.json"] = {str(qid): label for qid, (label, _, _) in answers.items()}
    members["meta.json"] = {key: meta[key] for key in TVQA_META_KEYS}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)  # always of 1980: the same input gives the same bytes
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, json.dumps(content), zipfile.ZIP_DEFLATED)
    return write_whole(path, buffer.getvalue())


def read_tvqa_submission(path: str | os.PathLike) -> dict[str, dict[str, dict[str, int]]]:
    """Read the predictions of a zip for TVQA's test server.

    Args:
        path: of the zip.

    Returns:
        "val" and "test_public", where they are there -> qid -> `{"label": int}`, as `evaluate_predictions` takes them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such zip; the message names the file in it and the qid.

    Example: see `write_tvqa_submission`.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for split in TVQA_SPLITS:
                name = f"prediction_{split}.json"
                if name not in archive.namelist():
                    continue
                if (size := archive.getinfo(name).file_size) > MAX_MEMBER_BYTES:
                    raise ValueError(
                        f"{path}, {name}: {size} bytes. At most {MAX_MEMBER_BYTES} are allowed: check where the file "
                        f"is from."
                    )
                found[split] = _parsed(archive.read(name), f"{path}, {name}", dict)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        # Broken, with a password, or compressed in a way that is not known.
        raise ValueError(f"{path}: {error}. A readable zip is allowed: write the submission again.") from error
    if not found:
        raise ValueError(
            f"{path}: neither prediction_val.json nor prediction_test_public.json is there. At least one, in no "
            f"folder, is needed: put them at the top of the zip."
        )
    for split, labels in found.items():
        for qid, label in labels.items():
            _need_int(label, f"{path}, prediction_{split}.json, qid {qid!r}")
    return {split: {qid: {"label": label} for qid, label in labels.items()} for split, labels in found.items()}


def write_tvqa_plus_submission(path: str | os.PathLike, predictions: Predictions, questions: Questions) -> Path:
    """Write the file that TVQA+'s evaluation script takes, without boxes: `{"ts_answer": {...}, "raw_bbox": []}`.

    Args:
        path: of the file; the folder is made, and an older file is replaced as a whole.
        predictions: by qid, with the keys "label", "start" and "end" (seconds).
        questions: rows of the table of questions, or the table itself.

    Returns:
        The path.

    Raises:
        ValueError: a prediction is missing, unknown, malformed or without a span. No file is written.

    Example:
        >>> import tempfile
        >>> rows = [{"qid": "122039", "choices": list("abcde")}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     answer = {"122039": {"label": 3, "start": 0.5, "end": 2.0}}
        ...     path = write_tvqa_plus_submission(f"{folder}/submission.json", answer, rows)
        ...     path.read_text(), read_tvqa_plus_submission(path) == answer
        ('{"ts_answer": {"122039": [[0.5, 2.0], 3]}, "raw_bbox": []}', True)
    """
    answers = _complete(predictions, questions, "TVQA+")
    for qid, (_, start, end) in answers.items():
        if not (math.isfinite(start) and math.isfinite(end)):
            raise ValueError(
                f"prediction for qid '{qid}': the span is ({start}, {end}). Two finite numbers of seconds are needed: "
                f"take a model with a span head, or give the whole clip."
            )
    content = {str(qid): [[start, end], label] for qid, (label, start, end) in answers.items()}
    return write_whole(path, json.dumps({"ts_answer": content, "raw_bbox": []}).encode())


def read_tvqa_plus_submission(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Read answers and spans of a submission to TVQA+; boxes are passed over.

    Args:
        path: of the file.

    Returns:
        By qid, `{"label": int, "start": float, "end": float}`, as `evaluate_predictions` takes them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file; the message names the qid.

    Example: see `write_tvqa_plus_submission`.
    """
    answers = _parsed(Path(path).read_bytes(), path, dict).get("ts_answer")
    if not isinstance(answers, dict):
        raise ValueError(
            f"{path}, key 'ts_answer': {answers!r:.80} came. An object of [[start, end], label] by qid is allowed: "
            f"write it as write_tvqa_plus_submission does."
        )
    predictions = {}
    for qid, answer in answers.items():
        where = f"{path}, qid {qid!r}"
        span = answer[0] if isinstance(answer, list) and len(answer) == 2 else None
        if not isinstance(span, list) or len(span) != 2 or not all(type(time) in (int, float) for time in span):
            raise ValueError(
                f"{where}: {answer!r:.80} came. [[start, end], label] is allowed, times in seconds: correct it."
            )
        _need_int(answer[1], where)
        predictions[qid] = {"label": answer[1], "start": span[0], "end": span[1]}
    return predictions


def write_dramaqa_submission(path: str | os.PathLike, predictions: Predictions, questions: Questions) -> Path:
    """Write the list that DramaQA's evaluation script takes: `[{"correct_idx": int, "qid": int}]`, sorted by qid.

    Args:
        path: of the file; the folder is made, and an older file is replaced as a whole.
        predictions: by qid, with the key "label".
        questions: rows of the table of questions, or the table itself.

    Returns:
        The path.

    Raises:
        ValueError: a prediction is missing, unknown or malformed. No file is written.

    Example:
        >>> import tempfile
        >>> rows = [{"qid": "13041", "choices": list("abcde")}, {"qid": "3205", "choices": list("abcde")}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     answers = {"13041": {"label": 3}, "3205": {"label": 0}}
        ...     path = write_dramaqa_submission(f"{folder}/submission.json", answers, rows)
        ...     path.read_text(), read_dramaqa_submission(path) == answers
        ('[{"correct_idx": 0, "qid": 3205}, {"correct_idx": 3, "qid": 13041}]', True)
    """
    answers = _complete(predictions, questions, "DramaQA")
    content = [{"correct_idx": label, "qid": qid} for qid, (label, _, _) in answers.items()]
    return write_whole(path, json.dumps(content).encode())


def read_dramaqa_submission(path: str | os.PathLike) -> dict[str, dict[str, int]]:
    """Read a submission to DramaQA; of several entries with one qid the last one holds, as in the official script.

    Args:
        path: of the file.

    Returns:
        By qid, `{"label": int}`, as `evaluate_predictions` takes them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file; the message names the entry.

    Example: see `write_dramaqa_submission`.
    """
    predictions = {}
    for number, entry in enumerate(_parsed(Path(path).read_bytes(), path, list), start=1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or not entry.keys() >= {"qid", "correct_idx"}:
            raise ValueError(
                f"{where}: {entry!r:.80} came. {{'correct_idx': int, 'qid': int}} is allowed: correct the entry."
            )
        _need_int(entry["qid"], where)
        _need_int(entry["correct_idx"], where)
        predictions[str(entry["qid"])] = {"label": entry["correct_idx"]}
    return predictions


# --- checks


def _complete(predictions: Predictions, questions: Questions, where: str) -> dict[int, tuple[int, float, float]]:
    """Choice, start and end by official qid, sorted by it: for each question one, and for nothing else."""
    rows = {row["qid"]: row for row in questions}
    missing = [qid for qid in rows if qid not in predictions]
    unknown = [qid for qid in predictions if qid not in rows]
    if missing or unknown or not rows:
        first = f", the first is {(missing or unknown)[0]!r}" if missing or unknown else ""
        raise ValueError(
            f"{where}: {len(missing)} of {len(rows)} questions have no prediction, {len(unknown)} predictions are for "
            f"unknown questions{first}. Exactly one for each question is allowed: predict this whole split."
        )
    answers = {_official_qid(qid): check_prediction(predictions[qid], row) for qid, row in rows.items()}
    return dict(sorted(answers.items()))


def _official_qid(qid: str) -> int:
    if not (qid.isascii() and qid.isdecimal() and str(int(qid)) == qid):
        raise ValueError(
            f"qid {qid!r} came. The digits of a whole number are allowed, for official files have such qids: pass the "
            f"official questions."
        )
    return int(qid)


def _check_meta(meta: Mapping[str, Any]) -> None:
    if set(meta) != set(TVQA_META_KEYS):
        missing, unknown = set(TVQA_META_KEYS) - set(meta), set(meta) - set(TVQA_META_KEYS)
        raise ValueError(
            f"meta: missing keys {sorted(missing)}, unknown keys {sorted(map(str, unknown))}. Exactly "
            f"{list(TVQA_META_KEYS)} are allowed: add the missing ones ('' for nothing) and drop the others."
        )
    for key in TVQA_META_KEYS:
        kind = bool if key in TVQA_META_FLAGS else str
        if not isinstance(meta[key], kind):
            raise ValueError(
                f"meta, key {key!r}: {meta[key]!r:.80} came. A {kind.__name__} is allowed: convert the value."
            )


def _check_keys(prediction: Any, where: str) -> None:
    if not isinstance(prediction, Mapping) or "label" not in prediction:
        raise ValueError(
            f"{where}: {prediction!r:.80} came. A dictionary with the key 'label' is allowed: add it, or leave the "
            f"question out."
        )
    if unknown := [key for key in prediction if key not in PREDICTION_KEYS]:
        raise ValueError(
            f"{where}: unknown keys {unknown}. {list(PREDICTION_KEYS)} are allowed: rename or drop the others."
        )


def _check_values(prediction: dict[str, Any], row: Mapping[str, Any], where: str) -> None:
    try:
        check_prediction(prediction, row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    shares = prediction.get("probabilities")
    if shares is not None and not (
        isinstance(shares, list)
        and len(shares) == len(row["choices"])
        and all(isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1 for share in shares)
    ):
        raise ValueError(
            f"{where}: probabilities are {shares!r:.80}. {len(row['choices'])} numbers from 0 to 1 are allowed, one "
            f"for each choice: correct the line."
        )
    evidence = prediction.get("evidence")
    if evidence is not None and not (isinstance(evidence, list) and all(isinstance(text, str) for text in evidence)):
        raise ValueError(f"{where}: evidence is {evidence!r:.80}. A list of texts is allowed: correct the line.")


def _need_int(value: Any, where: str) -> None:
    # The official scripts compare strictly: "3" is never right.
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: {value!r:.80} came. A whole number is allowed, not its text: convert it.")


# --- files


def _parsed(text: bytes, where: Any, kind: type) -> Any:
    """JSON without NaN and infinity, of the kind that is asked for."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: no valid JSON ({error}). Correct it, or write the file again.") from error
    if not isinstance(value, kind):
        name = {dict: "object", list: "list"}[kind]
        raise ValueError(f"{where}: {value!r:.80} came. A JSON {name} is allowed: write the file again.")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__} came")
