"""Frame features, and object labels if wanted, of all videos in a folder.

    python examples/extract_features.py my_clips --output_dir features
    accelerate launch --num_processes 4 examples/extract_features.py my_clips --output_dir features \
        --detector PekingU/rtdetr_r18vd --objects_dir objects

A clip's name is its file's, without the suffix. A run that was stopped goes on when it is started again; several
processes, here or on several machines with one folder, take their shares (without GPUs: `torchrun` instead of
`accelerate launch`, which starts one process then). Clips that cannot be decoded are named and
skipped, and the exit code is then 1.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoModel, AutoModelForObjectDetection

# Its own module: in older versions the name in `transformers` asks for torchvision, which nothing here needs.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from modeling_videoqa.training import native_bf16
from processing import FeatureStore, extract_features, extract_objects
from processing.extraction import find_clips
from processing.features import write_tvqa_h5
from processing.video_videoqa import VIDEO_SUFFIXES


def load(auto_class, name: str, revision: str | None):
    """A model and its image processor. Those that need no torchvision serve where it is missing."""
    model = auto_class.from_pretrained(name, revision=revision)
    return model, AutoImageProcessor.from_pretrained(name, revision=revision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", help=f"folder with {', '.join(VIDEO_SUFFIXES)} files, or folders of them")
    parser.add_argument("--output_dir", required=True, help="the feature store")
    parser.add_argument("--backbone", default="microsoft/resnet-101", help="folder, or name on the Hub")
    parser.add_argument("--revision", help="of the backbone on the Hub")
    parser.add_argument("--frame_rate", type=float, default=3.0, help="frames a second")
    parser.add_argument("--batch_size", type=int, default=32, help="frames that go through the model together")
    parser.add_argument("--num_workers", type=int, help="decoding processes; default: the cores, at most four")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds in which a decoder has to give a picture")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--detector", help="object detection model; with --objects_dir")
    parser.add_argument("--objects_dir", help="the store of object labels")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score of a box")
    parser.add_argument("--label_map", help="JSON file: the detector's name -> the word to use, or null")
    parser.add_argument("--h5", help="write the features in TVQA's own layout too")
    args = parser.parse_args()
    if (args.detector is None) != (args.objects_dir is None):
        parser.error("--detector and --objects_dir belong together: give both or neither.")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    state = PartialState(cpu=not torch.cuda.is_available())
    clips = find_clips(args.videos, VIDEO_SUFFIXES)
    # By the names alone, so that every process knows its share however far the others are.
    share = dict(list(clips.items())[state.process_index :: state.num_processes])
    dtype = None if args.dtype == "float32" else getattr(torch, args.dtype, None)
    if args.dtype == "auto" and native_bf16():
        dtype = torch.bfloat16
    options = {
        "frame_rate": args.frame_rate, "batch_size": args.batch_size, "num_workers": args.num_workers,
        "timeout": args.timeout, "device": state.device, "dtype": dtype, "progress": state.is_local_main_process,
    }  # fmt: skip
    done = extract_features(share, *load(AutoModel, args.backbone, args.revision), args.output_dir, **options)
    failed = dict(done.failed)
    if args.detector:
        label_map = json.loads(Path(args.label_map).read_text(encoding="utf-8")) if args.label_map else None
        model, images = load(AutoModelForObjectDetection, args.detector, None)
        sound = {clip_id: path for clip_id, path in share.items() if clip_id not in failed}
        done = extract_objects(sound, model, images, args.objects_dir, args.threshold, label_map, **options)
        failed |= done.failed
    state.wait_for_everyone()
    if args.h5 and state.is_main_process:
        write_tvqa_h5(FeatureStore(args.output_dir), args.h5)
    print(f"{len(share) - len(failed)} clips of {len(share)} are in {args.output_dir}; {len(failed)} failed.")
    if failed:
        raise SystemExit("\n".join(f"{clip_id}: {reason}" for clip_id, reason in failed.items()))


if __name__ == "__main__":
    main()
