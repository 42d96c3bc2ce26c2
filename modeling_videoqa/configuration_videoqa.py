"""Configuration of the video question answering model."""

import difflib
import math

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

VISUAL_ATTENTIONS = ("local", "global")
TOKEN_TYPES = ("fractional", "binary")
SEGMENT_SPANS = ("partition", "subtitle")
# Encoders whose positions are counted from behind the padding token: 514 rows are positions for 512 tokens.
POSITIONS_BEHIND_PADDING = ("camembert", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl")


class VideoQAConfig(PreTrainedConfig):
    r"""
    Everything that decides what a [`VideoQAModel`] computes and what input it was trained on. The defaults are the
    settings of Kim et al. 2021, section 4.1.

    Args:
        text_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of the text encoder: BERT, RoBERTa, ModernBERT, DistilBERT, DeBERTa and others that return a
            last hidden state. Default: BERT-base.
        vision_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of a vision backbone with a pooled output. Default `None`: the model takes features.
        visual_attention (`str`, defaults to `"local"`):
            Frames that a text row attends to (eq. 3): `"local"`, its own segment's, or `"global"`, all of the clip.
        token_types (`str`, defaults to `"fractional"`):
            Embeddings of the four text segments: `"fractional"` E0, E1/3, 2 E1/3, E1, or `"binary"` E0, E1, E1, E1.
        segment_span (`str`, defaults to `"partition"`):
            Time that a segment covers: `"partition"`, up to the start of the next sentence, or `"subtitle"`, from the
            start to the end of its own sentence.
        num_frames (`int`, defaults to 4): Frames taken from each segment (I).
        max_segments (`int`, defaults to 40): Segments of a clip (T); more sentences are merged.
        max_text_length (`int`, defaults to 80): Tokens of a text row (L).
        frame_rate (`float`, *optional*, defaults to 3.0):
            Candidate frames per second of raw video; `None` takes every frame.
        video_feature_size (`int`, *optional*, defaults to 2048):
            Width of a frame feature (d_v). `None` builds a text-only model without the visual half.
        normalize_features (`bool`, defaults to `True`): L2-normalise each frame feature first.
        mask_probability (`float`, defaults to 0.2): Probability of masking a token of the anchor row.
        qa_loss_weight, span_loss_weight, contrastive_loss_weight (`float`, default 1.0, 0.2 and 0.1):
            Weights of the losses (eq. 10). A weight of 0 leaves the part out.
        num_tuned_text_layers (`int`, *optional*, defaults to 6):
            Top layers of the text encoder that are trained; the rest of it is frozen. An encoder with fewer layers
            keeps its embeddings frozen. `None` trains everything.
        initializer_range (`float`, defaults to 0.02): Standard deviation of new linear layers.

    Raises:
        ValueError: for a value out of range or an unknown field; the message names what is allowed.

    Example:

    ```python
    >>> from modeling_videoqa import VideoQAConfig

    >>> config = VideoQAConfig(visual_attention="global", max_text_length=170)
    >>> config.text_config.hidden_size
    768
    ```
    """

    model_type = "videoqa"
    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig}  # noqa: RUF012 (the library's own form)
    # What Trainer leaves out of its predictions: everything but the logits of the answer and of the span. A list, since
    # Trainer adds a list to it.
    keys_to_ignore_at_inference = [  # noqa: RUF012
        "qa_loss", "span_loss", "contrastive_loss", "text_logits", "video_logits", "hypotheses",
        "video_hypotheses", "anchor", "frame_attentions",
    ]  # fmt: skip

    def __init__(
        self,
        text_config: PreTrainedConfig | dict | None = None,
        vision_config: PreTrainedConfig | dict | None = None,
        visual_attention: str = "local",
        token_types: str = "fractional",
        segment_span: str = "partition",
        num_frames: int = 4,
        max_segments: int = 40,
        max_text_length: int = 80,
        frame_rate: float | None = 3.0,
        video_feature_size: int | None = 2048,
        normalize_features: bool = True,
        mask_probability: float = 0.2,
        qa_loss_weight: float = 1.0,
        span_loss_weight: float = 0.2,
        contrastive_loss_weight: float = 0.1,
        num_tuned_text_layers: int | None = 6,
        initializer_range: float = 0.02,
        **kwargs,
    ):
        if not __name__.startswith("transformers_modules."):
            kwargs.pop("custom_pipelines", None)  # that of a release; the installed package has registered its own
        code = VideoQAConfig.__init__.__code__
        _refuse_unknown_fields(kwargs, known=code.co_varnames[1 : code.co_argcount])
        self.text_config = _sub_config(text_config, "text_config", default="bert")
        self.vision_config = _sub_config(vision_config, "vision_config", default=None)
        self.visual_attention = visual_attention
        self.token_types = token_types
        self.segment_span = segment_span
        self.num_frames = num_frames
        self.max_segments = max_segments
        self.max_text_length = max_text_length
        self.frame_rate = frame_rate
        self.video_feature_size = video_feature_size
        self.normalize_features = normalize_features
        self.mask_probability = mask_probability
        self.qa_loss_weight = qa_loss_weight
        self.span_loss_weight = span_loss_weight
        self.contrastive_loss_weight = contrastive_loss_weight
        self.num_tuned_text_layers = num_tuned_text_layers
        self.initializer_range = initializer_range
        super().__init__(**kwargs)
        self.check_values()

    def check_values(self) -> None:
        """Raise a `ValueError` that names what is allowed if a field holds a value that the model cannot take."""
        _check_choice("visual_attention", self.visual_attention, VISUAL_ATTENTIONS)
        _check_choice("token_types", self.token_types, TOKEN_TYPES)
        _check_choice("segment_span", self.segment_span, SEGMENT_SPANS)
        _check_number("num_frames", self.num_frames, whole=True, low=1)
        _check_number("max_segments", self.max_segments, whole=True, low=1)
        # [CLS], three [SEP], and at least one token of the question, the answer and the sentence.
        _check_number("max_text_length", self.max_text_length, whole=True, low=7)
        if self.frame_rate is not None:
            _check_number("frame_rate", self.frame_rate, low=0.0, open_low=True)
        if self.video_feature_size is not None:
            _check_number("video_feature_size", self.video_feature_size, whole=True, low=1)
        _check_choice("normalize_features", self.normalize_features, (True, False))
        _check_number("mask_probability", self.mask_probability, low=0.0, high=1.0)
        for name in ("qa_loss_weight", "span_loss_weight", "contrastive_loss_weight"):
            _check_number(name, getattr(self, name), low=0.0)
        if self.num_tuned_text_layers is not None:
            _check_number("num_tuned_text_layers", self.num_tuned_text_layers, whole=True, low=0)
        _check_number("initializer_range", self.initializer_range, low=0.0)
        positions = getattr(self.text_config, "max_position_embeddings", None)
        if self.text_config.model_type in POSITIONS_BEHIND_PADDING:
            positions -= self.text_config.pad_token_id + 1
        if positions is not None and 0 < positions < self.max_text_length:
            raise ValueError(
                f"max_text_length={self.max_text_length}, but the text encoder has {positions} positions. "
                f"Allowed: 7 to {positions}. Lower max_text_length or take an encoder with more positions."
            )
        if self.vision_config is not None and self.video_feature_size is None:
            raise ValueError(
                "A vision_config came with video_feature_size=None, which builds a model without a visual half. "
                "Allowed: the width of the backbone's pooled output. Set video_feature_size or drop vision_config."
            )


