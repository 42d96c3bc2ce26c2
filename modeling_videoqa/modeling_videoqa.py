"""The network of Kim et al. 2021: token types, aligned attention, recurrent pooling, heads."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_videoqa import POSITIONS_BEHIND_PADDING, VideoQAConfig
from .layers_videoqa import attends_end_to_end, install_attention, install_row_layers
from .loss_videoqa import answer_loss, contrastive_loss, span_loss, weighted_sum
from .packing_videoqa import encode_rows, lay_end_to_end

# Weights of E1 for the second to fourth text segment (METHOD.md, point 6); the first is E0.
TOKEN_TYPE_SCALES = {"fractional": (1 / 3, 2 / 3, 1.0), "binary": (1.0, 1.0, 1.0)}


@dataclass
class VideoQAModelOutput(ModelOutput):
    """
    Args:
        text_states (`Tensor[batch_size, num_choices, num_segments, 2 * hidden_size]`): Output of the text GRU.
        hypotheses (`Tensor[batch_size, num_choices, 2 * hidden_size]`): Pooled text of each choice, H_t of eq. 4.
        video_hypotheses (`Tensor[batch_size, num_choices, 2 * hidden_size]`, *optional*): Pooled video, H_v of eq. 4.
        anchor (`Tensor[batch_size, 2 * hidden_size]`, *optional*): Pooled text of the masked row.
        frame_attentions (`Tensor[batch_size, num_choices, num_segments, num_frames]`, *optional*):
            Weights alpha of eq. 3; with global attention `(..., num_segments, num_segments, num_frames)`.
        segment_mask (`Tensor[batch_size, num_segments]`): Real segments.
    """

    text_states: Tensor | None = None
    hypotheses: Tensor | None = None
    video_hypotheses: Tensor | None = None
    anchor: Tensor | None = None
    frame_attentions: Tensor | None = None
    segment_mask: Tensor | None = None


@dataclass
class VideoQAOutput(ModelOutput):
    """
    Args:
        loss (`Tensor[]`, *optional*): Weighted sum of the parts (eq. 10), when labels came.
        logits (`Tensor[batch_size, num_choices]`): s_t + s_v (eq. 5 and 6).
        start_logits, end_logits (`Tensor[batch_size, num_segments]`):
            Scores of the first and last segment of the answer's span, -inf for padded segments.
        qa_loss, span_loss, contrastive_loss (`Tensor[]`, *optional*): Parts of the loss, unweighted.
        text_logits, video_logits (`Tensor[batch_size, num_choices]`): s_t, and s_v if there were frames.
        hypotheses, video_hypotheses (`Tensor[batch_size, num_choices, 2 * hidden_size]`, *optional*):
            Pooled hypotheses (eq. 4), with `output_hypotheses=True`.
        anchor (`Tensor[batch_size, 2 * hidden_size]`, *optional*): Pooled masked row, with `output_hypotheses=True`.
        frame_attentions (`Tensor[batch_size, num_choices, num_segments, num_frames]`, *optional*):
            Frame weights (eq. 3), with `output_attentions=True`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    qa_loss: Tensor | None = None
    span_loss: Tensor | None = None
    contrastive_loss: Tensor | None = None
    text_logits: Tensor | None = None
    video_logits: Tensor | None = None
    hypotheses: Tensor | None = None
    video_hypotheses: Tensor | None = None
    anchor: Tensor | None = None
    frame_attentions: Tensor | None = None


class FractionalTokenTypeEmbedding(nn.Embedding):
    """
    Embeddings of four text segments from the two rows of a pre-trained token-type table (section 3.1).

    Holds the same two-row `weight` as the table it stands in for, so that checkpoints load into it and come back out
    unchanged.

    Args:
        embedding_dim (`int`): Width of the encoder.
        token_types (`str`): `"fractional"`: E0, E1/3, 2 E1/3, E1; `"binary"`: E0, E1, E1, E1.

    Example:

    ```python
    >>> import torch
    >>> table = FractionalTokenTypeEmbedding(8)
    >>> table(torch.tensor([[0, 1, 2, 3]])).shape
    torch.Size([1, 4, 8])
    ```
    """

    def __init__(self, embedding_dim: int, token_types: str = "fractional"):
        super().__init__(2, embedding_dim)
        self.token_types = token_types

    def forward(self, token_type_ids: Tensor) -> Tensor:
        scales = self.weight.new_tensor(TOKEN_TYPE_SCALES[self.token_types]).unsqueeze(1)
        return F.embedding(token_type_ids, torch.cat([self.weight[:1], scales * self.weight[1:]]))


