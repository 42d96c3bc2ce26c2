"""A release: one folder with everything that others need, checked in a process without this package, pushed at once.

`stage_release` builds the folder, `check_release` loads it as a stranger would, `push_release` uploads it in a single
commit. What the card says is `card.py`'s.
"""

import inspect
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from transformers import AutoProcessor
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import cached_file

from .card import card_values, evaluation_results, is_hub_name, render_card
from .configuration_videoqa import VideoQAConfig
from .fresh_process import BLOCKED, TASK, answer
from .modeling_videoqa import VideoQAForMultipleChoice, VideoQAModel
from .pipeline_videoqa import VideoQAPipeline

logger = logging.getLogger(__name__)

NEEDED = ("README.md", "LICENSE", "config.json", "processor_config.json")
RESULTS = ".eval_results/videoqa.yaml"
SUFFIXES = (".json", ".safetensors", ".jinja", "_videoqa.py")
TOKENIZER_FILES = ("vocab.txt", "merges.txt", "spm.model", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # pickle protocols, and torch's zip
SECONDS = 600  # for the fresh process


def stage_release(
    model_dir: str | PathLike,
    output_dir: str | PathLike,
    *,
    template: str | PathLike,
    license_file: str | PathLike,
    processor=None,
    twin: str | PathLike | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Path:
    """
    Build the folder that goes to the Hub: weights, config, processor, tokenizer, flat custom code, card, results.

    Args:
        model_dir (`str` or `Path`): Folder of a run: model, processor, and for the card what `card_values` reads.
        output_dir (`str` or `Path`): The new folder; it appears whole or not at all.
        template (`str` or `Path`): Template of the card, see `render_card`.
        license_file (`str` or `Path`): Text of the licence.
        processor ([`VideoQAProcessor`](processing), *optional*): Default: the one in `model_dir`, by `AutoProcessor`.
        twin (`str` or `Path`, *optional*): Folder or `metrics.json` of the question-only twin.
        fields (`dict`, *optional*): What only the author knows, see `card.GIVEN_FIELDS`.

    Returns:
        `Path` of the folder.

    Raises:
        FileExistsError: `output_dir` is there and not empty.
        FileNotFoundError: there is no such run, or no licence.
        ValueError: there is no processor, or the card cannot be filled.

    Example:

    ```python
    >>> import processing  # registers the processor
    >>> folder = stage_release(
    ...     "runs/demo/model", "release", template="model_card.md", license_file="LICENSE"
    ... )  # doctest: +SKIP
    >>> check_release(folder)  # doctest: +SKIP
    >>> push_release(folder, "me/mini")  # doctest: +SKIP
    ```
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(
            f"{output_dir} is there already, and not empty. Allowed: a new or an empty folder. Name another one, or "
            "remove it."
        )
    if not Path(model_dir).is_dir():
        raise FileNotFoundError(
            f"model_dir={str(model_dir)!r} is no folder. Allowed: the folder of a run, with model and processor, as "
            "examples/train.py leaves it. Correct the path."
        )
    if not Path(license_file).is_file():
        raise FileNotFoundError(
            f"license_file={str(license_file)!r} is no file. Allowed: the text of a licence. Pass the LICENSE of the "
            "repository of modeling-videoqa, or that of your weights."
        )
    processor = load_processor(model_dir) if processor is None else processor
    model = VideoQAForMultipleChoice.from_pretrained(model_dir)
    values = card_values(model_dir, model, twin, fields)
    card, results = render_card(template, values), evaluation_results(values)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f".{output_dir.name}.") as temporary:
        folder = Path(temporary) / "release"
        folder.mkdir()
        _save(model, processor, folder)
        for source in _sources(type(processor)):
            shutil.copyfile(source, folder / source.name)
        (folder / "README.md").write_text(card, encoding="utf-8")
        shutil.copyfile(license_file, folder / "LICENSE")
        if results:
            (folder / RESULTS).parent.mkdir()
            (folder / RESULTS).write_text(yaml.safe_dump(results, sort_keys=False), encoding="utf-8")
        release_files(folder)
        if output_dir.exists():
            output_dir.rmdir()
        os.replace(folder, output_dir)
    return output_dir


def load_processor(name: str | PathLike):
    """
    The processor that is saved beside a model.

    Args:
        name (`str` or `Path`): Folder, or name on the Hub.

    Returns:
        [`VideoQAProcessor`](processing).

    Raises:
        ValueError: there is none, or its class is not known because `processing` was not imported.

    Example:

    ```python
    >>> import processing  # registers the processor
    >>> load_processor("runs/demo/model").max_text_length  # doctest: +SKIP
    40
    ```
    """
    # Without the file transformers makes up a processor of default settings and a tokenizer of little but [UNK].
    found = cached_file(name, "processor_config.json", _raise_exceptions_for_missing_entries=False)
    if found is None:
        raise ValueError(
            f"{name} holds a model and no processor: processor_config.json is missing. Allowed: a folder or repository "
            "with both, as examples/train.py writes. Save it there with processor.save_pretrained(folder)."
        )
    processor = None
    try:
        processor, reason = AutoProcessor.from_pretrained(name, trust_remote_code=False), None
    except (ImportError, OSError, ValueError, KeyError) as error:
        reason = error
    if not hasattr(processor, "post_process_multiple_choice"):
        came = f"({reason})" if processor is None else f"but as a {type(processor).__name__}"
        raise ValueError(
            f"The processor of {name} could not be loaded {came}. Allowed: a processor of this package, with its "
            "tokenizer files, whose class is registered. Write `import processing` first, or hand it over as processor="
        ) from reason
    return processor


def release_files(folder: str | PathLike) -> dict[str, int]:
    """
    What a release consists of: everything in its folder, for anything that does not belong there is an error.

    Args:
        folder (`str` or `Path`): What `stage_release` built.

    Returns:
        `dict`: path in the folder -> bytes, sorted.

    Raises:
        ValueError: a file is missing, or there is one that is no part of a release, a link, or a pickle.

    Example:

    ```python
    >>> release_files("release")["config.json"]  # doctest: +SKIP
    2913
    ```
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    missing = [name for name in NEEDED if name not in files]
    if not any(name.endswith(".safetensors") for name in files):
        missing.append("model.safetensors")
    if missing:
        raise ValueError(
            f"{folder} has no {', '.join(missing)}. Allowed: a folder that stage_release built. Stage it again."
        )
    strange = [name for name, path in files.items() if path.is_symlink() or not _belongs(name) or _is_pickle(path)]
    if strange:
        raise ValueError(
            f"{folder} holds what is no part of a release: {', '.join(strange)}. Allowed: {', '.join(NEEDED)}, "
            f"{RESULTS}, *{', *'.join(SUFFIXES)} and the tokenizer's files, none of them a link or a pickle. Remove "
            "them, or stage the release again."
        )
    return {name: path.stat().st_size for name, path in files.items()}


def check_release(
    folder: str | PathLike, *, processor=None, reference: str | PathLike | None = None, example=None
) -> dict[str, Any]:
    """
    Load a release as somebody would who has never seen this package, and compare what it answers.

    A fresh process, offline and with empty caches, in which `modeling_videoqa` and `processing` cannot be imported,
    loads all Auto classes and the pipeline with `trust_remote_code=True` and answers a fixed batch. Here the same batch
    is answered by the package's own classes.

    Args:
        folder (`str` or `Path`): What `stage_release` built.
        processor ([`VideoQAProcessor`](processing), *optional*): Default: the one in `reference`.
        reference (`str` or `Path`, *optional*): Folder of the model to compare with. Default: the release itself.
        example (`dict`, *optional*): Arguments of one more call of the processor, to be compared too.

    Returns:
        `dict`: `classes`, which class each Auto class gave, and `answers`, as `fresh_process.answer` gives them.

    Raises:
        RuntimeError: the release cannot be loaded without the package, or answers differently.
        ValueError: the folder is no release, see `release_files`.

    Example:

    ```python
    >>> check_release("release")["classes"]["AutoProcessor"]  # doctest: +SKIP
    'transformers_modules.release.0f3a.processing_videoqa.VideoQAProcessor'
    ```
    """
    release_files(folder)
    reference = folder if reference is None else reference
    processor = load_processor(reference) if processor is None else processor
    model = VideoQAForMultipleChoice.from_pretrained(reference)
    expected = json.loads(json.dumps(answer(model, processor, example)))
    (found,) = answers_elsewhere([(Path(folder).resolve(), None)], example=example)
    told = found["answers"]
    for kind in expected | told:
        for what in ("batch", "logits", "answers"):
            own, other = (answers.get(kind, {}).get(what) for answers in (expected, told))
            if own is None or other is None or not _agree(own, other):
                raise RuntimeError(
                    f"The release {folder} does not answer as the model does: {what} of {kind!r} is {str(other)[:300]} "
                    f"there, {str(own)[:300]} here. Allowed: the same to 1e-4. Do not push it; stage it again, and see "
                    "whether its custom code is that of the installed package."
                )
    spoken = told["text"]["answers"][0]["answer"]
    if found.get("pipeline") != spoken:
        raise RuntimeError(
            f"The pipeline of the release {folder} answers {found.get('pipeline')!r}, its model {spoken!r}. Allowed: "
            "the same. Do not push it; see custom_pipelines in its config.json."
        )
    return found


def answers_elsewhere(
    releases: Sequence[tuple[str | PathLike, str | None]], *, offline: bool = True, example=None
) -> list[dict[str, Any]]:
    """
    What releases answer in a fresh process that cannot import this package.

    Args:
        releases (`Sequence[tuple[str, str]]`): Folder or name on the Hub, and revision or `None`, of each.
        offline (`bool`): Refuse the network, with empty caches. Otherwise the caches are those of the environment.
        example (`dict`, *optional*): Arguments of one more call of the processor, as JSON can hold them.

    Returns:
        `list[dict]`: for each, `answers`, `classes`, and `pipeline`, what the pipeline answers to the first question.

    Raises:
        RuntimeError: the process failed, or did import this package; the message ends with what it said.

    Example:

    ```python
    >>> answers_elsewhere([("me/mini", None)], offline=False)[0]["pipeline"]  # doctest: +SKIP
    'Ann'
    ```
    """
    with tempfile.TemporaryDirectory() as temporary:
        job, out = Path(temporary) / "job.json", Path(temporary) / "found.json"
        named = [(str(name), revision) for name, revision in releases]
        job.write_text(json.dumps({"releases": named, "example": example}), encoding="utf-8")
        environment = os.environ | {"HF_MODULES_CACHE": f"{temporary}/modules", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        if offline:
            empty = {"HF_HOME": temporary, "HF_HUB_CACHE": f"{temporary}/hub", "HF_HUB_OFFLINE": "1"}
            environment |= empty | {"TRANSFORMERS_OFFLINE": "1"}
        command = [sys.executable, "-I", str(Path(inspect.getfile(answer)).resolve()), str(job), str(out)]
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=temporary,
                timeout=SECONDS,
                capture_output=True,
                text=True,
                errors="replace",
            )
            said, failed = done.stderr.strip(), done.returncode != 0
        except subprocess.TimeoutExpired as error:
            said, failed = f"no answer within {error.timeout:.0f} seconds", True
        if failed:
            raise RuntimeError(
                f"{', '.join(name for name, _ in named)} could not be used without this package. Allowed: custom code "
                "that needs nothing but what it travels with and the packages it imports. Do not push it before the "
                f"reason is gone:\n{said[-3000:]}"
            )
        told = json.loads(out.read_text(encoding="utf-8"))
    if told["imported"]:
        raise RuntimeError(
            f"The fresh process imported {', '.join(told['imported'])}. Allowed: none of {' and '.join(BLOCKED)}. The "
            "check would prove nothing; see what imports them."
        )
    return told["found"]


def push_release(
    folder: str | PathLike,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """
    Upload a release in one commit: a repository that exists holds the old release or the new one, nothing between.

    Files of an older release that this one does not have are removed by the same commit; others, such as pictures of
    the card, stay. An unfinished upload is gone on with when the command is given again.

    Args:
        folder (`str` or `Path`): What `stage_release` built and `check_release` passed.
        repo_id (`str`): `user/name`; it is made where it does not exist.
        private (`bool`): Of a new repository. One that exists stays as visible as it is.
        revision (`str`, *optional*): Branch, made where it does not exist. Default: `main`.
        message (`str`, *optional*): Of the commit.
        token (`str`, *optional*): Default: the one of `hf auth login` or of `HF_TOKEN`.

    Returns:
        `huggingface_hub.CommitInfo`, with `commit_url` and `oid`.

    Raises:
        PermissionError: there is no token, or it may not write there.
        ConnectionError: the upload failed; the repository is as it was.
        ValueError: the folder is no release, or the name is none.

    Example:

    ```python
    >>> push_release("release", "me/mini", message="Three seeds, the best of them").oid  # doctest: +SKIP
    '9f2c...'
    ```
    """
    files = release_files(folder)
    if repo_id.count("/") != 1:
        raise ValueError(f"repo_id={repo_id!r}. Allowed: user/name, or organisation/name. Pass such a name.")
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        info = api.model_info(repo_id, revision=revision)
        if private and info.private is False:
            logger.warning("%s exists and is public: what is pushed there is public too.", repo_id)
        there = [sibling.rfilename for sibling in info.siblings or ()]
        stale = [name for name in there if name not in files and _is_stale(name)]
        operations: Iterable = [
            *(CommitOperationAdd(name, str(Path(folder) / name)) for name in files),
            *(CommitOperationDelete(name) for name in stale),
        ]
        return api.create_commit(
            repo_id,
            operations,
            commit_message=message or "Release of a modeling-videoqa model",
            revision=revision,
            parent_commit=info.sha,  # somebody else's commit in the meantime is an error, not half undone
        )
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        response = getattr(error, "response", None)
        code = None if response is None else response.status_code
        if code in (None, 401, 403):
            raise PermissionError(
                f"The Hub does not let this token write to {repo_id} ({_first_line(error)}). Allowed: a token with "
                "write access to that user or organisation. Log in with `hf auth login`, or set HF_TOKEN."
            ) from error
        raise _interrupted(repo_id, error) from error
    except ValueError:  # a name or a header that the Hub does not take: it says what is wrong
        raise
    except Exception as error:  # the network, or an upload that failed in its thread
        raise _interrupted(repo_id, error) from error


def _interrupted(repo_id: str, error: Exception) -> ConnectionError:
    return ConnectionError(
        f"The push to {repo_id} failed ({_first_line(error)}). {repo_id} holds what it held before, for all files come "
        "with one commit. Allowed: pushing again; what is uploaded already is not sent again. Give the same command."
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _save(model, processor, folder: Path) -> None:
    """Weights, config, processor and tokenizer, with where their classes are."""
    config = model.config
    for part in (config.text_config, config.vision_config):
        name = getattr(part, "_name_or_path", None)
        if name and not is_hub_name(name):
            part._name_or_path = ""  # a folder of this machine is nobody's business
    classes = {
        "AutoConfig": VideoQAConfig,
        "AutoModel": VideoQAModel,
        "AutoModelForMultipleChoice": VideoQAForMultipleChoice,
        "AutoProcessor": type(processor),
    }
    config.auto_map = {kind: _place(one) for kind, one in classes.items()}
    implementation = {"impl": _place(VideoQAPipeline), "pt": ["AutoModelForMultipleChoice"], "type": "multimodal"}
    config.custom_pipelines = {TASK: implementation}
    model.save_pretrained(folder, save_original_format=False)  # the names of this model, whatever it came from
    processor.save_pretrained(folder)
    path = folder / "processor_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["auto_map"] = {"AutoProcessor": config.auto_map["AutoProcessor"]}
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _place(one: type) -> str:
    return f"{Path(inspect.getfile(one)).stem}.{one.__name__}"


def _sources(processor_class: type) -> list[Path]:
    """The files of all classes that are pushed, and what they import from their folders."""
    found: dict[str, Path] = {}
    for one in (VideoQAConfig, VideoQAModel, VideoQAForMultipleChoice, VideoQAPipeline, processor_class):
        file = inspect.getfile(one)
        for path in map(Path, [file, *get_relative_import_files(file)]):
            other = found.setdefault(path.name, path)
            if other != path and other.read_bytes() != path.read_bytes():
                raise ValueError(
                    f"{path} and {other} have one name, and travel in one folder. Allowed: names of their own. Rename "
                    "one of the files."
                )
    return [found[name] for name in sorted(found)]


def _belongs(name: str) -> bool:
    is_top = "/" not in name and not name.startswith(".")
    return name in NEEDED or name == RESULTS or (is_top and (name.endswith(SUFFIXES) or name in TOKENIZER_FILES))


def _is_stale(name: str) -> bool:
    """Whether a file of the repository is of an older release: weights, settings, code or results."""
    return _belongs(name) or ("/" not in name and name.endswith((".bin", ".index.json")))


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(PICKLES)


def _agree(one, other) -> bool:
    """Equal, but for the last digits of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_agree(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-4, atol=1e-4))
    return one == other
