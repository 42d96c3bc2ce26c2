"""Table 5 and Figure 3 of the paper, or any other table whose rows are variations of one recipe.

    python examples/ablation.py --recipe examples/recipes/tvqa_plus.yaml --rows examples/recipes/table5.yaml \
        --data_dir tvqa_plus --features features --output_dir runs/table5 --seeds 0 1 2

Start it in as many processes as there are devices (`CUDA_VISIBLE_DEVICES=1 python ...`): each takes the next run that
nobody has. Under `accelerate launch` the processes do each run together instead. A killed one goes on where it was.
Whoever finishes last, and every later call, writes `table.md`, `table.json`, and for the rows that the file names in
`figure3` their distances as `figure3.csv` and `figure3.svg`. Fields of `TrainingArguments` may follow, as in train.py.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from accelerate import PartialState
from common import check_recipe_keys, merge, read_recipe, read_yaml, training_overrides, with_overrides
from filelock import FileLock, Timeout
from tables import distance_curves, draw_distances, table_rows, to_markdown
from train import add_arguments, load_inputs, run

from modeling_videoqa.files import write_whole

CHANGES = {"model", "text_config", "lora", "stages"}  # of the recipe; None takes a key away
ROW_KEYS = {"title", "input", "against"} | CHANGES


def read_rows(path: str, recipe: dict) -> tuple[dict[str, dict], list[str]]:
    """By name of the row its title, what it is tested against, its whole recipe and its input; the rows of Figure 3."""
    found = read_yaml(path, "rows")
    if set(found) - {"rows", "figure3"} or not isinstance(found.get("rows"), dict) or not found["rows"]:
        raise SystemExit(f"{path}: keys {sorted(found)}. Allowed: rows, and if wanted figure3. See table5.yaml.")
    rows = {}
    for name, row in found["rows"].items():
        if not isinstance(row, dict) or set(row) - ROW_KEYS:
            raise SystemExit(f"{path}, {name}: {row!r}. Allowed keys: {sorted(ROW_KEYS)}. Correct them.")
        wanted = row.get("input", next(iter(recipe["inputs"])))
        if wanted not in recipe["inputs"]:
            raise SystemExit(f"{path}, {name}: input {wanted!r}. Allowed: {sorted(recipe['inputs'])}. Correct it.")
        changes = {key: value for key, value in row.items() if key in CHANGES}
        changed = merge(recipe, changes) | {"inputs": {wanted: recipe["inputs"][wanted]}}
        check_recipe_keys(changed, f"{path}, {name}")
        if row.get("against", name) not in found["rows"]:
            raise SystemExit(f"{path}, {name}: against {row['against']!r}. Allowed: a row of the file. Correct it.")
        rows[name] = {
            "title": row.get("title", name), "against": row.get("against"), "recipe": changed,
            "inputs": recipe["inputs"][wanted],
        }  # fmt: skip
    curves = found.get("figure3") or []
    if set(curves) - set(rows):
        raise SystemExit(f"{path}: figure3 names {curves}. Allowed: rows of the file, {list(rows)}. Correct it.")
    return rows, curves


def do_runs(rows: dict, seeds: list[int], data, features, output_dir: Path) -> bool:
    """Do every run that no other process has; whether all are done now."""
    together = PartialState().num_processes > 1  # all processes of one launch: they go through the runs side by side
    for seed in seeds:  # all rows of one seed first, so that a table can be read early
        for name, row in rows.items():
            folder = output_dir / name / f"seed_{seed}"
            if together:
                run(row["recipe"], data, features, row["inputs"], seed, folder)
                continue
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:  # the lock goes with its process, however that ends
                with FileLock(f"{folder}.lock", timeout=0):
                    run(row["recipe"], data, features, row["inputs"], seed, folder)
            except Timeout:
                continue
    return all((output_dir / name / f"seed_{seed}" / "metrics.json").exists() for name in rows for seed in seeds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser)
    parser.add_argument("--rows", required=True, help="YAML file of the rows, such as examples/recipes/table5.yaml")
    parser.add_argument("--only", nargs="+", help="do and print these rows alone")
    args, rest = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    PartialState(cpu=not torch.cuda.is_available())  # without a GPU it would not see the other processes
    recipe = with_overrides(read_recipe(args.recipe), training_overrides(rest))
    rows, curves = read_rows(args.rows, recipe)
    if args.only:
        if set(args.only) - set(rows):
            raise SystemExit(f"--only {args.only}. Allowed: rows of {args.rows}, {list(rows)}. Correct it.")
        rows = {name: row for name, row in rows.items() if name in args.only}
    data, features = load_inputs([row["recipe"] for row in rows.values()], args)
    output_dir = Path(args.output_dir)
    if not do_runs(rows, args.seeds, data, features, output_dir):
        print("Other processes are still at work on the rest; the last one writes the table.")
        return
    if not PartialState().is_main_process:
        return
    table = table_rows(rows, args.seeds, output_dir, data)
    markdown = to_markdown(table)
    write_whole(output_dir / "table.json", json.dumps(table, indent=1))
    write_whole(output_dir / "table.md", markdown)
    if curves and set(curves) <= set(rows):
        titles = {name: row["title"] for name, row in rows.items()}
        draw_distances(distance_curves(curves, args.seeds, output_dir), titles, output_dir)
    print(markdown)


if __name__ == "__main__":
    main()
