"""Tables and curves out of run folders made by hand, the rows of the paper's Table 5, and runs shared by processes."""

import csv
import json
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import yaml
from tiny_training import EXAMPLES, TinyTraining, ablation, call, common, tables, train

from modeling_videoqa.metrics import clip_bootstrap, paired_clip_test
from modeling_videoqa.submissions import write_predictions

RECIPES = EXAMPLES / "recipes"


def question(qid, clip, label, span=(None, None), group="house"):
    choices = ["a", "b", "c"]
    return {
        "qid": qid, "clip_id": clip, "question": "?", "choices": choices, "label": label, "start": span[0],
        "end": span[1], "group": group,
    }  # fmt: skip


# Three clips; one question without a span, and one without a label, which is not counted.
QUESTIONS = [
    question("1", "x", 0, (0.0, 4.0)),
    question("2", "x", 1, (2.0, 6.0), "castle"),
    question("3", "y", 2, (4.0, 8.0), "castle"),
    question("4", "z", 0),
    question("5", "z", None),
]
DATA = SimpleNamespace(questions={"validation": QUESTIONS})


def write_run(folder, answers, minutes, distances=()):
    """A run as train.py leaves it: its answers to questions 1 to 5 with their spans, and the distances of each step."""
    folder.mkdir(parents=True)
    predictions = {
        str(number): {"label": label, "start": start, "end": end}
        for number, (label, (start, end)) in enumerate(answers, start=1)
    }
    write_predictions(folder / "predictions.jsonl", predictions)
    (folder / "metrics.json").write_text(json.dumps({"minutes": minutes}))
    log = [
        {"step": 20 * step, "loss": 1.0, "euclidean_distance": euclidean, "cosine_distance": cosine}
        for step, (euclidean, cosine) in enumerate(distances, start=1)
    ]
    (folder / "log_main.json").write_text(json.dumps([*log, {"step": 40, "eval_loss": 1.0}]))


@pytest.fixture
def folder(tmp_path):
    """Two rows of two seeds each. Row `plain` has 2 and 3 answers right of 4, row `full` 4 and 3."""
    none, half, exact = (9.0, 10.0), (0.0, 2.0), (0.0, 4.0)
    rest = [(2.0, 6.0), (4.0, 8.0), (0.0, 1.0), (0.0, 1.0)]
    plain = [((0, 1, 0, 1, 0), (none, *rest)), ((0, 1, 2, 1, 0), (half, *rest))]
    full = [((0, 1, 2, 0, 0), (exact, *rest)), ((0, 1, 2, 1, 0), (exact, *rest))]
    for seed in (0, 1):
        for name, row, minutes in (("plain", plain, 1), ("full", full, 3)):
            last = (1.0, 0.2) if name == "plain" else (2.0 + seed, 0.4 + seed)
            answers = list(zip(*row[seed], strict=True))
            write_run(tmp_path / name / f"seed_{seed}", answers, minutes + seed, [(1.0, 0.2), last])
    return tmp_path


ROWS = {"full": {"title": "with all", "against": "plain"}, "plain": {"title": "without", "against": None}}


# --- the table


def test_table_rows_by_hand(folder):
    # The row that `full` is tested against comes after it.
    full, plain = tables.table_rows(ROWS, [0, 1], folder, DATA)
    assert (full["row"], full["title"], full["seeds"], full["questions"]) == ("full", "with all", [0, 1], 4)
    assert (plain["accuracy"], full["accuracy"]) == ([0.5, 0.75], [1.0, 0.75])
    # IoU of the three questions with a span: 0 or a half or 1 for the first, 1 for the others.
    assert plain["miou"] == pytest.approx([2 / 3, 2.5 / 3])
    assert full["miou"] == [1.0, 1.0]
    assert plain["asa"] == pytest.approx([1 / 3, 1.0])  # right and an IoU of one half or more
    assert full["asa"] == [1.0, 1.0]
    assert plain["by_group"] == {"castle": 0.75, "house": 0.5}
    assert full["by_group"] == {"castle": 1.0, "house": 0.75}
    assert (plain["minutes"], full["minutes"]) == ([1, 2], [3, 4])
    assert "against" not in plain


