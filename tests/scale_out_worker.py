"""What the processes of test_scale_out.py do: runs, an ablation, answers of each process, a model in shards."""

import json
import os
import sys
from pathlib import Path

import torch
from tiny_training import ablation, call, train
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import AutoModelForMultipleChoice, AutoProcessor

from modeling_videoqa.adapters import add_adapters
from modeling_videoqa.training import predict, unsharded
from processing import VideoQADataset, load_videoqa, open_features


def main(plan: dict, rank: str) -> None:
    for arguments in plan["runs"]:
        call(train, arguments)
    call(ablation, plan["ablation"])
    model = AutoModelForMultipleChoice.from_pretrained(plan["model"])
    processor = AutoProcessor.from_pretrained(plan["model"])
    data = load_videoqa("mini", plan["corpus"])
    questions, features = data.questions["validation"], open_features(plan["features"], 2)
    answers = {}
    for number in plan["numbers"]:
        dataset = VideoQADataset(processor, questions.select(range(number)), data.clips, features)
        found = predict(model, processor, dataset, batch_size=2, progress=False)
        answers[number] = [[qid, answer["label"], answer["probabilities"]] for qid, answer in found.items()]
    (Path(plan["folder"]) / f"answers_{rank}.json").write_text(json.dumps(answers))

    adapted = AutoModelForMultipleChoice.from_pretrained(plan["model"])
    add_adapters(adapted, {"r": 2, "target_modules": ["query"]})
    weights = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    assert any(".lora_A." in name for name in weights)
    fully_shard(adapted)
    whole = unsharded(adapted)
    assert all(torch.equal(weight, weights[name]) for name, weight in whole.state_dict().items())
    trained = [parameter.requires_grad for parameter in adapted.parameters()]
    assert [parameter.requires_grad for parameter in whole.parameters()] == trained

    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert unsharded(model) is model
    for module in (*model.model.text_encoder.encoder.layer, model):
        fully_shard(module)
    sharded = sum(parameter.to_local().numel() for parameter in model.parameters())
    assert isinstance(model, FSDPModule)
    whole = unsharded(model)
    assert type(whole) is type(AutoModelForMultipleChoice.from_pretrained(plan["model"]))
    assert not whole.training
    assert all(torch.equal(weight, weights[name]) for name, weight in whole.state_dict().items())
    assert sharded < 0.6 * sum(weight.numel() for weight in weights.values())
    (Path(plan["folder"]) / f"unsharded_{rank}").touch()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), os.environ["RANK"])
