"""The text encoder on this machine's CPU against the plain padded way and against its own matrix product, in one run.

    python benchmarks/cpu.py        # `make bench`; under 10 minutes on two quiet cores
    python benchmarks/cpu.py --encoders tiny --rounds 1 --questions 1 --output cpu.json

`plain` sends 40 rows of 80 tokens a choice through the whole encoder of the transformers library with sdpa, as the
paper describes the batch; `longest` pads to the longest clip and row of the batch instead, once. A training step is
forward with all three losses, backward and AdamW, the upper half of the encoder tuned, and no gradient below it in any
way. Inference in int8 or bfloat16 is set against the plain way in float32, as everybody has it, and in bfloat16 also
against the plain way with its encoder in bfloat16 (`ratio_to_bf16`); a training step in bfloat16 is under autocast in
all ways. `fraction_of_peak` is the work of the encoder's matrix products on valid tokens, over the time, over the rate
of a matrix product measured beside it; `fraction_of_peak_needed` counts of the last layer only what its first token
needs. `peak_mb` is what a call on `peak_questions` takes over what its process held before, each in a process of its
own. Ways alternate round by round, so what disturbs the machine disturbs all of them; medians. `--compile` adds
torch.compile's inductor, which needs a C++ compiler and minutes.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from encoding import (
    ENCODERS,
    encoder_work,
    for_inference,
    interleaved,
    make_batch,
    make_model,
    make_plain,
    matrix_product_rate,
    pad_as_the_paper,
    peak_mb,
    row_lengths,
    seconds,
    training_step,
    tuned_parameters,
    versions,
)

from modeling_videoqa.quantization import cast_bf16, quantize_int8
from modeling_videoqa.training import native_bf16

OUTPUT = Path(__file__).parent / "results" / "cpu.json"
COLUMNS = {
    "ratio": "{:.2f}", "ratio_to_longest": "{:.2f}", "ratio_to_bf16": "{:.2f}", "fraction_of_peak": "{:.2f}",
    "fraction_of_peak_needed": "{:.2f}", "questions_per_s": "{:.2f}", "valid_tokens_per_s": "{:.0f}",
    "peak_mb": "{:.0f}", "peak_ratio": "{:.2f}",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    encoder: str
    shape: str
    questions: int
    training: bool = False
    bf16: bool = False
    how: str = ""  # "int8" or "compile": how the packed way differs
    rounds: int = 1
    large: bool = False  # once through, without what is beside the point

    @property
    def peak_questions(self) -> int:
        """Of a training step twice as many, so that the optimizer's own memory does not hide that of the batch."""
        return self.questions * (2 if self.training else 1)

    def way(self, kind: str, questions: int | None = None):
        """A call that answers the batch, or takes a training step on it: "packed", "longest", "plain", "plain bf16"."""
        model = make_model(self.encoder).train(self.training)
        batch = make_batch(questions or self.questions, self.shape)
        cast = self.bf16 and not self.training
        if kind != "packed":
            model = make_plain(model)
            if cast and kind != "plain":
                model.model.text_encoder.to(torch.bfloat16)
        elif cast:
            model = cast_bf16(model)
        elif self.how == "int8":
            model = quantize_int8(model, batch)
        elif self.how == "compile":
            model.model.text_encoder.compile(dynamic=True)
        if kind.startswith("plain"):
            batch = pad_as_the_paper(batch)
        if self.training:
            call = training_step(model, torch.optim.AdamW(tuned_parameters(model), lr=1e-5), batch)
        else:
            batch = for_inference(batch)

            def call():
                return model(**batch)

        def timed():
            autocast = torch.autocast("cpu", torch.bfloat16, enabled=self.bf16 and self.training)
            with torch.inference_mode(not self.training), autocast:
                call()

        return timed


def memory_of(case: Case, kind: str) -> float:
    """For a process of its own."""
    return peak_mb(case.way(kind, case.peak_questions))