def test_intervals_and_tests_are_of_the_means_over_the_seeds(folder):
    full, plain = tables.table_rows(ROWS, [0, 1], folder, DATA)
    clips = ["x", "x", "y", "z"]
    right = {"plain": [1, 1, 0.5, 0], "full": [1, 1, 1, 0.5]}
    iou = {"plain": [0.25, 1, 1], "full": [1, 1, 1]}
    for entry in (full, plain):
        assert entry["intervals"] == {
            "accuracy": list(clip_bootstrap(right[entry["row"]], clips)),
            "miou": list(clip_bootstrap(iou[entry["row"]], clips[:3])),
        }
    assert full["against"]["row"] == "plain"
    for figure, values, number in (("accuracy", right, 4), ("miou", iou, 3)):
        test = paired_clip_test(values["plain"], values["full"], clips[:number])
        found = full["against"][figure]
        assert found == {"difference": test.difference, "interval": list(test.interval), "p_value": test.p_value}
        assert found["difference"] == pytest.approx(0.25)


def test_a_question_without_an_answer_stops_the_table(folder):
    path = folder / "full" / "seed_1" / "predictions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="have no line"):
        tables.table_rows(ROWS, [0, 1], folder, DATA)


def test_the_table_as_markdown(folder):
    lines = tables.to_markdown(tables.table_rows(ROWS, [0, 1], folder, DATA)).splitlines()
    header, rule, full, plain = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4])
    assert header == [
        "row", "accuracy", "mIoU", "ASA", "castle", "house", "against", "accuracy", "p", "mIoU", "p", "minutes",
    ]  # fmt: skip
    assert rule == ["---"] * len(header)
    assert full[0] == "with all"
    assert full[1].startswith("87.5 +- 17.7 [")  # of 1.0 and 0.75
    assert full[2] == "100.0 +- 0.0 [100.0, 100.0]"
    assert full[3:7] == ["100.0 +- 0.0", "100.0", "75.0", "without"]
    assert full[7].startswith("+25.0 [+")
    assert full[9].startswith("+25.0 [+0.0, ")
    assert full[11] == "3.5"
    assert plain[1].startswith("62.5 +- 17.7 [")
    assert plain[6:11] == [""] * 5
    assert "Percent on 4 questions, mean +- standard deviation over seeds (2)." in lines[5]


def test_a_single_seed_and_a_single_group_and_no_span(folder):
    rows = [{**row, "group": "house", "start": None, "end": None} for row in QUESTIONS]
    data = SimpleNamespace(questions={"validation": rows})
    table = tables.table_rows({"full": ROWS["full"]}, [1], folder, data)  # what it is tested against is not there
    header, _, line = tables.to_markdown(table).splitlines()[:3]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert "house" not in header
    assert cells[1].startswith("75.0 [")
    assert cells[2:9] == ["-", "-", "", "", "", "", ""]


# --- Figure 3


def test_distance_curves_are_those_of_the_logs(folder):
    points = tables.distance_curves(["plain", "full"], [0, 1], folder)
    assert len(points) == 2 * 2 * 2
    assert points[0] == {
        "row": "plain", "seed": 0, "step": 20, "euclidean_distance": 1.0, "cosine_distance": 0.2,
    }  # fmt: skip
    assert points[-1] == {
        "row": "full", "seed": 1, "step": 40, "euclidean_distance": 3.0, "cosine_distance": 1.4,
    }  # fmt: skip


