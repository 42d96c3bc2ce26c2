"""A release in one folder, a Hub on loopback with the real client, and a card that says only what was measured."""

import json
import re
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from loopback_hub import LoopbackHub
from safetensors.torch import load_file
from test_video import encode
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    AutoProcessor,
    ConvNextImageProcessorPil,
    ResNetConfig,
    ResNetModel,
    pipeline,
)
from transformers.dynamic_module_utils import get_imports

from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice, VideoQAModel, VideoQAPipeline, card, hub
from modeling_videoqa import fresh_process as fresh
from modeling_videoqa.card import CARD_FIELDS, DATASETS, card_values, evaluation_results, render_card
from modeling_videoqa.hub import answers_elsewhere, check_release, push_release, release_files, stage_release
from processing import VideoQAProcessor

ROOT = Path(__file__).parents[1]
TEMPLATE, LICENSE = ROOT / "model_card.md", ROOT / "LICENSE"
REPO = "me/tiny-videoqa"
CODE = [
    "configuration_videoqa.py", "decoder_videoqa.py", "layers_videoqa.py", "loss_videoqa.py",
    "modeling_videoqa.py", "packing_videoqa.py", "pipeline_videoqa.py", "processing_videoqa.py", "rows_videoqa.py",
    "subtitles_videoqa.py", "video_videoqa.py",
]  # fmt: skip
RELEASE = [
    ".eval_results/videoqa.yaml", "LICENSE", "README.md", "config.json", "model.safetensors", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", *CODE,
]  # fmt: skip
METRICS = {
    "accuracy": 0.7375, "accuracy_by_group": {"house": 0.75, "a|b": 0.725}, "miou": 0.331, "asa": None,
    "recall_at_iou": {"0.5": 0.3}, "intervals": {"accuracy": [0.691, 0.7812], "miou": [0.3, 0.36], "asa": None},
    "questions": 80, "questions_with_span": 79, "missing": 1, "minutes": 12.34,
}  # fmt: skip
TWIN = METRICS | {"accuracy": 0.4125, "accuracy_by_group": {"house": 0.4, "a|b": 0.425}, "miou": 0.111, "missing": 0}
RECIPE = {
    "data": "tvqa_plus", "text_encoder": "google-bert/bert-base-uncased", "model": {"max_text_length": 24},
    "inputs": {"input": {"subtitles": True, "objects": False, "video": True}},
    "stages": {"main": {"batch_size": 8, "training": {"num_train_epochs": 3}}},
}  # fmt: skip
VERSIONS = {"torch": "2.13.0", "python": "3.11.7", "device": "cpu, 2 threads"}


def write_run(folder, model, processor, metrics=METRICS, recipe=RECIPE):
    """What examples/train.py leaves behind, a checkpoint with pickles included."""
    folder.mkdir()
    if model is not None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "main").mkdir()
        (folder / "main" / "optimizer.pt").write_bytes(b"PK\x03\x04")
        (folder / "predictions.jsonl").write_text("{}\n")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "versions.json").write_text(json.dumps(VERSIONS))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_encoder_dir):
    """Two models with a backbone, and their question-only twin's metrics."""
    root = tmp_path_factory.mktemp("runs")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"))
        model = VideoQAForMultipleChoice.from_text_encoder(
            str(tiny_encoder_dir), vision_model=backbone, video_feature_size=8, max_text_length=24, num_frames=2,
        ).eval()  # fmt: skip
        images = ConvNextImageProcessorPil(size={"shortest_edge": 32})
        processor = VideoQAProcessor.from_config(model.config, tiny_encoder_dir, images)
        for name in ("old", "new"):
            for name_of, parameter in model.named_parameters():
                if "vision_model" not in name_of:
                    parameter.data += 0.3 * torch.randn_like(parameter)
            write_run(root / name, model, processor)
    inputs = {"input": {"subtitles": False, "objects": False, "video": False}}
    write_run(root / "twin", None, None, TWIN, RECIPE | {"inputs": inputs})
    return root


@pytest.fixture(scope="module")
def stage(runs):
    def do(name, folder, **changes):
        options = {"template": TEMPLATE, "license_file": LICENSE, "twin": runs / "twin", "fields": {"repo_id": REPO}}
        return stage_release(runs / name, folder, **options | changes)

    return do