def list_cases(encoders: list[str], questions: int | None, rounds: int, compiled: bool) -> list[Case]:
    """The first encoder has no suffix. A large one goes once through, on one question."""
    cases = []
    for encoder in encoders:
        large = encoder == "bert-base"
        suffix = "" if encoder == encoders[0] else f"-{encoder}"
        shared = {
            "encoder": encoder, "questions": questions or (1 if large else 2), "rounds": 1 if large else rounds,
            "large": large,
        }  # fmt: skip
        for bf16 in (False, True) if native_bf16() else (False,):
            kind = "bf16" if bf16 else "fp32"
            cases += [
                Case(f"inference-{kind}-tvqa{suffix}", shape="tvqa", bf16=bf16, **shared),
                Case(f"train-{kind}-tvqa{suffix}", shape="tvqa", bf16=bf16, training=True, **shared),
            ]
            if not large:
                cases.append(Case(f"inference-{kind}-short{suffix}", shape="short", bf16=bf16, **shared))
        if not large:
            cases.append(Case(f"inference-int8-tvqa{suffix}", shape="tvqa", how="int8", **shared))
        if compiled:
            cases.append(Case(f"inference-fp32-tvqa{suffix}-compiled", shape="tvqa", how="compile", **shared))
    return cases


def measure(case: Case, pool: ProcessPoolExecutor) -> dict:
    """One row of the table."""
    memory, longest = {}, None
    if not case.large:
        memory = {kind: pool.submit(memory_of, case, kind).result() for kind in ("plain", "packed")}
        call = case.way("longest")
        call()
        longest = seconds(call)
    model = make_model(case.encoder)
    config = model.config.text_config
    dtype = torch.bfloat16 if case.bf16 else torch.float32
    ways = ["plain", "packed"] + ["plain bf16"] * (case.bf16 and not case.training)
    found = interleaved(
        {kind: case.way(kind) for kind in ways},
        case.rounds,
        lambda: matrix_product_rate(config.hidden_size, config.intermediate_size, "cpu", dtype),
        # In float32 the plain way takes long, and its first time is like the others; in bfloat16 it is not.
        warm_up=[kind for kind in ways if kind != "plain" or (case.bf16 and case.training)],
    )
    lengths = row_lengths(make_batch(case.questions, case.shape), case.training)
    work = encoder_work(lengths, config, tuned=model.config.num_tuned_text_layers if case.training else 0)
    times, peaks = {kind: figures["seconds"] for kind, figures in found.items()}, found["packed"]["peak"]
    rounds = list(zip(times["packed"], peaks, strict=True))
    packed = statistics.median(times["packed"])
    ratios = {
        kind: statistics.median(a / b for a, b in zip(times[kind], times["packed"], strict=True)) for kind in ways
    }
    return {
        "case": case.name,
        "questions": case.questions,
        "ratio": ratios["plain"],
        "ratio_to_longest": longest / packed if longest else None,
        "ratio_to_bf16": ratios.get("plain bf16"),
        "fraction_of_peak": statistics.median(work["whole"] / taken / peak for taken, peak in rounds),
        "fraction_of_peak_needed": statistics.median(work["needed"] / taken / peak for taken, peak in rounds),
        "questions_per_s": case.questions / packed,
        "valid_tokens_per_s": float(lengths.sum()) / packed,
        "peak_questions": case.peak_questions if memory else None,
        "peak_mb": memory.get("packed"),
        "peak_mb_plain": memory.get("plain"),
        "peak_ratio": memory["plain"] / memory["packed"] if memory else None,
        "matrix_product_gflops": statistics.median(peaks) / 1e9,
    }


def machine() -> dict:
    """What the figures belong to."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16": native_bf16(), **versions(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["small", "bert-base"], choices=list(ENCODERS))
    parser.add_argument("--questions", type=int, help="questions of a batch; default: 2, for BERT-base 1")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", nargs="+", help="these cases alone")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    print(json.dumps(machine()))
    print(f"| case | {' | '.join(COLUMNS)} |\n|{' --- |' * (len(COLUMNS) + 1)}", flush=True)
    rows = []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for case in list_cases(args.encoders, args.questions, args.rounds, args.compile):
            if args.only and case.name not in args.only:
                continue
            row = measure(case, pool)
            rows.append(row)
            cells = (text.format(row[name]) if row[name] is not None else "" for name, text in COLUMNS.items())
            print(f"| {case.name} | {' | '.join(cells)} |", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