def test_the_figure_and_its_numbers_are_written(folder):
    pytest.importorskip("matplotlib")
    points = tables.distance_curves(["plain", "full"], [0, 1], folder)
    tables.draw_distances(points, {"plain": "without CL", "full": "with <CL> & all"}, folder)
    with open(folder / "figure3.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [{**row, "seed": int(row["seed"]), "step": int(row["step"])} for row in read] == [
        {**point, **{key: str(point[key]) for key in tables.DISTANCES}} for point in points
    ]
    svg = ElementTree.parse(folder / "figure3.svg").getroot()
    assert svg.tag.endswith("svg")
    before = (folder / "figure3.csv").read_bytes()
    tables.draw_distances(points, {"plain": "without CL", "full": "with CL"}, folder)  # again, over what is there
    assert (folder / "figure3.csv").read_bytes() == before


# --- rows


def read_rows(recipe, rows):
    return ablation.read_rows(str(RECIPES / rows), common.read_recipe(RECIPES / recipe))


@pytest.mark.parametrize(
    ("recipe", "rows", "number"),
    [
        ("tvqa_plus.yaml", "table5.yaml", 10),
        ("tvqa.yaml", "table5.yaml", 10),
        ("tvqa_plus_text.yaml", "table5_text.yaml", 6),
        ("mini_table5.yaml", "table5_mini.yaml", 9),
        ("dramaqa_text.yaml", "table5_questions.yaml", 4),
    ],
)
def test_every_file_of_rows_reads_against_its_recipe(recipe, rows, number):
    found, curves = read_rows(recipe, rows)
    assert len(found) == number
    assert len(curves) == 2
    assert len({json.dumps([row["recipe"], row["inputs"]]) for row in found.values()}) == number  # no row twice
    with_contrast = [found[name]["recipe"]["model"].get("contrastive_loss_weight", 0.1) > 0 for name in curves]
    assert with_contrast == [False, True]
    for row in found.values():
        assert list(row["recipe"]["inputs"].values()) == [row["inputs"]]
        if row["against"]:  # one difference from the row that it is tested against
            other = found[row["against"]]
            differing = sorted(what_differs(row, other))
            assert (
                len(differing) == 1 or row["recipe"]["inputs"] != other["recipe"]["inputs"] or row["title"].count("and")
            )


def settings_of(row):
    """What Table 5 names, with the defaults of the model: local attention, TL, MT, CL, SS."""
    model = row["recipe"]["model"]
    return {
        "visual_attention": model.get("visual_attention", "local"),
        "span_loss_weight": model.get("span_loss_weight", 0.2),
        "token_types": model.get("token_types", "fractional"),
        "contrastive_loss_weight": model.get("contrastive_loss_weight", 0.1),
        "pretrain": "pretrain" in row["recipe"]["stages"],
    }


def what_differs(row, other):
    first, second = settings_of(row), settings_of(other)
    return {name for name in first if first[name] != second[name]} | (
        {"inputs"} if row["inputs"] != other["inputs"] else set()
    )


def test_the_eight_rows_differ_exactly_in_what_table_5_says():
    found, _ = read_rows("tvqa_plus.yaml", "table5.yaml")
    table = {
        "ga": ("global", 0.0, "binary", 0.0, False),
        "ga_tl": ("global", 0.2, "binary", 0.0, False),
        "ga_tl_mt": ("global", 0.2, "fractional", 0.0, False),
        "la": ("local", 0.0, "binary", 0.0, False),
        "la_tl": ("local", 0.2, "binary", 0.0, False),
        "la_tl_mt": ("local", 0.2, "fractional", 0.0, False),
        "la_tl_mt_cl": ("local", 0.2, "fractional", 0.1, False),
        "la_tl_mt_cl_ss": ("local", 0.2, "fractional", 0.1, True),
    }
    assert [name for name in found if name not in ("no_video", "question_only")] == list(table)
    recipe = common.read_recipe(RECIPES / "tvqa_plus.yaml")
    for name, expected in table.items():
        row = found[name]
        assert tuple(settings_of(row).values()) == expected
        # And in nothing else.
        assert set(row["recipe"]["model"]) <= set(settings_of(row))
        assert row["inputs"] == {"subtitles": True, "objects": True, "video": True}
        assert row["recipe"]["stages"]["main"] == recipe["stages"]["main"]
        assert {key: row["recipe"][key] for key in ("data", "text_encoder")} == {
            "data": "tvqa_plus", "text_encoder": "google-bert/bert-base-uncased",
        }  # fmt: skip
    assert found["la_tl_mt_cl_ss"]["recipe"]["stages"] == recipe["stages"]
    assert what_differs(found["no_video"], found["la_tl_mt_cl_ss"]) == {"inputs"}
    assert what_differs(found["question_only"], found["la_tl_mt_cl_ss"]) == {"inputs"}