class AlignedAttention(nn.Module):
    """
    Attention of each text row over the frames of its own segment, or of the whole clip (eq. 3).

    Args:
        feature_size (`int`): Width of a frame vector, d_v.
        hidden_size (`int`): Width of a text row, d_t.
        scope (`str`): `"local"` or `"global"`.
        normalize (`bool`): L2-normalise each frame vector first.
    """

    def __init__(self, feature_size: int, hidden_size: int, scope: str = "local", normalize: bool = True):
        super().__init__()
        self.projection = nn.Linear(feature_size, hidden_size, bias=False)  # M
        self.scope = scope
        self.normalize = normalize

    def forward(self, text: Tensor, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            text (`Tensor[batch_size, num_choices, num_segments, hidden_size]`): [CLS] of each text row, H_t.
            frames (`Tensor[num_valid_frames, feature_size]`): The valid frames in the order of `frame_mask`.
            frame_mask (`BoolTensor[batch_size, num_segments, num_frames]`): Valid frames.

        Returns:
            `Tensor[batch_size, num_choices, num_segments, hidden_size]`, 0 where there is nothing to attend to, and
            the weights `Tensor[batch_size, num_choices, num_segments, num_frames]` (`"local"`) or
            `Tensor[batch_size, num_choices, num_segments, num_segments, num_frames]` (`"global"`).
        """
        projected = self.project(frames)
        values = projected.new_zeros(*frame_mask.shape, projected.shape[-1])
        values[frame_mask] = projected  # (batch_size, num_segments, num_frames, hidden_size)
        return self.attend(text, values, frame_mask)

    def project(self, frames: Tensor) -> Tensor:
        """v M: `Tensor[..., feature_size]` -> `Tensor[..., hidden_size]`."""
        frames = F.normalize(frames.float(), dim=-1) if self.normalize else frames  # in float16, eps is 0
        return self.projection(frames.to(self.projection.weight.dtype))

    def attend(self, text: Tensor, values: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, of frames that are projected and in their places, 0 where there is none."""
        text = text.to(values.dtype)
        if self.scope == "local":
            scores = torch.einsum("btid,bntd->bnti", values, text)
            weights = _masked_softmax(scores, frame_mask[:, None])
            return torch.einsum("bnti,btid->bntd", weights, values), weights
        values, mask = values.flatten(1, 2), frame_mask.flatten(1)
        scores = torch.einsum("bfd,bntd->bntf", values, text)
        weights = _masked_softmax(scores, mask[:, None, None])
        attended = torch.einsum("bntf,bfd->bntd", weights, values)
        return attended, weights.unflatten(-1, frame_mask.shape[1:])


class RecurrentPooling(nn.Module):
    """
    A bidirectional GRU over the valid segments and the maximum of its outputs (eq. 4).

    Args:
        hidden_size (`int`): Width of the input and of each direction.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True, bidirectional=True)

    def forward(self, rows: Tensor, segment_mask: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            rows (`Tensor[batch_size, num_rows, num_segments, hidden_size]`)
            segment_mask (`BoolTensor[batch_size, num_segments]`): Valid segments, padding at the end.

        Returns:
            States `Tensor[batch_size, num_rows, num_segments, 2 * hidden_size]`, 0 at padded segments, and their
            maximum over the valid ones, `Tensor[batch_size, num_rows, 2 * hidden_size]`.
        """
        batch_size, num_rows, num_segments, _ = rows.shape
        lengths = segment_mask.sum(dim=1).repeat_interleave(num_rows).cpu()
        # The GRU runs in the dtype of its weights: recurrences lose too much in bf16, and some devices lack the kernel.
        with torch.autocast(rows.device.type, enabled=False):
            packed = pack_padded_sequence(
                rows.flatten(0, 1).to(self.gru.weight_ih_l0.dtype), lengths, batch_first=True, enforce_sorted=False
            )
            states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=num_segments)
        states = states.unflatten(0, (batch_size, num_rows))
        return states, self.pool(states, segment_mask)

    @staticmethod
    def pool(states: Tensor, segment_mask: Tensor) -> Tensor:
        """Maximum over the valid segments."""
        return states.masked_fill(~segment_mask[:, None, :, None], -torch.inf).amax(dim=2)


class VideoQAPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation, shared by the models."""

    config_class = VideoQAConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Losses are means over the micro-batch: Trainer itself divides by the accumulation steps.
    accepts_loss_kwargs = False

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FractionalTokenTypeEmbedding):
            init.zeros_(module.weight)  # only the table of an encoder that has none of its own comes here
        elif isinstance(module, nn.GRU):
            for parameter in module.parameters():
                init.uniform_(parameter, -(module.hidden_size**-0.5), module.hidden_size**-0.5)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """
        As in any transformers model; the layers that the config freezes come back frozen.

        Raises:
            ValueError: the file holds LoRA adapters that are not merged: they would be left out, and the weights that
                they adapt, which have other names there, would be made at random.
        """
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if any(".lora_" in name for name in info["unexpected_keys"]):
            raise ValueError(
                f"{pretrained_model_name_or_path} holds LoRA adapters apart from the weights that they adapt, as a "
                "checkpoint of a training on its way does. Allowed: a model with its adapters merged. Load the folder "
                "that the finished run wrote, or call merge_adapters before save_pretrained."
            )
        model.base_model.freeze()
        return (model, info) if output_loading_info else model

    @classmethod
    def from_text_encoder(
        cls,
        name_or_path: str,
        *,
        text_config: dict | None = None,
        vision_model: PreTrainedModel | str | None = None,
        **config_fields,
    ):
        """
        A new model around a pre-trained text encoder; everything but the encoder (and the backbone) is initialised.

        Args:
            name_or_path (`str`): Encoder on the Hub or in a local folder.
            text_config (`dict`, *optional*):
                Fields of the encoder's own config to change, such as `{"num_hidden_layers": 3}` for its three lowest
                layers or `{"attention_probs_dropout_prob": 0.0}`.
            vision_model (`PreTrainedModel` or `str`, *optional*):
                Frozen vision backbone to hold in the model, so that it takes `pixel_values`: a vision model with a
                pooled output, or its name, such as `"microsoft/resnet-101"`, the paper's.
            config_fields: Fields of [`VideoQAConfig`].

        Returns:
            A model of this class, in float32.

        Example:

        ```python
        >>> from modeling_videoqa import VideoQAForMultipleChoice

        >>> model = VideoQAForMultipleChoice.from_text_encoder("google-bert/bert-base-uncased")  # doctest: +SKIP
        ```
        """
        encoder = AutoModel.from_pretrained(name_or_path, dtype=torch.float32, **(text_config or {}))
        if isinstance(vision_model, str):
            vision_model = AutoModel.from_pretrained(vision_model, dtype=torch.float32)
        if vision_model is not None:
            config_fields["vision_config"] = vision_model.config
        model = cls(VideoQAConfig(text_config=encoder.config, **config_fields))
        base = model.base_model
        base.text_encoder.load_state_dict(
            {name: value for name, value in encoder.state_dict().items() if not name.startswith("pooler.")}
        )
        if vision_model is not None:
            base.vision_model.load_state_dict(vision_model.state_dict())
        return model


class VideoQAModel(VideoQAPreTrainedModel):
    """
    Text encoder, aligned attention and recurrent pooling: from the batch to one hypothesis for each choice.

    Args:
        config ([`VideoQAConfig`]): What to build.
    """

    def __init__(self, config: VideoQAConfig):
        super().__init__(config)
        config.check_values()  # `from_pretrained(..., field=value)` sets fields after the config was made
        hidden_size = config.text_config.hidden_size
        self.text_encoder = AutoModel.from_config(config.text_config)
        self.text_encoder.pooler = None  # the last hidden state of [CLS] is used; an idle pooler would upset DDP
        layers = self._text_layers() or nn.ModuleList()
        self._has_row_layers = install_row_layers(layers)
        install_attention(self.text_encoder)
        if len(layers):  # of a class of our own, perhaps; device_map must not cut one in two
            self._no_split_modules = [type(layers[-1]).__name__]
        self.token_type_embeddings = self._install_token_types()
        self.text_pooling = RecurrentPooling(hidden_size)
        self.vision_model = None
        if config.video_feature_size is not None:
            self.visual_attention = AlignedAttention(
                config.video_feature_size, hidden_size, config.visual_attention, config.normalize_features
            )
            self.video_pooling = RecurrentPooling(hidden_size)
            if config.vision_config is not None:
                self.vision_model = AutoModel.from_config(config.vision_config)
        self.post_init()
        self.freeze()

    def _install_token_types(self) -> FractionalTokenTypeEmbedding | None:
        """Put our table in the place of the encoder's own; an encoder without one gets a table of ours beside it."""
        embeddings = getattr(self.text_encoder, "embeddings", None)
        own = getattr(embeddings, "token_type_embeddings", None)
        if own is not None and own.num_embeddings == 2:
            embeddings.token_type_embeddings = FractionalTokenTypeEmbedding(own.embedding_dim, self.config.token_types)
            return None
        width = self.text_encoder.get_input_embeddings().embedding_dim  # not hidden_size in every encoder
        return FractionalTokenTypeEmbedding(width, self.config.token_types)

    def _text_layers(self) -> nn.ModuleList | None:
        """The layers of the text encoder, lowest first; `None` if it has no plain list of them."""
        lists = [part for part in self.text_encoder.modules() if isinstance(part, nn.ModuleList)]
        return next((part for part in lists if len(part) == self.config.text_config.num_hidden_layers), None)

    def freeze(self) -> None:
        """
        Freeze all of the text encoder but its top `config.num_tuned_text_layers` layers (section 4.1), and the vision
        backbone.

        Frozen layers keep no activations, since nothing below them asks for a gradient. A token-type table that was
        added to an encoder without one is always trained: frozen at zero it would do nothing.
        """
        if self.vision_model is not None:
            self.vision_model.requires_grad_(False)
        tuned = self.config.num_tuned_text_layers
        if tuned is None:
            return
        num_layers, layers = self.config.text_config.num_hidden_layers, self._text_layers()
        if layers is None:
            raise ValueError(
                f"num_tuned_text_layers={tuned}, but the text encoder ({self.config.text_config.model_type}) has no "
                f"list of {num_layers} layers to choose from. Allowed: None. Set num_tuned_text_layers=None to train "
                "all of it."
            )
        self.text_encoder.requires_grad_(False)
        layers[max(num_layers - tuned, 0) :].requires_grad_(True)

    def train(self, mode: bool = True):
        """As in any module, but frozen parts stay in evaluation mode: no dropout, no moving batch statistics."""
        super().train(mode)
        for part in self.modules():
            parameters = list(part.parameters())
            if mode and parameters and not any(parameter.requires_grad for parameter in parameters):
                part.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_encoder.set_input_embeddings(value)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor) -> Tensor:
        """
        [CLS] of rows of text (METHOD.md, point 9), as they come: no packing.

        Args:
            input_ids, attention_mask, token_type_ids (`Tensor[num_rows, length]`): Token types are 0..3.

        Returns:
            `Tensor[num_rows, hidden_size]`
        """
        return self._hidden_states(input_ids, token_type_ids, attention_mask=attention_mask)[:, 0]

    def _hidden_states(self, input_ids: Tensor, token_type_ids: Tensor, **kwargs) -> Tensor:
        if self.token_type_embeddings is None:
            inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids}
        else:
            words = self.text_encoder.get_input_embeddings()(input_ids)
            inputs = {"inputs_embeds": words + self.token_type_embeddings(token_type_ids)}
        return self.text_encoder(**inputs, **kwargs).last_hidden_state

    def encode_end_to_end(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """
        [CLS] of rows of text as [`encode_text`] gives it, all rows end to end in one pass without a padded place. On a
        GPU with flash attention; see [`takes_rows_end_to_end`].

        Args:
            input_ids, attention_mask, token_type_ids (`Tensor[num_rows, length]`): Padding on the right.

        Returns:
            `Tensor[num_rows, hidden_size]`
        """
        token_ids, token_types, positions, cu_seqlens = lay_end_to_end(input_ids, attention_mask, token_type_ids)
        if self.config.text_config.model_type in POSITIONS_BEHIND_PADDING:
            positions = positions + self.config.text_config.pad_token_id + 1
        states = self._hidden_states(
            token_ids[None],
            token_types[None],
            position_ids=positions[None],
            # Nobody looks at it: a mask in its last form, lest an encoder with a sliding window makes one of all tokens
            # by all tokens.
            attention_mask=token_ids.new_ones(1, 1, 1, 1),
            cu_seqlens=cu_seqlens,
            max_length=input_ids.shape[1],
        )[0]
        return states if self._has_row_layers else states[cu_seqlens[:-1].long()]

    def takes_rows_end_to_end(self) -> bool:
        """
        Whether `torch.nn.attention.varlen` can serve here: an encoder that takes it, a GPU with flash attention, half
        precision, and no dropout of attention weights, which it has none of.
        """
        device, config = self.device.type, self.config.text_config
        if not self._has_row_layers and not attends_end_to_end(self.text_encoder, self.config.max_text_length):
            return False
        if device != "cuda" or not torch.backends.cuda.is_flash_attention_available():
            return False
        head_size = config.hidden_size // config.num_attention_heads
        if torch.cuda.get_device_capability(self.device) < (8, 0) or head_size % 8 or head_size > 256:
            return False
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.text_encoder.dtype
        names = ("attention_probs_dropout_prob", "attention_dropout")
        dropout = self.training and any(getattr(config, name, 0.0) for name in names)
        return dtype in (torch.bfloat16, torch.float16) and not dropout

    def encode_segments(self, input_ids, attention_mask, token_type_ids, segment_mask) -> Tensor:
        """
        [CLS] of the rows of valid segments, 0 for the rest; padding is never encoded.

        Args:
            input_ids, attention_mask, token_type_ids (`Tensor[batch_size, num_rows, num_segments, length]`)
            segment_mask (`BoolTensor[batch_size, num_segments]`)

        Returns:
            `Tensor[batch_size, num_rows, num_segments, hidden_size]`
        """
        # Rows of padded segments, and rows without a token (an anchor that nobody asked for), are left out.
        valid = segment_mask[:, None] & attention_mask.any(dim=-1)  # (batch_size, num_rows, num_segments)
        rows = input_ids[valid], attention_mask[valid], token_type_ids[valid]  # each (num_valid_rows, length)
        if self.takes_rows_end_to_end():
            encoded = self.encode_end_to_end(*rows)
        else:
            encoded = encode_rows(self.encode_text, *rows)
        hidden = encoded.new_zeros(*valid.shape, encoded.shape[-1])
        hidden[valid] = encoded
        return hidden

    def _frames(self, video_features, pixel_values, frame_mask, segment_mask) -> tuple[Tensor | None, Tensor | None]:
        """The valid frame vectors `(num_valid_frames, feature_size)` and their mask, or `(None, None)`: text only."""
        given = pixel_values if video_features is None else video_features
        if given is None or self.config.video_feature_size is None:
            return None, None
        if video_features is not None and pixel_values is not None:
            raise ValueError(
                "Both video_features and pixel_values came. Allowed: one of the two, or neither for text only. "
                "Leave one out."
            )
        if frame_mask is None:
            frame_mask = torch.ones(given.shape[:3], dtype=torch.bool, device=given.device)
        frame_mask = frame_mask.bool() & segment_mask[:, :, None]
        frames = given[frame_mask]
        if video_features is None:
            frames = self._encode_pixels(frames)
        if frames.shape[-1] != self.config.video_feature_size:
            raise ValueError(
                f"The frame features are {frames.shape[-1]} wide. Allowed: {self.config.video_feature_size}, the "
                "model's video_feature_size. Use the features that the model was trained with, or train a model with "
                f"video_feature_size={frames.shape[-1]}."
            )
        return frames, frame_mask

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        if self.vision_model is None:
            raise ValueError(
                "pixel_values came, but the model has no vision backbone. Allowed: video_features, or a model with a "
                "vision_config. Extract features first, or build the model with vision_model=..."
            )
        if not len(pixels):
            return pixels.new_zeros(0, self.config.video_feature_size)
        with torch.no_grad():
            return self.vision_model(pixels.to(self.vision_model.dtype)).pooler_output.flatten(1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segment_mask: Tensor | None = None,
        video_features: Tensor | None = None,
        pixel_values: Tensor | None = None,
        frame_mask: Tensor | None = None,
        anchor_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> VideoQAModelOutput:
        r"""
        Args:
            input_ids, attention_mask, token_type_ids
                (`LongTensor[batch_size, num_choices, num_segments, max_text_length]`):
                Text rows; token types are segment numbers 0..3.
            segment_mask (`BoolTensor[batch_size, num_segments]`, *optional*):
                Real segments, padding at the end. Default: those with a token.
            video_features (`FloatTensor[batch_size, num_segments, num_frames, video_feature_size]`, *optional*)
            pixel_values (`FloatTensor[batch_size, num_segments, num_frames, 3, height, width]`, *optional*)
            frame_mask (`BoolTensor[batch_size, num_segments, num_frames]`, *optional*): Real frames. Default: all.
            anchor_input_ids (`LongTensor[batch_size, num_segments, max_text_length]`, *optional*):
                Masked row of the correct choice; needs `labels`.
            labels (`LongTensor[batch_size]`, *optional*): Correct choices, here only to tell whose row the anchor is.

        Returns:
            [`VideoQAModelOutput`]
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        if segment_mask is None:
            segment_mask = attention_mask.any(dim=-1).any(dim=1)
        segment_mask = segment_mask.bool()
        _check_segments(segment_mask)
        rows = (input_ids, attention_mask, token_type_ids)
        if anchor_input_ids is not None:
            rows = _append_anchor(*rows, anchor_input_ids, labels)
        text = self.encode_segments(*rows, segment_mask)
        states, pooled = self.text_pooling(text, segment_mask)
        num_choices = input_ids.shape[1]
        output = VideoQAModelOutput(
            text_states=states[:, :num_choices],
            hypotheses=pooled[:, :num_choices],
            anchor=pooled[:, num_choices] if anchor_input_ids is not None else None,
            segment_mask=segment_mask,
        )
        frames, frame_mask = self._frames(video_features, pixel_values, frame_mask, segment_mask)
        if frames is not None:
            attended, output.frame_attentions = self.visual_attention(text[:, :num_choices], frames, frame_mask)
            output.video_hypotheses = self.video_pooling(attended, segment_mask)[1]
        return output


class VideoQAForMultipleChoice(VideoQAPreTrainedModel):
    """
    [`VideoQAModel`] with an answer classifier on the text and on the video, and a span classifier on the text.

    Args:
        config ([`VideoQAConfig`]): What to build.

    Example:

    ```python
    >>> import torch
    >>> from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice

    >>> text_config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = VideoQAForMultipleChoice(VideoQAConfig(text_config=text_config, video_feature_size=None))
    >>> model(input_ids=torch.randint(1, 100, (1, 5, 3, 12))).logits.shape  # 1 question, 5 choices, 3 segments
    torch.Size([1, 5])
    ```
    """

    def __init__(self, config: VideoQAConfig):
        super().__init__(config)
        self.model = VideoQAModel(config)
        hidden_size = 2 * config.text_config.hidden_size
        self.text_classifier = nn.Linear(hidden_size, 1)
        if config.video_feature_size is not None:
            self.video_classifier = nn.Linear(hidden_size, 1)
        self.span_classifier = nn.Linear(hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segment_mask: Tensor | None = None,
        video_features: Tensor | None = None,
        pixel_values: Tensor | None = None,
        frame_mask: Tensor | None = None,
        segment_times: Tensor | None = None,
        anchor_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_hypotheses: bool = False,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> VideoQAOutput | tuple:
        r"""
        Args:
            input_ids, attention_mask, token_type_ids, segment_mask, video_features, pixel_values, frame_mask,
            anchor_input_ids:
                See [`VideoQAModel`].
            segment_times (`FloatTensor[batch_size, num_segments, 2]`, *optional*):
                Seconds. Not used here: it is in the batch for post-processing, and `model(**batch)` takes all of it.
            labels (`LongTensor[batch_size]`, *optional*): Correct choices; -100: not known.
            start_positions, end_positions (`LongTensor[batch_size]`, *optional*):
                First and last segment of the annotated span; -100: not known.
            output_hypotheses (`bool`): Return the pooled hypotheses too.
            output_attentions (`bool`, *optional*): Return the frame attention too. Default: the config's.
            return_dict (`bool`, *optional*): `False` for a plain tuple. Default: the config's.

        Returns:
            [`VideoQAOutput`]
        """
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        return_dict = self.config.return_dict if return_dict is None else return_dict
        outputs = self.model(
            input_ids, attention_mask, token_type_ids, segment_mask, video_features, pixel_values, frame_mask,
            anchor_input_ids=anchor_input_ids, labels=labels,
        )  # fmt: skip
        scores = self.score(outputs)
        logits, start_logits, end_logits = scores["logits"], scores["start_logits"], scores["end_logits"]
        losses = self._losses(outputs, logits, start_logits, end_logits, labels, start_positions, end_positions)
        weights = {name: getattr(self.config, f"{name}_weight") for name in losses}
        result = VideoQAOutput(
            loss=weighted_sum(losses, weights),
            **scores,
            **losses,
            hypotheses=outputs.hypotheses if output_hypotheses else None,
            video_hypotheses=outputs.video_hypotheses if output_hypotheses else None,
            anchor=outputs.anchor if output_hypotheses else None,
            frame_attentions=outputs.frame_attentions if output_attentions else None,
        )
        return result if return_dict else result.to_tuple()

    def score(self, outputs: VideoQAModelOutput) -> dict[str, Tensor | None]:
        """The scores among the fields of [`VideoQAOutput`], from the hypotheses and the states of the text."""
        text_logits = self.text_classifier(outputs.hypotheses).squeeze(-1)  # (batch_size, num_choices)
        logits, video_logits = text_logits, None
        if outputs.video_hypotheses is not None:
            video_logits = self.video_classifier(outputs.video_hypotheses).squeeze(-1)
            logits = text_logits + video_logits
        # Point 13: scores of each segment for each choice, the largest over the choices.
        spans = self.span_classifier(outputs.text_states).amax(dim=1)  # (batch_size, num_segments, 2)
        spans = spans.masked_fill(~outputs.segment_mask[..., None], -torch.inf)
        start_logits, end_logits = spans.unbind(dim=-1)
        return {
            "logits": logits,
            "start_logits": start_logits,
            "end_logits": end_logits,
            "text_logits": text_logits,
            "video_logits": video_logits,
        }

    def _losses(self, outputs, logits, start_logits, end_logits, labels, start_positions, end_positions) -> dict:
        """The parts that have both targets and a weight; `None` for the others."""
        losses: dict[str, Tensor | None] = {"qa_loss": None, "span_loss": None, "contrastive_loss": None}
        if labels is not None and self.config.qa_loss_weight:
            losses["qa_loss"] = answer_loss(logits, labels)
        if start_positions is not None and end_positions is not None and self.config.span_loss_weight:
            losses["span_loss"] = span_loss(start_logits, end_logits, start_positions, end_positions)
        if outputs.anchor is not None and self.config.contrastive_loss_weight:
            losses["contrastive_loss"] = contrastive_loss(outputs.hypotheses, outputs.anchor, labels)
        return losses


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where `mask` holds; 0 elsewhere, and everywhere if it holds nowhere."""
    weights = scores.float().masked_fill(~mask, torch.finfo(torch.float32).min).softmax(dim=-1)
    return (weights * mask).to(scores.dtype)


def _check_segments(segment_mask: Tensor) -> None:
    lengths = segment_mask.sum(dim=1)
    places = torch.arange(segment_mask.shape[1], device=segment_mask.device)
    if not (lengths.gt(0) & (segment_mask == (places < lengths[:, None])).all(dim=1)).all():
        raise ValueError(
            "segment_mask has a clip without a segment, or a real segment after a padded one. Allowed: at least one "
            "real segment a clip, the padding at the end. A clip without subtitles has one segment with empty text."
        )


def _append_anchor(input_ids, attention_mask, token_type_ids, anchor_input_ids, labels):
    """The masked row as one more choice, so that it goes through the encoder in the same pass (point 14)."""
    if labels is None:
        raise ValueError(
            "anchor_input_ids came without labels. Allowed: both, or neither. Pass labels: they tell which choice was "
            "masked."
        )
    batch = torch.arange(len(input_ids), device=input_ids.device)
    known = labels.ge(0)[:, None, None]
    place = labels.clamp(min=0)
    mask = attention_mask[batch, place] * known  # a question without a label has no anchor to encode
    return (
        torch.cat([input_ids, anchor_input_ids[:, None]], dim=1),
        torch.cat([attention_mask, mask[:, None]], dim=1),
        torch.cat([token_type_ids, token_type_ids[batch, place][:, None]], dim=1),
    )