def _sub_config(value, name: str, default: str | None) -> PreTrainedConfig | None:
    if value is None:
        return None if default is None else CONFIG_MAPPING[default]()
    if isinstance(value, PreTrainedConfig):
        return value
    if isinstance(value, dict):
        fields = dict(value)
        model_type = fields.pop("model_type", default)
        if model_type in CONFIG_MAPPING:
            return CONFIG_MAPPING[model_type](**fields)
        raise ValueError(
            f"{name} has model_type={model_type!r}. Allowed: a model type that transformers knows, such as 'bert' or "
            f"'resnet'. Add the key 'model_type' to {name}."
        )
    raise ValueError(f"{name} is a {type(value).__name__}. Allowed: a transformers config, a dict or None. Pass one.")


def _refuse_unknown_fields(kwargs: dict, known: tuple[str, ...]) -> None:
    """A misspelt field would otherwise be kept silently and change nothing."""
    inherited = set(PreTrainedConfig().to_dict()) | {
        "attn_implementation", "auto_map", "code_revision", "custom_pipelines", "dtype", "experts_implementation",
        "id2label", "label2id", "model_type", "name_or_path", "num_labels", "output_attentions", "torch_dtype",
        "trust_remote_code", "transformers_version",
        "use_cache",  # Trainer writes it into the config of any model
    }  # fmt: skip
    for name in kwargs:
        if name in inherited or name.startswith("_"):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "Remove it or correct its name."
        raise ValueError(f"VideoQAConfig got the unknown field {name!r}. Allowed: {', '.join(known)}. {hint}")


def _check_choice(name: str, value, allowed: tuple) -> None:
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in allowed):
        raise ValueError(
            f"{name}={value!r}. Allowed: {', '.join(repr(choice) for choice in allowed)}. Set {name} to one of these."
        )


def _check_number(name, value, whole=False, low=-math.inf, high=math.inf, open_low=False) -> None:
    kind = int if whole else (int, float)
    right_type = isinstance(value, kind) and not isinstance(value, bool)
    if right_type and math.isfinite(value) and low <= value <= high and not (open_low and value == low):
        return
    what = "a whole number" if whole else "a finite number"
    bound = f"over {low}" if open_low else f"of at least {low}"
    limit = f" and at most {high}" if math.isfinite(high) else ""
    raise ValueError(f"{name}={value!r}. Allowed: {what} {bound}{limit}. Set {name} to such a value.")