@pytest.mark.parametrize(
    ("content", "came"),
    [
        ({}, "keys []"),
        ({"rows": {}}, "rows"),
        ({"rows": {"a": {}}, "figure4": ["a"]}, "figure4"),
        ({"rows": {"a": {"modle": {}}}}, "modle"),
        ({"rows": {"a": None}}, "None"),
        ({"rows": {"a": {"input": "sound"}}}, "sound"),
        ({"rows": {"a": {"against": "b"}}}, "'b'"),
        ({"rows": {"a": {"model": {"visual_atention": "global"}}}}, "visual_atention"),
        ({"rows": {"a": {"stages": {"main": {"training": {"learning_rat": 1}}}}}}, "learning_rat"),
        ({"rows": {"a": {"stages": {"main": None, "pretrain": None}}}}, "nothing is left"),
        ({"rows": {"a": {}}, "figure3": ["b"]}, "b"),
    ],
)
def test_rows_that_name_what_is_not_there_stop(tmp_path, content, came):
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit, match=r"(?s).+Allowed.*: .+\. \S.+") as stopped:
        ablation.read_rows(str(path), common.read_recipe(RECIPES / "mini.yaml"))
    assert came in str(stopped.value)


def test_a_row_may_train_adapters_or_leave_them_out(tmp_path):
    path, recipe = tmp_path / "rows.yaml", common.read_recipe(RECIPES / "tvqa_plus_text_lora.yaml")
    rows = {"as_it_is": {}, "rank_2": {"lora": {"r": 2}}, "all_weights": {"lora": None}}
    path.write_text(yaml.safe_dump({"rows": rows}))
    found = {name: row["recipe"].get("lora") for name, row in ablation.read_rows(str(path), recipe)[0].items()}
    assert found == {"as_it_is": recipe["lora"], "rank_2": {**recipe["lora"], "r": 2}, "all_weights": None}
    assert recipe["lora"]["r"] != 2


# --- the script


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_encoder_dir):
    """36 questions to train on, 9 to evaluate on."""
    return TinyTraining(tmp_path_factory.mktemp("tiny"), tiny_encoder_dir, clips=(4, 1))


@pytest.fixture
def arguments(tiny):
    """`arguments(folder, *options)`: two rows, of the second stage alone and of two steps."""
    recipe = {**tiny.recipe, "stages": {"main": tiny.recipe["stages"]["main"]}}
    rows = {
        "figure3": ["no_contrastive", "full"],
        "rows": {
            "full": {"title": "all of it"},
            "no_contrastive": {"title": "without CL", "against": "full", "model": {"contrastive_loss_weight": 0.0}},
        },
    }
    path = tiny.written(rows, "rows")
    return lambda folder, *options: tiny.arguments(
        folder, "--rows", path, "--max_steps", "2", *options, recipe=recipe, name="ablation"
    )


