"""Masked rows and swapped questions: what they hold, and that a draw depends on seed, epoch and qid alone."""

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import TrainerControl, TrainerState

from processing import EpochCallback, VideoQACollator, VideoQAProcessor
from processing.collator import QuestionPool

CHOICES = ["the man", "his phone", "a green book"]
SHORT = [{"start": 0.0, "end": 1.0, "speaker": "penny", "text": "the red cup"}]
LONG = [{"start": float(t), "end": t + 0.5, "text": "the woman says where the blue coat is"} for t in range(3)]


@pytest.fixture(scope="module")
def processor(tiny_tokenizer):
    return VideoQAProcessor(tiny_tokenizer, max_text_length=24, mask_probability=0.5, video_feature_size=None)


@pytest.fixture(scope="module")
def make_example(processor):
    """`make_example(qid, ...)`: an example as the data set makes it."""

    def make(qid="q", question="who opens the door", subtitles=SHORT, label=1, choices=CHOICES, clip_id="c"):
        clip = processor.prepare_clip(subtitles, objects=[{"time": 0.5, "labels": ["table", "chair"]}])
        targets = processor.targets(clip["segment_times"], label, len(choices), 0.0, 0.5)
        return {"qid": qid, "clip_id": clip_id, **processor.prepare_question(question, choices), **clip, **targets}

    return make


def anchor(collate, *examples, place=0):
    """The masked rows of one of the examples, without the padding."""
    batch = collate(examples)
    real = batch["attention_mask"][place, batch["labels"][place].clamp(min=0)].bool()
    return [ids[mask].tolist() for ids, mask in zip(batch["anchor_input_ids"][place], real, strict=True) if mask.any()]


class TestMaskedRows:
    @pytest.fixture
    def with_probability(self, tiny_tokenizer):
        def make(probability, **options):
            processor = VideoQAProcessor(tiny_tokenizer, max_text_length=24, mask_probability=probability)
            return VideoQACollator(processor, **options)

        return make

    def test_a_probability_of_one_leaves_only_special_tokens(self, with_probability, make_example):
        collate = with_probability(1.0)
        batch = collate([make_example(), make_example("r", subtitles=LONG, label=0)])
        tokens = collate.processor.tokenizer.convert_ids_to_tokens(batch["anchor_input_ids"][0, 0].tolist())
        # who opens the door / his phone / penny : the red cup / table chair
        parts = ["[MASK] " * size + "[SEP]" for size in (4, 2, 5, 2)]
        assert " ".join(tokens).split(" [PAD]")[0] == "[CLS] " + " ".join(parts)
        empty = batch["attention_mask"][torch.arange(2), batch["labels"]] == 0
        assert (batch["anchor_input_ids"][empty] == collate.processor.tokenizer.pad_token_id).all()
        assert empty[0, 1:].all()

    def test_a_probability_of_zero_leaves_the_correct_rows(self, with_probability, make_example):
        batch = with_probability(0.0)([make_example(label=2), make_example("r", subtitles=LONG, label=0)])
        assert torch.equal(batch["anchor_input_ids"], batch["input_ids"][torch.arange(2), batch["labels"]])

    def test_only_text_of_the_correct_row_is_replaced(self, processor, make_example):
        collate, tokenizer = VideoQACollator(processor), processor.tokenizer
        examples = [make_example(label=2), make_example("r", subtitles=LONG, label=0)]
        special = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id])
        plain = processor.pad(examples)
        for epoch in range(20):
            collate.set_epoch(epoch)
            batch = collate(examples)
            assert all(torch.equal(batch[name], plain[name]) for name in plain)
            correct = batch["input_ids"][torch.arange(2), batch["labels"]]
            changed = batch["anchor_input_ids"] != correct
            assert changed.any()
            assert not changed[torch.isin(correct, special)].any()
            assert (batch["anchor_input_ids"][changed] == tokenizer.mask_token_id).all()

    @pytest.mark.parametrize("probability", [0.2, 0.7])
    def test_every_kind_of_text_is_masked_at_the_rate(self, with_probability, make_example, probability):
        collate = with_probability(probability)
        batches = []
        for epoch in range(20):
            collate.set_epoch(epoch)
            batches.append(collate([make_example(f"q{number}") for number in range(20)]))
        # who opens the door / his phone / penny : the red cup / table chair
        places = {"question": range(1, 5), "answer": range(6, 8), "subtitle": range(9, 14), "objects": range(15, 17)}
        for text, columns in places.items():
            ids = torch.cat([batch["anchor_input_ids"][:, 0, list(columns)] for batch in batches])
            rate = float((ids == collate.processor.tokenizer.mask_token_id).float().mean())
            assert rate == pytest.approx(probability, abs=0.03), text

    def test_none_without_the_contrastive_loss(self, processor, make_example):
        assert "anchor_input_ids" not in VideoQACollator(processor, contrastive=False)([make_example()])

    def test_a_question_without_a_label_has_no_part_in_the_loss(self, processor, make_example, make_model):
        model = make_model(max_text_length=24, video_feature_size=None)
        collate = VideoQACollator(processor)
        unknown = collate([make_example(label=None)])
        assert unknown["labels"].tolist() == [-100]
        with torch.no_grad():
            outputs = model(**unknown)
            assert (outputs.qa_loss, outputs.contrastive_loss) == (0, 0)
            known = model(**collate([make_example()]))
            both = model(**collate([make_example(), make_example("r", label=None)]))
        torch.testing.assert_close(both.contrastive_loss, known.contrastive_loss)
        torch.testing.assert_close(both.qa_loss, known.qa_loss)


