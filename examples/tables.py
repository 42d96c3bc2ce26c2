"""The table and the curves of an ablation, out of the folders of its runs."""

import csv
import json
import statistics
from pathlib import Path

import numpy as np

from modeling_videoqa.metrics import clip_bootstrap, evaluate_predictions, paired_clip_test, question_scores
from modeling_videoqa.submissions import read_predictions

DISTANCES = ("euclidean_distance", "cosine_distance")


def table_rows(rows: dict[str, dict], seeds: list[int], output_dir: Path, data) -> list[dict]:
    """
    One entry for each row: mean and spread over the seeds, the interval over clips of the mean over the seeds, the
    accuracy of each group, and the difference from the row that it is tested against.

    Args:
        rows: by name, `{"title": str, "against": name or None}`.
        seeds: the seeds of each row.
        output_dir: the folder that holds `<name>/seed_<seed>`.
        data: the data set; its validation split is what the predictions are for.
    """
    split = list(data.questions["validation"])
    clips = np.array([row["clip_id"] for row in split if row["label"] is not None])
    means: dict[str, dict[str, np.ndarray]] = {}
    table = []
    for name, row in rows.items():
        folders = [output_dir / name / f"seed_{seed}" for seed in seeds]
        found = [read_predictions(folder / "predictions.jsonl", split) for folder in folders]
        per_seed = [evaluate_predictions(predictions, split) for predictions in found]
        scores = zip(*(question_scores(predictions, split) for predictions in found), strict=True)
        means[name] = {key: np.mean(values, axis=0) for key, values in zip(("accuracy", "miou"), scores, strict=True)}
        entry = {"row": name, "title": row["title"], "seeds": seeds, "questions": len(clips)}
        for figure in ("accuracy", "miou", "asa"):
            entry[figure] = [metrics[figure] for metrics in per_seed]
        entry["by_group"] = {
            group: statistics.mean(metrics["accuracy_by_group"][group] for metrics in per_seed)
            for group in per_seed[0]["accuracy_by_group"]
        }
        entry["minutes"] = [json.loads((folder / "metrics.json").read_text())["minutes"] for folder in folders]
        entry["intervals"] = {key: _interval(values, clips) for key, values in means[name].items()}
        table.append(entry)
    for entry in table:  # now that the means of all rows are there
        name, against = entry["row"], rows[entry["row"]].get("against")
        if against in means:
            tests = {key: _test(means[against][key], values, clips) for key, values in means[name].items()}
            entry["against"] = {"row": against, **tests}
    return table


def _interval(values: np.ndarray, clips: np.ndarray) -> list[float] | None:
    known = ~np.isnan(values)
    return list(clip_bootstrap(values[known], clips[known])) if known.any() else None


def _test(first: np.ndarray, second: np.ndarray, clips: np.ndarray) -> dict | None:
    known = ~(np.isnan(first) | np.isnan(second))
    if not known.any():
        return None
    difference, interval, p_value = paired_clip_test(first[known], second[known], clips[known])
    return {"difference": difference, "interval": list(interval), "p_value": p_value}


def to_markdown(table: list[dict]) -> str:
    """The table in percent: mean +- spread over seeds [95% interval over clips], and what a row is tested against."""
    groups = [group for group in table[0]["by_group"] if len(table[0]["by_group"]) > 1]
    titles = {entry["row"]: entry["title"] for entry in table}
    header = ["row", "accuracy", "mIoU", "ASA", *groups, "against", "accuracy", "p", "mIoU", "p", "minutes"]
    lines = [header, ["---"] * len(header)]
    for entry in table:
        cells = [entry["title"]]
        cells += [_figure(entry[key], entry["intervals"].get(key)) for key in ("accuracy", "miou", "asa")]
        cells += [f"{100 * entry['by_group'][group]:.1f}" for group in groups]
        against = entry.get("against")
        cells.append(titles[against["row"]] if against else "")
        for key in ("accuracy", "miou"):
            cells += _compared(against[key] if against else None)
        cells.append(f"{statistics.mean(entry['minutes']):.1f}")
        lines.append(cells)
    seeds, questions = len(table[0]["seeds"]), table[0]["questions"]
    note = (
        f"Percent on {questions} questions, mean +- standard deviation over seeds ({seeds}). In brackets the 95% "
        "interval of that mean, by bootstrap over clips. Differences from the row named, with their interval and p by "
        "sign flips over clips of the mean over seeds. Minutes of training a run."
    )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + f"\n\n{note}\n"


def _figure(values: list[float | None], interval: list[float] | None) -> str:
    if None in values:
        return "-"
    text = f"{100 * statistics.mean(values):.1f}"
    if len(values) > 1:
        text += f" +- {100 * statistics.stdev(values):.1f}"
    return text + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def _compared(test: dict | None) -> list[str]:
    if test is None:
        return ["", ""]
    low, high = test["interval"]
    p_value = f"{test['p_value']:.3f}" if test["p_value"] >= 0.001 else "< 0.001"
    return [f"{100 * test['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]", p_value]


def distance_curves(names: list[str], seeds: list[int], output_dir: Path, stage: str = "main") -> list[dict]:
    """Figure 3 as data: for each row and logged step the distances of each seed, from the training logs."""
    points = []
    for name in names:
        for seed in seeds:
            for entry in json.loads((output_dir / name / f"seed_{seed}" / f"log_{stage}.json").read_text()):
                if DISTANCES[0] in entry:
                    figures = {key: entry[key] for key in DISTANCES}
                    points.append({"row": name, "seed": seed, "step": entry["step"], **figures})
    return points


def draw_distances(points: list[dict], titles: dict[str, str], output_dir: Path) -> None:
    """`figure3.csv` and `figure3.svg`: mean over seeds, with the band from the lowest to the highest."""
    import matplotlib  # an extra, for this one figure

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open(output_dir / "figure3.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["row", "seed", "step", *DISTANCES])
        writer.writeheader()
        writer.writerows(points)
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, key in zip(axes, DISTANCES, strict=True):
        for name in dict.fromkeys(point["row"] for point in points):
            by_step: dict[int, list[float]] = {}
            for point in points:
                if point["row"] == name:
                    by_step.setdefault(point["step"], []).append(point[key])
            steps = sorted(by_step)
            axis.plot(steps, [statistics.mean(by_step[step]) for step in steps], label=titles[name])
            axis.fill_between(
                steps, [min(by_step[step]) for step in steps], [max(by_step[step]) for step in steps], alpha=0.2
            )
        axis.set(xlabel="training step", ylabel=key.replace("_", " "), ylim=(0, None))
    axes[0].legend(frameon=False)
    figure.suptitle("From the right hypothesis to the nearest wrong one (Figure 3)")
    figure.savefig(output_dir / "figure3.svg", metadata={"Date": None})
    pyplot.close(figure)
