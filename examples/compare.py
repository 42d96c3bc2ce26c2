"""What two or more models answer to the same questions, and where they look: one page, Figure 4 of the paper.

    python examples/compare.py --data tvqa_plus --data_dir tvqa_plus --output figure4.html --qids 127437 127440 \
        --predictions "without CL=runs/a/predictions.jsonl" "with CL=runs/b/predictions.jsonl"

Without `--qids`: the questions that the last model answers and the first does not, as many as `--count`.
"""

import argparse

from common import frames_of, subtitles_of

from modeling_videoqa.report import write_comparison
from modeling_videoqa.submissions import read_predictions
from processing import load_videoqa


def gained(first: dict, last: dict, questions) -> list[str]:
    """The questions that the second of two models answers and the first does not."""

    def is_right(predictions: dict, row: dict) -> bool:
        return row["label"] is not None and predictions.get(row["qid"], {}).get("label") == row["label"]

    return [row["qid"] for row in questions if is_right(last, row) and not is_right(first, row)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--predictions", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--qids", nargs="+")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--videos", help="folder of the clips, for pictures")
    parser.add_argument("--output", default="figure4.html")
    args = parser.parse_args()
    if not all("=" in entry for entry in args.predictions):
        parser.error(f"--predictions {args.predictions}. Allowed: NAME=FILE. Put a name before each file.")
    data = load_videoqa(args.data, args.data_dir, splits=(args.split,), objects=False)
    questions = data.questions[args.split]
    files = dict(entry.split("=", 1) for entry in args.predictions)
    models = {name: read_predictions(file, questions, allow_missing=True) for name, file in files.items()}
    answers = list(models.values())
    qids = args.qids or gained(answers[0], answers[-1], questions)[: args.count]
    if not qids:
        raise SystemExit(
            "There is no question that the last model answers and the first does not. Allowed: two models of which "
            "that holds, or --qids. Name the questions to show."
        )
    page = write_comparison(
        args.output,
        models,
        questions,
        qids,
        subtitles=subtitles_of(data),
        frames=frames_of(args.videos) if args.videos else None,
    )
    print(page)


if __name__ == "__main__":
    main()
