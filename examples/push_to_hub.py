"""Put a trained model on the Hub: one folder with weights, code, pipeline, card and results, checked before it goes.

    python examples/push_to_hub.py --model runs/tvqa_plus/full/seed_0 --repo_id me/videoqa-tvqa-plus --dry_run
    python examples/push_to_hub.py --model runs/tvqa_plus/full/seed_0 --repo_id me/videoqa-tvqa-plus \
        --twin runs/tvqa_plus/question_only/seed_0 --card_fields card.yaml

A new repository is private unless `--public` is given. The release is loaded offline in a process that cannot import
this package, and its answers are compared, before anything is sent. Everything goes in one commit: an existing
repository holds the old release or the new one. The token is that of `hf auth login` or of HF_TOKEN. `--card_fields` is
a YAML file of what only you know: the keys are those of `modeling_videoqa.card.GIVEN_FIELDS`.
"""

import argparse
import logging
import tempfile
from pathlib import Path

from common import read_yaml

import processing  # noqa: F401 (registers the processor)
from modeling_videoqa.hub import check_release, push_release, release_files, stage_release

ROOT = Path(__file__).resolve().parents[1]


def repo_name(name: str) -> str:
    """A name on the Hub; a dry run is to stop at what a push would stop at."""
    if name.count("/") != 1 or not all(name.split("/")):
        raise SystemExit(f"--repo_id {name}. Allowed: user/name, or organisation/name. Pass such a name.")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a run of train.py: model, processor, metrics")
    parser.add_argument("--repo_id", required=True, type=repo_name, help="user/name on the Hub")
    parser.add_argument("--dry_run", action="store_true", help="stage and check, tell what would go, send nothing")
    parser.add_argument("--revision", help="branch to push to, made where there is none; default: main")
    parser.add_argument("--message", help="of the commit")
    parser.add_argument("--public", action="store_true", help="let everybody see a new repository")
    parser.add_argument("--card_fields", help="YAML file with more for the card")
    parser.add_argument("--twin", help="run of the question-only twin, whose accuracy stands beside the model's")
    parser.add_argument("--output_dir", help="keep the release in this folder")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    fields = read_yaml(args.card_fields, "fields of the card") if args.card_fields else {}
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = stage_release(
                args.model,
                args.output_dir or Path(temporary) / args.repo_id.rpartition("/")[2],
                template=ROOT / "model_card.md",
                license_file=ROOT / "LICENSE",
                twin=args.twin,
                fields={"repo_id": args.repo_id} | fields,
            )
            files = release_files(folder)
            for name, size in files.items():
                print(f"{size:>14,}  {name}")
            print(f"{sum(files.values()):>14,}  bytes in {len(files)} files, for {args.repo_id}")
            check_release(folder, reference=args.model)
            print("Loaded without this package, it answers as the model does.")
            if args.dry_run:
                print("Nothing was sent: --dry_run.")
                return
            commit = push_release(
                folder, args.repo_id, private=not args.public, revision=args.revision, message=args.message
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise SystemExit(str(error)) from error
    print(f"Pushed: {commit.commit_url}")


if __name__ == "__main__":
    main()
