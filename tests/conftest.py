"""Tiny models, batches and a tokenizer that the tests share. Nothing here needs the network."""

import doctest
import re
import string
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "the a an is are was what who where when why how does do did after before with and of on in to his her it he she "
    "cup door coat table chair book phone man woman red blue green puts takes opens closes says looks house bernard "
    "sheldon penny leonard ##s ##ed ##ing ##er"
)
PIECES = list(string.ascii_lowercase + string.digits)
VOCABULARY = list(
    dict.fromkeys(SPECIAL + list(string.punctuation) + WORDS.split() + PIECES + ["##" + piece for piece in PIECES])
)
TINY_TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 192,
}
# Without dropout, what a model computes in training can be compared.
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(autouse=True)
def _same_numbers_in_every_run():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_datasets(tmp_path_factory):
    """Tables that tests build are kept in a folder of the test run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="session")
def real():
    """Folder of the released files, which are never part of the project."""
    folder = Path(__file__).parents[2] / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_encoder_dir(tmp_path_factory):
    """Folder of a random BERT of two layers, 32 wide, with a WordPiece tokenizer that knows every ASCII letter."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    BertTokenizer(vocab={word: number for number, word in enumerate(VOCABULARY)}).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(**TINY_TEXT)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_encoder_dir):
    return BertTokenizer.from_pretrained(tiny_encoder_dir)


@pytest.fixture
def make_config():
    """`make_config(**fields)`: a tiny config; `text_config` adds to the fields of a tiny BERT without dropout."""

    def make(text_config=None, **fields):
        if text_config is None or isinstance(text_config, dict):
            text_config = BertConfig(**{**TINY_TEXT, **NO_DROPOUT, **(text_config or {})})
        return VideoQAConfig(
            **{"text_config": text_config, "video_feature_size": 6, "max_text_length": 12, "num_frames": 2} | fields
        )

    return make


@pytest.fixture
def make_model(make_config):
    """
    `make_model(seed=0, **fields)`: a tiny model, everything trained, in evaluation mode. All weights are drawn anew,
    large enough that every input shows in the output.
    """

    def make(seed=0, scale=0.3, **fields):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = VideoQAForMultipleChoice(make_config(**{"num_tuned_text_layers": None} | fields)).eval()
            for parameter in model.parameters():
                parameter.data += scale * torch.randn_like(parameter)
        return model

    return make


@pytest.fixture
def make_batch():
    """
    `make_batch(...)`: a random batch as the collator makes it, with all targets. `segments` are the lengths of the
    clips; the lengths of the rows and the frames that are there are drawn.
    """

    def make(seed=0, segments=(3, 1, 2), num_choices=5, num_frames=2, length=12, width=6):
        draw = torch.Generator().manual_seed(seed)
        size, longest = len(segments), max(segments)
        shape = (size, num_choices, longest, length)
        segment_mask = torch.arange(longest) < torch.tensor(segments)[:, None]
        lengths = torch.randint(5, length + 1, shape[:3], generator=draw)
        attention_mask = (torch.arange(length) < lengths[..., None]) & segment_mask[:, None, :, None]
        input_ids = torch.randint(len(SPECIAL), len(VOCABULARY), shape, generator=draw)
        input_ids[..., 0] = SPECIAL.index("[CLS]")
        token_type_ids = torch.sort(torch.randint(0, 4, shape, generator=draw), dim=-1).values
        token_type_ids[..., 0] = 0
        labels = torch.randint(num_choices, (size,), generator=draw)
        anchor = input_ids[torch.arange(size), labels].clone()
        anchor[..., 2] = SPECIAL.index("[MASK]")
        frame_mask = torch.rand(size, longest, num_frames, generator=draw) < 0.7
        frame_mask[:, 0, 0] = True
        frame_mask &= segment_mask[..., None]
        features = torch.randn(size, longest, num_frames, width, generator=draw)
        start = (torch.rand(size, generator=draw) * torch.tensor(segments)).long()
        end = start + (torch.rand(size, generator=draw) * (torch.tensor(segments) - start)).long()
        return {
            "input_ids": input_ids * attention_mask,
            "attention_mask": attention_mask.long(),
            "token_type_ids": token_type_ids * attention_mask,
            "segment_mask": segment_mask,
            "video_features": features * frame_mask[..., None],
            "frame_mask": frame_mask,
            "anchor_input_ids": anchor * attention_mask[torch.arange(size), labels],
            "labels": labels,
            "start_positions": start,
            "end_positions": end,
        }

    return make


@pytest.fixture
def failed_examples():
    """`failed_examples(module)`: how many examples in the docstrings of a module fail; they stand in code fences."""

    class Fenced(doctest.DocTestParser):
        def parse(self, string, name="<string>"):
            return super().parse(re.sub(r"^ *```.*$", "", string, flags=re.MULTILINE), name)

    def run(module):
        runner = doctest.DocTestRunner()
        for test in doctest.DocTestFinder(parser=Fenced()).find(module):
            runner.run(test)
        assert runner.tries, f"no example in {module.__name__}"
        return runner.failures

    return run
