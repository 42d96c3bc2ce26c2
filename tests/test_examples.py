"""Recipes and the scripts that read them."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from modeling_videoqa.card import card_values

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.append(str(EXAMPLES))  # behind: examples/evaluate.py has the name of a library

import common  # noqa: E402 (the examples are scripts, not a package)

RECIPES = sorted(path for path in (EXAMPLES / "recipes").glob("*.yaml") if not path.stem.startswith("table5"))


def written(folder, **changes):
    recipe = yaml.safe_load((EXAMPLES / "recipes" / "mini.yaml").read_text()) | changes
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
    return path


def data_with(spans):
    return SimpleNamespace(questions={"train": {"start": spans}})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_sound(path):
    recipe = common.read_recipe(path)
    assert recipe["inputs"]
    assert recipe["stages"]


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 3},
        {"model": None},
        {"inputs": {"full": {"subtitles": True, "objects": True}}},
        {"stages": {"main": {"training": {}, "swap_question": True}}},
    ],
    ids=["unknown", "missing", "missing input", "misspelt stage"],
)
def test_a_wrong_key_stops(tmp_path, changes):
    with pytest.raises(SystemExit, match="Correct them"):
        common.read_recipe(written(tmp_path, **changes))


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_a_file_that_is_no_recipe_stops(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit, match="Allowed"):
        common.read_recipe(path)


def test_a_recipe_that_fits_no_data_stops(tmp_path):
    recipe = common.read_recipe(written(tmp_path))
    common.check_recipe(recipe, data_with([None, 1.0]), features={})
    with pytest.raises(SystemExit, match="no features came"):
        common.check_recipe(recipe, data_with([1.0]), features=None)
    with pytest.raises(SystemExit, match="no training question has a span"):
        common.check_recipe(recipe, data_with([None, None]), features={})
    recipe["model"]["span_loss_weight"] = 0
    common.check_recipe(recipe, data_with([None, None]), features={})


def test_a_misspelt_path_of_a_model_is_not_looked_for_on_the_hub(tmp_path):
    assert common.model_name(str(tmp_path)) == str(tmp_path)
    assert common.model_name("me/mini") == "me/mini"
    for name in (str(tmp_path / "nowhere"), "runs/demo/modell", "modell"):
        with pytest.raises(SystemExit, match=r"is no folder\. Allowed: the folder of a trained model, or its name"):
            common.model_name(name)


def test_a_run_notes_where_its_features_are_from_and_the_card_tells_it(tmp_path):
    index = {"model": "ResNetModel", "name_or_path": "/a/folder/of/mine", "weights_sha256": "ab12", "frame_rate": 2.0}
    for name, features in (("seen", SimpleNamespace(index=index)), ("file", object()), ("blind", None)):
        common.begin_run(tmp_path / name, {"data": "mini"}, features)
    told = {path.name: card_values(path)["features"] for path in tmp_path.iterdir()}
    assert told == {"seen": "ResNetModel; weights SHA-256 `ab12`; 2.0 frames a second", "file": None, "blind": None}
    assert card_values(tmp_path / "seen", given={"features": "as on the page"})["features"] == "as on the page"


def test_summary_gives_mean_and_spread_of_the_seeds():
    groups = [{"castle": a, "house": 1.0} for a in (0.2, 0.4)]
    runs = [
        {"accuracy": a, "miou": None, "asa": 0.25, "minutes": 2.0, "accuracy_by_group": group}
        for a, group in zip((0.5, 0.6), groups, strict=True)
    ]
    header, line, castle, house = common.summary({"full": runs}).splitlines()
    assert header.split() == ["input", "seeds", "accuracy", "miou", "asa", "minutes"]
    assert line.split() == ["full", "2", "0.5500", "+-", "0.0707", "-", "0.2500", "+-", "0.0000", "2.0"]
    assert castle.split() == ["castle", "0.3000", "+-", "0.1414"]
    assert house.split() == ["house", "1.0000", "+-", "0.0000"]
