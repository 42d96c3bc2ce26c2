"""The text encoder on one GPU: each fast way against the plain padded way and the GPU's own matrix product.

    python benchmarks/gpu.py                                                # under 8 minutes on one GPU
    python benchmarks/gpu.py --device cpu --encoders tiny --batches 1 2     # a try anywhere, of the script alone

Training steps and inference in bfloat16 on TVQA-shaped batches (and inference on short ones): blocks of nearly equal
rows, rows end to end through `torch.nn.attention.varlen`, and that compiled. Batches grow from 8 questions until the
memory or the speed ends; `plain` is the batch of 40 x 80 rows a choice through the whole encoder with sdpa, at 8
questions or as many as fit. `mfu` is the encoder's work on valid tokens over the time over the rate of a matrix product
measured beside it, `mfu_needed` counts of the last layer only its first token. The table comes last, and with it how
long the paper's TVQA recipe (4 epochs of 122,039 questions) would take at the best batch, and how many loader workers
keep it fed.
"""

import argparse
import json
import time
from pathlib import Path
from types import MethodType

import torch
from encoding import (
    ENCODERS,
    encoder_work,
    for_inference,
    make_batch,
    make_model,
    make_plain,
    matrix_product_rate,
    pad_as_the_paper,
    row_lengths,
    seconds,
    training_step,
    tuned_parameters,
    versions,
)

OUTPUT = Path(__file__).parent / "results" / "gpu.json"
TVQA_QUESTIONS, EPOCHS = 122_039, 4
WAYS = ("plain", "blocks", "end to end", "compiled")
COLUMNS = {
    "encoder": "{}", "case": "{}", "way": "{}", "batch": "{}", "questions_per_s": "{:.1f}",
    "valid_tokens_per_s": "{:.0f}", "mfu": "{:.2f}", "mfu_needed": "{:.2f}", "peak_mb": "{:.0f}", "ratio": "{:.2f}",
}  # fmt: skip


def make_way(way: str, encoder: str, device: str, training: bool):
    """The model of one way."""
    model = make_model(encoder).to(device).train(training)
    if way == "plain":
        return make_plain(model)
    if way == "blocks":
        model.model.takes_rows_end_to_end = MethodType(lambda self: False, model.model)
    elif way == "compiled":
        model.model.text_encoder.compile(dynamic=True)
    return model


def measure(way: str, encoder: str, device: str, shape: str, questions: int, training: bool, steps: int) -> dict | None:
    """One row; `None` where the memory ends."""
    batch = make_batch(questions, shape)
    lengths = row_lengths(batch, training)
    batch = batch if training else for_inference(batch)
    batch = {name: value.to(device) for name, value in (pad_as_the_paper(batch) if way == "plain" else batch).items()}
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        model = make_way(way, encoder, device, training)
        call = (
            training_step(model, torch.optim.AdamW(tuned_parameters(model), lr=1e-5), batch)
            if training
            else lambda: model(**batch)
        )
        with torch.inference_mode(not training), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            for _ in range(2):
                call()
            taken = sorted(seconds(call) for _ in range(steps))[steps // 2]
    except torch.cuda.OutOfMemoryError:
        return None
    config = model.config.text_config
    peak = matrix_product_rate(
        config.hidden_size, config.intermediate_size, device, torch.bfloat16 if device == "cuda" else torch.float32
    )
    work = encoder_work(lengths, config, tuned=model.config.num_tuned_text_layers if training else 0)
    return {
        "encoder": encoder, "case": f"{'train' if training else 'inference'}-{shape}", "way": way, "batch": questions,
        "questions_per_s": questions / taken, "valid_tokens_per_s": float(lengths.sum()) / taken,
        "mfu": work["whole"] / taken / peak, "mfu_needed": work["needed"] / taken / peak,
        "peak_mb": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None,
        "matrix_product_tflops": peak / 1e12,
    }  # fmt: skip


def sweep(way: str, encoder: str, device: str, shape: str, training: bool, args: argparse.Namespace) -> list[dict]:
    """Rows of growing batches, until one does not fit or brings less than 3% more."""
    rows: list[dict] = []
    sizes = args.batches[:1] if way == "plain" else args.batches
    for size in sizes:
        if time.perf_counter() > args.deadline:
            print("(out of time: larger batches are left out)", flush=True)
            break
        row = measure(way, encoder, device, shape, size, training, args.steps)
        while row is None and way == "plain" and size > 1:  # what fits of it is what it can do
            size //= 2
            row = measure(way, encoder, device, shape, size, training, args.steps)
        if row is None:
            break
        rows.append(row)
        print(json.dumps(row), flush=True)
        if len(rows) > 1 and row["questions_per_s"] < 1.03 * rows[-2]["questions_per_s"]:
            break
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--encoders", nargs="+", default=["bert-base", "small"], choices=list(ENCODERS))
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=7.0, help="no larger batch is begun after so many")
    parser.add_argument("--loader_rate", type=float, default=150.0, help="questions a second and core; see loading.py")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("No GPU is here. Allowed: a machine with one, or --device cpu with a tiny encoder for a try.")
    args.deadline = time.perf_counter() + 60 * args.minutes
    # rows end to end need a GPU: on a CPU that way, and the compiled one, are blocks too and would say nothing new.
    ways = args.ways if args.device == "cuda" else [way for way in args.ways if way in ("plain", "blocks")]
    rows = []
    for encoder in args.encoders:
        for shape, training in (("tvqa", True), ("tvqa", False), ("short", False)):
            found = {way: sweep(way, encoder, args.device, shape, training, args) for way in ways}
            plain = max((row["questions_per_s"] for row in found.get("plain", [])), default=None)
            for row in (row for group in found.values() for row in group):
                rows.append(row | {"ratio": row["questions_per_s"] / plain if plain else None})
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"machine": {"device": name, **versions()}, "rows": rows}, indent=1) + "\n")
    print(f"\n{name}, {versions()}\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for row in rows:
        cells = (text.format(row[key]) if row[key] is not None else "" for key, text in COLUMNS.items())
        print(f"| {' | '.join(cells)} |")
    for encoder in args.encoders:
        training = [row for row in rows if row["encoder"] == encoder and row["case"].startswith("train")]
        if training:
            best = max(training, key=lambda row: row["questions_per_s"])
            minutes = EPOCHS * TVQA_QUESTIONS / best["questions_per_s"] / 60
            workers = -(-best["questions_per_s"] // args.loader_rate)
            print(
                f"{encoder}: the paper's TVQA recipe in {minutes:.0f} minutes ({best['way']}, batch {best['batch']}); "
                f"{workers:.0f} loader workers at {args.loader_rate:.0f} questions a second and core"
            )


if __name__ == "__main__":
    main()
