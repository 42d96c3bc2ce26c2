"""What a model answers to a fixed batch; as a script, in a process that cannot import this package.

    python -I fresh_process.py job.json found.json

`hub.check_release` compares the two. Nothing is imported from the package here, nor anything else that may import it
before it is refused.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BLOCKED = ("modeling_videoqa", "processing")
TASK = "video-question-answering"
# Two clips of unlike length, ties of time, a sentence without words of its own, choices of one and of several tokens.
QUESTIONS = ["Who took the red cup from the table?", "Why does Ann open the door?"]
CHOICES = [
    ["Ann", "Ben", "the neighbour", "nobody took it", "the man in the blue coat"],
    ["to leave", "because somebody knocks", "to let the cat in", "she is cold", "she does not"],
]
SUBTITLES = [
    [
        {"start": 0.5, "end": 2.0, "speaker": "Ann", "text": "Where is my red cup?"},
        {"start": 2.0, "end": 3.5, "speaker": "Ben", "text": "I took it from the table."},
        {"start": 5.25, "end": 6.0, "speaker": "", "text": "..."},
    ],
    [{"start": 1.0, "end": 4.0, "speaker": "Ann", "text": "Somebody is knocking, I will open the door."}],
]


def answer(model, processor, example: Mapping[str, Any] | None = None) -> dict[str, dict]:
    """
    What a model makes of the fixed batch, in every kind of input that its processor takes.

    Args:
        model ([`VideoQAForMultipleChoice`]): The model, or the same class loaded as custom code.
        processor ([`VideoQAProcessor`](processing)): Its processor, or the same class loaded as custom code.
        example (`dict`, *optional*): Arguments of one more call of the processor, with one question.

    Returns:
        `dict`: for `"text"`, where there is a visual half `"features"` or `"frames"`, and `"example"`, a dict that JSON
        can hold with `batch` (key -> SHA-256 of the tensor), `logits` and `answers`.

    Example:

    ```python
    >>> answer(model, processor)["text"]["answers"][0]["index"]  # doctest: +SKIP
    1
    ```
    """
    import torch

    found = {}
    for kind, call in _calls(processor, example).items():
        batch = processor(**call)
        with torch.inference_mode():
            outputs = model.eval()(**batch.to(model.device))
        answers = processor.post_process_multiple_choice(outputs, batch, call["choices"], call.get("subtitles"))
        found[kind] = {
            "batch": {key: hashlib.sha256(value.cpu().numpy().tobytes()).hexdigest() for key, value in batch.items()},
            "logits": outputs.logits.float().tolist(),
            "answers": [vars(told) | {"evidence": [list(line) for line in told.evidence]} for told in answers],
        }
    return found


def _calls(processor, example: Mapping[str, Any] | None) -> dict[str, dict]:
    import numpy as np

    text = {"question": QUESTIONS, "choices": CHOICES, "subtitles": SUBTITLES}
    calls: dict[str, dict] = {"text": text}
    times = np.arange(8) * 0.9
    clips = np.arange(len(QUESTIONS))[:, None]
    if processor.frame_preprocessing is not None:
        waves = np.sin(np.arange(64 * 48 * 3) * 0.01 + np.arange(8)[:, None]).reshape(8, 48, 64, 3)
        pictures = (127 * (1 + waves)).astype(np.uint8)
        calls["frames"] = text | {"frames": [pictures, pictures[::-1]], "frame_times": [times] * 2}
    elif processor.video_feature_size is not None:
        rows = np.sin(np.arange(8 * processor.video_feature_size) * 0.7 + clips).astype(np.float32)
        rows = rows.reshape(len(QUESTIONS), 8, processor.video_feature_size)
        calls["features"] = text | {"video_features": list(rows), "frame_times": [times] * 2}
    if example is not None:
        calls["example"] = dict(example)
    return calls


class _Refused:
    """A finder before all others: the packages cannot be imported, however they are installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r} (refused in this process)", name=name)
        return None


def _load_and_answer(name: str, revision: str | None, example) -> dict:
    from transformers import AutoConfig, AutoModel, AutoModelForMultipleChoice, AutoProcessor, pipeline

    options = {"trust_remote_code": True, "revision": revision}
    config = AutoConfig.from_pretrained(name, **options)
    processor = AutoProcessor.from_pretrained(name, **options)
    model = AutoModelForMultipleChoice.from_pretrained(name, **options)
    base = AutoModel.from_pretrained(name, **options)
    loaded = {"AutoConfig": config, "AutoProcessor": processor, "AutoModelForMultipleChoice": model, "AutoModel": base}
    found = {"answers": answer(model, processor, example)}
    if getattr(config, "custom_pipelines", None):
        qa = pipeline(TASK, model=name, **options)
        told = qa(question=QUESTIONS[0], choices=CHOICES[0], subtitles=SUBTITLES[0])
        found["pipeline"] = dict(told[0] if isinstance(told, list) else told)["answer"]
        loaded["pipeline"] = qa
    found["classes"] = {kind: f"{type(one).__module__}.{type(one).__name__}" for kind, one in loaded.items()}
    return found


def main() -> None:
    """Do the job in the file that the first argument names, and write what was found into the second."""
    sys.meta_path.insert(0, _Refused())
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = [_load_and_answer(name, revision, job["example"]) for name, revision in job["releases"]]
    imported = sorted(name for name in sys.modules if name.partition(".")[0] in BLOCKED)
    Path(sys.argv[2]).write_text(json.dumps({"found": found, "imported": imported}), encoding="utf-8")


if __name__ == "__main__":
    main()
