"""Ask a question about a clip.

    python examples/ask.py --model runs/demo/model --video clip.mp4 --subtitles clip.srt \
        --question "What is named first ?" --choices lamp guitar jacket piano clock

Without --subtitles the track inside the video is read, where there is one. --model is a folder or a name on the Hub:
its weights are used, the code is the installed package's own.
"""

import argparse
import json
import shutil
from pathlib import Path

from common import model_name
from transformers import pipeline

import processing  # noqa: F401 (makes model, processor and pipeline known to transformers)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds: 65.25 is 01:05.2."""
    tenths = round(seconds * 10)
    return f"{tenths // 600:02d}:{tenths % 600 // 10:02d}.{tenths % 10}"


def show(question: str, choices: list[str], answer: dict) -> None:
    """What a person reads: a bar for each choice, where the answer is, and what is said there."""
    width = min(max(map(len, choices)), 60)
    room = max(shutil.get_terminal_size().columns - width - 14, 10)
    print(f"\n{question}\n")
    for number, (choice, score) in enumerate(zip(choices, answer["scores"], strict=True)):
        mark = ">" if number == answer["index"] else " "
        bar = "█" * round(score * min(room, 40))
        print(f" {mark} {choice:<{width}}  {score:6.1%}  {bar}")
    start, end = answer["span"]
    print(f"\nFrom {clock(start)} to {clock(end)}:")
    for line in answer["evidence"]:
        speaker = f"{line['speaker']}: " if line["speaker"] else ""
        print(f"   {clock(line['start'])}  {speaker}{line['text']}")
    if not answer["evidence"]:
        print("   nothing is said there")


def save_frames(frames: list[dict], folder: Path) -> None:
    """Pictures by time and weight: 00042.500s_0.731.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        frame["file"] = str(folder / f"{frame['time']:09.3f}s_{frame['weight']:.3f}.png")
        frame.pop("image").save(frame["file"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=model_name, help="folder, or name on the Hub")
    parser.add_argument("--video", help="video file")
    parser.add_argument("--subtitles", help=".srt or .vtt file, or a video with a subtitle track")
    parser.add_argument("--question", required=True)
    parser.add_argument("--choices", required=True, nargs="+")
    parser.add_argument("--device", help="such as cpu or cuda:0; default: the first accelerator there is")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.add_argument("--frames_dir", type=Path, help="write the frames that were looked at into this folder")
    args = parser.parse_args()
    try:
        qa = pipeline("video-question-answering", model=args.model, device=args.device)
        answer = qa(
            video=args.video, subtitles=args.subtitles, question=args.question, choices=args.choices,
            return_frames=args.frames_dir is not None,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        raise SystemExit(f"{error}") from error
    if args.frames_dir is not None:
        save_frames(answer["frames"], args.frames_dir)
    if args.json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        show(args.question, args.choices, answer)


if __name__ == "__main__":
    main()