def test_all_rows_are_done_once_and_the_table_and_the_figure_written(arguments, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    printed = call(ablation, arguments(tmp_path, "--seeds", "0", "1"))
    runs = [tmp_path / row / f"seed_{seed}" for row in ("full", "no_contrastive") for seed in (0, 1)]
    assert all((run / "metrics.json").exists() for run in runs)
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert written == {"table.md", "table.json", "figure3.csv", "figure3.svg"}
    table = (tmp_path / "table.md").read_text()
    assert printed.endswith(table + "\n")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:4]] == ["all of it", "without CL"]
    entries = json.loads((tmp_path / "table.json").read_text())
    for entry in entries:
        metrics = [
            json.loads((tmp_path / entry["row"] / f"seed_{seed}" / "metrics.json").read_text()) for seed in (0, 1)
        ]
        assert entry["accuracy"] == [each["accuracy"] for each in metrics]
    recipe = common.read_recipe(tmp_path / "no_contrastive" / "seed_1" / "recipe.yaml")
    assert recipe["model"]["contrastive_loss_weight"] == 0.0
    assert recipe["stages"]["main"]["training"]["max_steps"] == 2

    # Again: nothing is trained, all is written.
    monkeypatch.setattr(train, "train_stage", lambda *args, **kwargs: pytest.fail("it is done again"))
    (tmp_path / "table.md").unlink()
    assert call(ablation, arguments(tmp_path, "--seeds", "0", "1")) == printed[-len(table) - 1 :]
    assert (tmp_path / "table.md").read_text() == table
    only = call(ablation, arguments(tmp_path, "--seeds", "0", "--only", "no_contrastive"))
    assert [line.split("|")[1].strip() for line in only.splitlines()[2:3]] == ["without CL"]
    assert "all of it" not in only


def test_a_row_that_is_not_there_stops(arguments, tmp_path):
    with pytest.raises(SystemExit, match=r"--only \['half'\]. Allowed: rows of .+ Correct it"):
        call(ablation, arguments(tmp_path / "run", "--only", "half"))
    with pytest.raises(SystemExit):
        call(ablation, arguments(tmp_path / "run", "--epochs", "2"))
    assert not (tmp_path / "run").exists()


HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1], timeout=0):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_has_is_left_to_it(arguments, tmp_path, monkeypatch):
    done = []

    def run(recipe, data, features, inputs, seed, folder):
        done.append((folder.parent.name, seed))
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")

    monkeypatch.setattr(ablation, "run", run)
    monkeypatch.setattr(ablation, "table_rows", lambda *args: pytest.fail("not all runs are done"))
    (tmp_path / "full").mkdir()
    lock = tmp_path / "full" / "seed_0.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        printed = call(ablation, arguments(tmp_path, "--seeds", "0", "1"))
        assert printed == "Other processes are still at work on the rest; the last one writes the table.\n"
        assert done == [("no_contrastive", 0), ("full", 1), ("no_contrastive", 1)]
        assert not (tmp_path / "full" / "seed_0").exists()
    finally:
        holder.kill()  # however it ends, its lock goes with it
        holder.communicate()
    monkeypatch.setattr(ablation, "table_rows", lambda *args: [])
    monkeypatch.setattr(ablation, "to_markdown", lambda table: "the table")
    monkeypatch.setattr(ablation, "draw_distances", lambda *args: None)
    monkeypatch.setattr(ablation, "distance_curves", lambda *args: [])
    done.clear()
    monkeypatch.setattr(
        ablation, "run", lambda *args: None if (args[-1] / "metrics.json").exists() else run(*args)
    )  # a finished run is not done again
    assert call(ablation, arguments(tmp_path, "--seeds", "0", "1")) == "the table\n"
    assert done == [("full", 0)]


def test_a_killed_ablation_goes_on_where_it_was(arguments, tmp_path, monkeypatch):
    stage, calls = train.train_stage, []

    def killed_at_the_second(*args):
        calls.append(args[4].parent.parent.name)  # the stage's folder
        if len(calls) == 2:
            raise KeyboardInterrupt
        return stage(*args)

    monkeypatch.setattr(train, "train_stage", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        call(ablation, arguments(tmp_path))
    assert not (tmp_path / "table.md").exists()
    call(ablation, arguments(tmp_path))
    assert calls == ["full", "no_contrastive", "no_contrastive"]
    assert (tmp_path / "table.md").exists()