class TestDraws:
    @pytest.fixture
    def swap(self, make_example):
        """A pool of twelve questions, four of each of three clips."""
        who, what = ("who", "why", "where"), ("opens it", "closes it", "says it", "puts it")
        examples = [make_example(question=f"{first} {second}", clip_id=first) for first in who for second in what]
        return QuestionPool([e["question_ids"][0] for e in examples], [e["clip_id"] for e in examples])

    @pytest.fixture(params=["answers", "questions"])
    def collate(self, request, processor, swap):
        return VideoQACollator(processor, question_pool=swap if request.param == "questions" else None)

    def drawn(self, collate, *examples, place=0):
        """Everything drawn for one example: which questions, their order, and what is masked."""
        batch = collate(examples)
        real = batch["attention_mask"][place].bool()
        return batch["input_ids"][place][real].tolist(), anchor(collate, *examples, place=place)

    def test_neither_companions_nor_order_nor_padding_matter(self, collate, make_example):
        # Two segments: beside longer rows the second one's draws would move first.
        example = make_example(subtitles=[*SHORT, {"start": 2.0, "end": 3.0, "text": "he looks"}])
        others = [make_example("r", subtitles=LONG, label=0), make_example("s")]
        alone = self.drawn(collate, example)
        assert self.drawn(collate, example, *others) == alone
        assert self.drawn(collate, *others, example, place=2) == alone
        assert self.drawn(collate, others[1], example, place=1) == alone

    def test_neither_the_clip_nor_the_question_matter_to_what_is_masked(self, processor, make_example):
        collate, mask = VideoQACollator(processor), processor.tokenizer.mask_token_id
        masked = [
            [token == mask for token in anchor(collate, make_example(question=question, clip_id=clip_id))[0]]
            for question, clip_id in (("who opens the door", "c"), ("what does she do", "d"))
        ]
        assert masked[0] == masked[1]

    def test_calling_again_repeats_them(self, collate, make_example, processor, swap):
        examples = [make_example(), make_example("r")]
        first = self.drawn(collate, *examples)
        torch.manual_seed(1)
        assert self.drawn(collate, *examples) == first
        again = VideoQACollator(processor, question_pool=collate.question_pool)
        assert self.drawn(again, *examples) == first

    def test_epoch_seed_and_qid_each_matter(self, collate, processor, make_example):
        example = make_example(subtitles=LONG)
        draws = [self.drawn(collate, example), self.drawn(collate, example | {"qid": "r"})]
        collate.set_epoch(1)
        draws.append(self.drawn(collate, example))
        seeded = VideoQACollator(processor, question_pool=collate.question_pool, seed=1)
        draws.append(self.drawn(seeded, example))
        for place in range(4):
            assert draws[place] not in draws[:place]

    def test_loader_workers_draw_the_same_and_hear_of_the_epoch(self, collate, make_example):
        examples = [make_example(f"q{number}") for number in range(6)]
        callback, state = EpochCallback(collate), TrainerState()
        loader = DataLoader(examples, 2, collate_fn=collate, num_workers=1, persistent_workers=True)
        seen = []
        for epoch in (0.0, 1.0, 2.0):
            state.epoch = epoch
            callback.on_epoch_begin(None, state, TrainerControl())
            from_worker = list(loader)
            here = [collate(examples[start : start + 2]) for start in (0, 2, 4)]
            for batch, expected in zip(from_worker, here, strict=True):
                assert all(torch.equal(batch[name], expected[name]) for name in expected)
            seen.append(torch.cat([batch["anchor_input_ids"] for batch in from_worker]))
        assert not torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[1], seen[2])

    @pytest.mark.parametrize(("said", "epoch"), [(None, 0), (0.0, 0), (1.0, 1), (1.5, 1), (2.999, 2)])
    def test_the_callback_tells_the_epoch_that_is_being_trained(self, processor, make_example, said, epoch):
        told, expected = VideoQACollator(processor), VideoQACollator(processor)
        expected.set_epoch(epoch)
        told.set_epoch(7)
        EpochCallback(told).on_epoch_begin(None, TrainerState(epoch=said), TrainerControl())
        assert anchor(told, make_example()) == anchor(expected, make_example())