@pytest.fixture(scope="module")
def releases(runs, stage):
    return {name: stage(name, runs / "releases" / name) for name in ("old", "new")}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A question about files, as a stranger has them."""
    folder = tmp_path_factory.mktemp("clip")
    encode(folder / "clip.mp4", range(20), rate=10)
    (folder / "clip.srt").write_text("1\n00:00:00,100 --> 00:00:01,200\n(penny:)the red cup\n")
    files = {"video": str(folder / "clip.mp4"), "subtitles": str(folder / "clip.srt")}
    return {"question": "what is red", "choices": ["a cup", "the coat", "sheldon"], **files}


@pytest.fixture
def loopback(monkeypatch, tmp_path):
    """A Hub, that the client in this process and in those started from it talks to."""
    with LoopbackHub() as server:
        constants = huggingface_hub.constants
        # Clients that are made once remember their endpoint: those of huggingface_hub and of transformers.
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        switches = {"ENDPOINT": server.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        switches["HUGGINGFACE_CO_URL_TEMPLATE"] = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {**switches, "HF_HUB_CACHE": str(tmp_path / "cache")}.items():
            monkeypatch.setattr(constants, name, value)
        environment = {
            "HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN": server.token,
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield server


def told_by(folder, example=None):
    model = VideoQAForMultipleChoice.from_pretrained(folder)
    return json.loads(json.dumps(fresh.answer(model, hub.load_processor(folder), example)))


def same(one, other):
    assert one.keys() == other.keys()
    for kind, told in one.items():
        assert told["batch"] == other[kind]["batch"]
        for row, row_there in zip(told["logits"], other[kind]["logits"], strict=True):
            assert row == pytest.approx(row_there, abs=1e-4)
        assert [answer["index"] for answer in told["answers"]] == [a["index"] for a in other[kind]["answers"]]


# --- the folder


def test_a_release_is_exactly_these_files(releases, runs):
    found = sorted(path.relative_to(releases["new"]).as_posix() for path in releases["new"].rglob("*"))
    assert found == sorted([*RELEASE, ".eval_results"])
    assert sorted(release_files(releases["new"])) == sorted(RELEASE)
    for name in CODE:
        (source,) = [path for path in ROOT.glob(f"*/{name}") if path.parent.name in ("modeling_videoqa", "processing")]
        assert (releases["new"] / name).read_bytes() == source.read_bytes()
    weights, trained = (load_file(folder / "model.safetensors") for folder in (releases["new"], runs / "new"))
    assert weights.keys() == trained.keys()
    assert all(torch.equal(value, trained[name]) for name, value in weights.items())


def test_no_pickle_and_no_place_of_this_machine_is_in_a_release(releases):
    for name in RELEASE:
        content = (releases["new"] / name).read_bytes()
        assert not content.startswith((b"\x80", b"PK"))
        assert not name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))
        if not name.endswith((".safetensors", ".py")):
            assert b"/tmp/" not in content
            assert str(ROOT).encode() not in content


def test_config_and_processor_say_where_their_code_is(releases):
    config, processor = (
        json.loads((releases["new"] / name).read_text()) for name in ("config.json", "processor_config.json")
    )
    assert config["auto_map"] == {
        "AutoConfig": "configuration_videoqa.VideoQAConfig",
        "AutoModel": "modeling_videoqa.VideoQAModel",
        "AutoModelForMultipleChoice": "modeling_videoqa.VideoQAForMultipleChoice",
        "AutoProcessor": "processing_videoqa.VideoQAProcessor",
    }
    assert processor["auto_map"] == {"AutoProcessor": "processing_videoqa.VideoQAProcessor"}
    assert config["custom_pipelines"]["video-question-answering"]["impl"] == "pipeline_videoqa.VideoQAPipeline"


def test_with_the_package_no_remote_code_is_asked_for(releases, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("remote code was loaded")

    for module in ("auto_factory", "configuration_auto", "processing_auto"):
        monkeypatch.setattr(f"transformers.models.auto.{module}.get_class_from_dynamic_module", refuse)
    monkeypatch.setattr("transformers.pipelines.get_class_from_dynamic_module", refuse)
    folder = releases["new"]
    assert type(AutoConfig.from_pretrained(folder)) is VideoQAConfig
    assert type(AutoModel.from_pretrained(folder)) is VideoQAModel
    assert type(AutoModelForMultipleChoice.from_pretrained(folder)) is VideoQAForMultipleChoice
    assert type(AutoProcessor.from_pretrained(folder)) is VideoQAProcessor
    qa = pipeline("video-question-answering", model=str(folder))
    assert type(qa) is VideoQAPipeline
    assert type(qa.processor) is VideoQAProcessor


def test_a_folder_appears_whole_or_not_at_all(stage, tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        stage("new", tmp_path / "release", template=tmp_path / "nowhere.md")
    with pytest.raises(FileNotFoundError, match="Allowed: the text of a licence"):
        stage("new", tmp_path / "release", license_file=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"is no folder\. Allowed: the folder of a run"):
        stage("nowhere", tmp_path / "release")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        stage("new", tmp_path)


@pytest.mark.parametrize("gone", ["processor_config.json", "tokenizer.json"])
def test_a_model_without_its_processor_is_named(runs, stage, tmp_path, gone):
    shutil.copytree(runs / "new", tmp_path / "run")
    for name in (gone, "tokenizer_config.json"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(ValueError, match="processor") as caught:
        stage_release(tmp_path / "run", tmp_path / "out", template=TEMPLATE, license_file=LICENSE)
    assert "Allowed" in str(caught.value)


@pytest.mark.parametrize("name", ["optimizer.pt", ".env", "notes.txt", "deep/config.json", "state.json", "link.json"])
def test_nothing_strange_goes_with_a_release(releases, tmp_path, name):
    folder = shutil.copytree(releases["new"], tmp_path / "release")
    (folder / name).parent.mkdir(exist_ok=True)
    if name == "link.json":
        (folder / name).symlink_to("/etc/hosts")
    else:
        (folder / name).write_bytes(b"PK\x03\x04" if name == "state.json" else b"{}")  # a zip under a harmless name
    for use in (release_files, check_release, lambda folder: push_release(folder, REPO)):
        with pytest.raises(ValueError, match=f"no part of a release: {name}. Allowed"):
            use(folder)


def test_a_folder_with_something_missing_is_no_release(releases, tmp_path):
    folder = shutil.copytree(releases["new"], tmp_path / "release")
    (folder / "model.safetensors").unlink()
    (folder / "LICENSE").unlink()
    with pytest.raises(ValueError, match=r"has no LICENSE, model.safetensors. Allowed"):
        release_files(folder)


# --- the check


def test_a_release_answers_without_the_package(releases, runs, example):
    found = check_release(releases["new"], reference=runs / "new", example=example)
    assert {kind: name.rpartition(".")[2] for kind, name in found["classes"].items()} == {
        "AutoConfig": "VideoQAConfig", "AutoModel": "VideoQAModel", "AutoProcessor": "VideoQAProcessor",
        "AutoModelForMultipleChoice": "VideoQAForMultipleChoice", "pipeline": "VideoQAPipeline",
    }  # fmt: skip
    assert all(name.startswith("transformers_modules.") for name in found["classes"].values())
    assert found["answers"].keys() == {"text", "frames", "example"}
    same(found["answers"], told_by(runs / "new", example))


def test_the_package_is_really_out_of_reach(releases, tmp_path):
    folder = shutil.copytree(releases["new"], tmp_path / "release")
    with (folder / "loss_videoqa.py").open("a") as file:
        file.write("\nimport modeling_videoqa  # the package, which is installed here\n")
    with pytest.raises(RuntimeError, match=r"(?s)without this package. Allowed: .*'modeling_videoqa' \(refused"):
        check_release(folder)


@pytest.mark.parametrize("change", ["logits", "batch", "kind", "pipeline"])
def test_other_answers_are_noticed(releases, monkeypatch, change):
    told = told_by(releases["new"])
    found = {"answers": told, "pipeline": told["text"]["answers"][0]["answer"]}
    monkeypatch.setattr(hub, "answers_elsewhere", lambda *args, **kwargs: [json.loads(json.dumps(found))])
    assert check_release(releases["new"])["answers"] == told
    if change == "logits":
        told["frames"]["logits"][1][2] += 0.01
    elif change == "batch":
        told["text"]["batch"]["input_ids"] = "other"
    elif change == "kind":
        del told["frames"]
    else:
        found["pipeline"] = "nothing of the kind"
    with pytest.raises(RuntimeError, match="Allowed: the same"):
        check_release(releases["new"])


# --- the Hub


def test_push_load_by_name_push_again_and_load_the_old_one(loopback, releases, example, tmp_path, caplog):
    first = push_release(releases["old"], REPO, token=loopback.token)
    repo = loopback.repos[REPO]
    assert repo.private
    assert repo.commits[first.oid].keys() == {*RELEASE, ".gitattributes"}
    assert loopback.calls.count("commit") == 1
    # What the old release had and the new one has not goes; what somebody else put there stays.
    api = huggingface_hub.HfApi(token=loopback.token)
    kept, stale = ("pictures/a.png", "NOTES.md"), ("old_videoqa.py", "pytorch_model.bin", "added_tokens.json")
    for path in (*kept, *stale):
        api.upload_file(path_or_fileobj=b"{}", path_in_repo=path, repo_id=REPO)
    # An interrupted push changes nothing, and the same command goes on.
    before = dict(repo.branches)
    loopback.fails = {"commit"}
    with pytest.raises(ConnectionError, match=f"{REPO} holds what it held before.*Allowed: pushing again"):
        push_release(releases["new"], REPO, token=loopback.token)
    assert repo.branches == before
    loopback.fails = set()
    loopback.calls.clear()
    second = push_release(releases["new"], REPO, token=loopback.token, message="A better one")
    assert "put" not in loopback.calls  # the weights were there already
    assert repo.branches == {"main": second.oid}
    assert repo.log[-1] == ("main", second.oid, "A better one")
    assert repo.commits[second.oid].keys() == {*RELEASE, ".gitattributes", *kept}
    for name in RELEASE:
        assert repo.commits[second.oid][name] == (releases["new"] / name).read_bytes()

    new, old = answers_elsewhere([(REPO, None), (REPO, first.oid)], offline=False, example=example)
    for found, name in ((new, "new"), (old, "old")):
        same(found["answers"], told_by(releases[name], example))
        assert all(kind.startswith("transformers_modules.me.tiny_hyphen_videoqa") for kind in found["classes"].values())
    assert new["answers"]["text"]["logits"] != old["answers"]["text"]["logits"]

    # Out of the cache that the other process left, with the server out of reach and the package installed.
    loopback.fails = {"info", "tree", "resolve"}
    options = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    model = AutoModelForMultipleChoice.from_pretrained(REPO, **options)
    assert type(model) is VideoQAForMultipleChoice
    processor = AutoProcessor.from_pretrained(REPO, **options)
    same(json.loads(json.dumps(fresh.answer(model, processor, example))), new["answers"])


def test_a_push_to_a_branch_leaves_main_alone(loopback, releases, caplog):
    push_release(releases["old"], REPO, token=loopback.token, private=False)
    repo = loopback.repos[REPO]
    assert not repo.private
    main = repo.branches["main"]
    commit = push_release(releases["new"], REPO, token=loopback.token, revision="v2")
    assert repo.branches == {"main": main, "v2": commit.oid}
    assert "is public: what is pushed there is public too" in caplog.text
    again = push_release(releases["old"], REPO, token=loopback.token, revision="v2", private=False)
    assert repo.branches == {"main": main, "v2": again.oid}


def test_a_commit_of_somebody_else_in_the_meantime_is_not_overwritten(loopback, releases):
    push_release(releases["old"], REPO, token=loopback.token)
    repo = loopback.repos[REPO]
    loopback.before["preupload"] = lambda: repo.commit("main", {"README.md": b"other"}, "somebody else")
    with pytest.raises(ConnectionError, match="holds what it held before"):
        push_release(releases["new"], REPO, token=loopback.token)
    assert repo.log[-1] == ("main", repo.branches["main"], "somebody else")


def test_a_repository_without_a_processor_is_named(loopback, releases, tmp_path):
    push_release(releases["new"], REPO, private=False, token=loopback.token)
    assert hub.load_processor(REPO).max_text_length == 24
    api = huggingface_hub.HfApi(token=loopback.token)
    api.delete_file("processor_config.json", REPO)
    with pytest.raises(ValueError, match=f"{REPO} holds a model and no processor: processor_config.json.*Allowed"):
        hub.load_processor(REPO)
    assert (tmp_path / "cache").is_dir()


def test_a_wrong_token_is_said(loopback, releases, monkeypatch):
    with pytest.raises(PermissionError, match=r"does not let this token write to me/tiny.*Allowed: .*hf auth login"):
        push_release(releases["new"], REPO, token="hf_wrong")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(PermissionError, match="Allowed: a token with write access"):
        push_release(releases["new"], REPO)
    assert loopback.repos == {}


def test_no_connection_is_said(loopback, releases):
    loopback.fails = {"lfs_batch", "create"}
    with pytest.raises(ConnectionError, match="Give the same command"):
        push_release(releases["new"], REPO, token=loopback.token)
    with pytest.raises(ValueError, match="Allowed: user/name"):
        push_release(releases["new"], "tiny", token=loopback.token)


def test_the_script_stages_checks_tells_and_pushes(loopback, runs, releases, monkeypatch, capsys, tmp_path):
    sys.path.insert(0, str(ROOT / "examples"))
    import push_to_hub

    checked = []
    monkeypatch.setattr(push_to_hub, "check_release", lambda folder, reference: checked.append(release_files(folder)))
    (tmp_path / "card.yaml").write_text("speed: 31 questions a second on two cores\n")
    arguments = ["push_to_hub.py", "--model", str(runs / "new"), "--repo_id", REPO, "--twin", str(runs / "twin")]
    arguments += ["--card_fields", str(tmp_path / "card.yaml")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--dry_run"])
    push_to_hub.main()
    said = capsys.readouterr().out
    listed = dict(reversed(line.split()) for line in said.splitlines() if re.match(r" *[\d,]+  \S+$", line))
    assert {name: int(size.replace(",", "")) for name, size in listed.items()} == checked[0]
    assert "Nothing was sent" in said
    assert loopback.calls == []
    monkeypatch.setattr(sys, "argv", [*arguments, "--public", "--message", "First"])
    push_to_hub.main()
    repo = loopback.repos[REPO]
    assert not repo.private
    assert repo.log[-1][2] == "First"
    assert b"31 questions a second" in repo.commits[repo.branches["main"]]["README.md"]
    for name in ("tiny", "me/", "me/tiny/videoqa"):
        monkeypatch.setattr(sys, "argv", ["push_to_hub.py", "--model", "nowhere", "--repo_id", name, "--dry_run"])
        with pytest.raises(SystemExit, match=rf"--repo_id {name}\. Allowed: user/name"):
            push_to_hub.main()
    monkeypatch.setattr(sys, "argv", arguments)
    (tmp_path / "card.yaml").write_text("sped: 31\n")
    with pytest.raises(SystemExit, match=r"Unknown fields in the given values: sped. Allowed: model_name"):
        push_to_hub.main()


# --- the card


def values_of(runs, **given):
    return card_values(runs / "new", twin=runs / "twin", given=given)


def test_a_card_holds_what_was_measured_beside_the_twin(releases):
    text = (releases["new"] / "README.md").read_text()
    for line in (
        "| accuracy | 73.8 | 69.1 to 78.1 | 41.2 |",
        "| accuracy, house | 75.0 |  | 40.0 |",
        r"| accuracy, a\|b | 72.5 |  | 42.5 |",
        "| temporal mIoU | 33.1 | 30.0 to 36.0 | 11.1 |",
        "80 questions of TVQA+, 79 of them with a span, 1 without a prediction, which count as wrong.",
        "12.3 minutes of training and evaluation on cpu, 2 threads.",
        "- Seen: question, choices, subtitles and video",
        "- Versions: torch 2.13.0, python 3.11.7",
        "num_train_epochs: 3",
        f'qa = pipeline("video-question-answering", model="{REPO}", trust_remote_code=True)',
        '"video": "clip.mp4"',
        "*The Big Bang Theory*",
    ):
        assert line in text, line
    header = huggingface_hub.ModelCard(text).data
    assert (header.library_name, header.license, header.language) == ("transformers", "apache-2.0", "en")
    assert header.pipeline_tag == "video-text-to-text"
    assert {"video-question-answering", "multiple-choice", "tvqa_plus"} <= set(header.tags)
    assert header.widget[0]["text"].startswith(fresh.QUESTIONS[0])
    assert header.base_model is None  # the tiny encoder is a folder of this machine
    assert header.datasets is None  # as the data set's name on the Hub was not given


def test_a_card_names_all_that_its_code_imports(releases):
    # What transformers asks for before it loads the code; tqdm comes with transformers, Pillow does not.
    imported = {name for file in CODE for name in get_imports(releases["new"] / file)} - sys.stdlib_module_names
    assert imported == {"PIL", "numpy", "torch", "tqdm", "transformers"}
    assert "It needs transformers, torch, numpy, Pillow and PyAV" in (releases["new"] / "README.md").read_text()


def test_what_is_not_known_is_left_out(runs, tmp_path):
    text = render_card(TEMPLATE, card_values(tmp_path))
    for word in ("None", "Results", "Environmental", "minutes", "interval", "twin", "Speed", "recipe", "model-index"):
        assert word not in text, word
    (tmp_path / "metrics.json").write_text(json.dumps({"accuracy": 0.5, "questions": 4}))
    text = render_card(TEMPLATE, card_values(tmp_path))
    assert "| accuracy | 50.0 |" in text
    assert "No question-only twin" in text
    for word in ("None", "interval", "mIoU", "model-index", "Environmental"):
        assert word not in text, word
    # Every number in the results is one that was measured.
    results = render_card(TEMPLATE, values_of(runs)).split("## Results")[1].split("## Training")[0]
    table = re.findall(r"\d+\.\d", results)
    shares = [METRICS["accuracy"], METRICS["miou"], *METRICS["accuracy_by_group"].values(), TWIN["accuracy"]]
    shares += [TWIN["miou"], *TWIN["accuracy_by_group"].values(), *METRICS["intervals"]["accuracy"], 0.3, 0.36]
    assert sorted(table) == sorted(f"{100 * share:.1f}" for share in shares)


@pytest.mark.parametrize("takes", ["text", "features", "pictures"])
@pytest.mark.parametrize("data", [None, *DATASETS])
def test_every_card_is_well_formed(runs, takes, data):
    values = values_of(runs) | {"takes": takes, "data": data, "config": {"video_feature_size": 8}}
    text = render_card(TEMPLATE, values)
    assert "\n\n\n" not in text
    assert "None" not in text
    assert "{" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert ('"video": "clip.mp4"' in text) == (takes == "pictures")
    assert ("about twice chance" in text) == (data != "mini")  # the mini corpus gives nothing away
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert len([line for line in code.splitlines() if line]) == 5


def test_given_values_are_in_the_card(runs):
    index = {"name_or_path": "microsoft/resnet-101", "frame_rate": 3.0, "weights_sha256": "ab12"}
    given = {
        "dataset_id": "me/clips", "split": "validation", "base_model": "a/b", "speed": "31 questions a second",
        "memory": "2 GiB", "limits": "Only hats.", "bias": "Many hats.", "intended_use": "Hats.", "features": index,
        "data_notes": "descriptions stand for the dialogue", "language": "ko", "license": "mit",
        "example": {"question": "Hat?", "choices": ["yes", "no"]},
    }  # fmt: skip
    text = render_card(TEMPLATE, values_of(runs, **given))
    for value in (*(value for value in given.values() if isinstance(value, str)), "weights SHA-256 `ab12`", "Hat?"):
        assert value in text, value
    header = huggingface_hub.ModelCard(text).data
    assert (header.datasets, header.base_model, header.license, header.language) == (["me/clips"], "a/b", "mit", "ko")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ acuracy }}", "Unknown fields in the template .*: acuracy. Allowed: model_name, repo_id"),
        ("{% if speed %}{{ sped }}{% endif %}", "Unknown fields in the template .*: sped. Allowed"),
        ("{% for row in results %}{{ row.mean }}{% endfor %}", "cannot be filled: .*mean.*Correct the template"),
        ("{% if speed %}", "cannot be filled: .*Allowed: jinja2"),
        ("{{ model_name.__class__.__mro__ }}", "cannot be filled: .*unsafe"),
    ],
)
def test_a_template_with_what_there_is_not_is_an_error(runs, tmp_path, text, message):
    (tmp_path / "card.md").write_text(text)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        render_card(tmp_path / "card.md", values_of(runs))


def test_unknown_and_unreadable_values_are_errors(runs, tmp_path):
    with pytest.raises(ValueError, match=r"given values: accuracy. Allowed: model_name"):
        values_of(runs, accuracy=1.0)  # what is measured cannot be given
    with pytest.raises(ValueError, match=r"values of the card: sped. Allowed"):
        render_card(TEMPLATE, {"sped": 1})
    (tmp_path / "metrics.json").write_text("[0.5]")
    with pytest.raises(ValueError, match=r"metrics.json cannot be read as a mapping .*Allowed"):
        card_values(tmp_path)


@pytest.mark.parametrize(
    ("metrics", "recipe", "message"),
    [
        (TWIN, RECIPE, "saw subtitles, video. Allowed"),
        (TWIN | {"questions": 79}, RECIPE | {"inputs": {}}, "has questions 79, the model 80. Allowed"),
        (TWIN, RECIPE | {"inputs": {}, "data": "tvqa"}, "has data 'tvqa', the model 'tvqa_plus'. Allowed"),
        ({"minutes": 1.0}, RECIPE, "holds no metrics of a twin. Allowed"),
    ],
)
def test_what_is_no_twin_is_refused(runs, tmp_path, metrics, recipe, message):
    twin = write_run(tmp_path / "twin", None, None, metrics, recipe)
    for path in (twin, twin / "metrics.json"):
        with pytest.raises(ValueError, match=re.escape(message)):
            card_values(runs / "new", twin=path)


def test_evaluation_results_are_read_by_the_hub_in_the_new_form(releases, runs):
    if not hasattr(huggingface_hub, "parse_eval_result_entries"):
        pytest.skip("this huggingface_hub does not know the new form")
    text = (releases["new"] / ".eval_results" / "videoqa.yaml").read_text()
    entries = huggingface_hub.parse_eval_result_entries(yaml.safe_load(text))
    (entry,) = entries
    assert (entry.dataset_id, entry.task_id, entry.value) == ("tvqa_plus", "default", METRICS["accuracy"])
    assert entry.notes == "80 questions; 95% interval 69.1 to 78.1 %; question-only twin 41.2 %"
    assert huggingface_hub.eval_result_entries_to_yaml(entries) == evaluation_results(values_of(runs))


def test_evaluation_results_are_read_by_the_hub_in_the_older_form(releases):
    found = huggingface_hub.ModelCard.load(releases["new"] / "README.md").data.eval_results
    assert {result.metric_type: result.metric_value for result in found} == {"accuracy": 0.7375, "miou": 0.331}
    assert {(result.dataset_name, result.dataset_type) for result in found} == {("TVQA+", "tvqa_plus")}


def test_the_card_cites_what_the_citation_file_does():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    text = TEMPLATE.read_text()
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in cited["authors"])
    for value in (cited["title"], authors, cited["collection-title"], cited["year"], cited["volume"], cited["issue"]):
        assert f"{{{value}}}" in text, value
    assert f"{{{cited['start']}--{cited['end']}}}" in text


def test_the_fields_are_told_apart():
    assert not set(card.GIVEN_FIELDS) & set(card.MEASURED_FIELDS)
    used = set(re.findall(r"\w+", " ".join(re.findall(r"{[{%](.*?)[%}]}", TEMPLATE.read_text(), flags=re.DOTALL))))
    only_in_files = {"dataset_id", "task_id"}  # of the header and of .eval_results
    assert set(CARD_FIELDS) - only_in_files <= used


@pytest.mark.parametrize("module", [hub, card], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_are_right(failed_examples, module):
    assert failed_examples(module) == 0