class TestSwappedQuestions:
    # Clip "c" is asked about in two other ways; "who is it" is asked of another clip in the same words.
    QUESTIONS = (
        ("c", "who is it"),
        ("c", "who opens the door"),
        ("d", "who is it"),
        ("d", "why is he in the house"),
        ("e", "what does she do"),
        ("e", "what does she do"),
        ("f", "where is the book"),
    )

    @pytest.fixture
    def make_pool(self, processor):
        def make(questions):
            ids = [processor.prepare_question(text, CHOICES)["question_ids"][0] for _, text in questions]
            return QuestionPool(ids, [clip_id for clip_id, _ in questions])

        return make

    def questions(self, processor, batch):
        """The question of each row of the first segment, and what follows it."""
        rows = (processor.tokenizer.convert_ids_to_tokens(ids.tolist()) for ids in batch["input_ids"][0, :, 0])
        return zip(*(" ".join(row).removeprefix("[CLS] ").split(" [SEP] ", 1) for row in rows), strict=True)

    def test_rows_hold_questions_and_no_answer(self, processor, make_example, make_pool):
        collate = VideoQACollator(processor, question_pool=make_pool(self.QUESTIONS))
        places, drawn = set(), set()
        for epoch in range(40):
            collate.set_epoch(epoch)
            batch = collate([make_example(question="who is it")])
            questions, rest = self.questions(processor, batch)
            label = int(batch["labels"][0])
            assert questions[label] == "who is it"
            others = set(questions) - {"who is it"}
            assert len(others) == len(CHOICES) - 1
            assert others <= {"why is he in the house", "what does she do", "where is the book"}
            for text in rest:
                assert (
                    text.removesuffix(" [PAD]").split(" [PAD]")[0]
                    == "[MASK] [SEP] penny : the red cup [SEP] table chair [SEP]"
                )
            places.add(label)
            drawn |= others
        assert places == {0, 1, 2}
        assert len(drawn) == 3

    def test_token_types_and_segments(self, processor, make_example, make_pool):
        collate = VideoQACollator(processor, question_pool=make_pool(self.QUESTIONS))
        batch = collate([make_example(question="who is it", subtitles=LONG)])
        own = int(batch["labels"][0])
        types = batch["token_type_ids"][0, own, 0][batch["attention_mask"][0, own, 0].bool()]
        # [CLS] who is it [SEP] / [MASK] [SEP] / the woman says where the blue coat is [SEP] / table chair [SEP]
        assert types.tolist() == [0] * 5 + [1] * 2 + [2] * 9 + [3] * 3
        assert batch["segment_mask"].tolist() == [[True] * 3]
        assert (batch["start_positions"].tolist(), batch["end_positions"].tolist()) == ([0], [0])

    def test_the_masked_row_is_that_of_the_own_question(self, processor, make_example, make_pool):
        collate = VideoQACollator(processor, question_pool=make_pool(self.QUESTIONS))
        for epoch in range(5):
            collate.set_epoch(epoch)
            batch = collate([make_example(question="who is it")])
            own = batch["input_ids"][0, batch["labels"][0]]
            changed = batch["anchor_input_ids"][0] != own
            assert (batch["anchor_input_ids"][0][changed] == processor.tokenizer.mask_token_id).all()

    def test_an_example_is_not_changed(self, processor, make_example, make_pool):
        example = make_example(question="who is it", label=2)
        VideoQACollator(processor, question_pool=make_pool(self.QUESTIONS))([example])
        assert example["labels"] == 2
        assert len(example["choice_ids"]) == 3

    def test_questions_without_a_label_can_be_trained_on(self, processor, make_example, make_pool):
        collate = VideoQACollator(processor, question_pool=make_pool(self.QUESTIONS))
        assert int(collate([make_example(question="who is it", label=None)])["labels"][0]) in range(3)

    @pytest.mark.parametrize(
        ("questions", "found"),
        [
            (QUESTIONS[:4], 1),  # of the other clip's two questions one is the same as the own
            ((*QUESTIONS[:2], *QUESTIONS[4:6]), 1),  # twice the same words
            (QUESTIONS[:2], 0),
        ],
    )
    def test_too_few_questions_of_other_clips(self, processor, make_example, make_pool, questions, found):
        collate = VideoQACollator(processor, question_pool=make_pool(questions))
        with pytest.raises(ValueError, match=rf"only {found} questions.*'q7'.*Allowed: at least 2.*\. Use a larger"):
            collate([make_example("q7", question="who is it")])
