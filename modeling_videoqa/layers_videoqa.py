"""Attention over rows of text: exact, and without the work that rows do not need."""

from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertLayer, eager_attention_forward
from transformers.models.camembert.modeling_camembert import CamembertLayer
from transformers.models.electra.modeling_electra import ElectraLayer
from transformers.models.roberta.modeling_roberta import RobertaLayer
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaLayer

# Those whose masks are of one form; with any other the layer computes as the transformers library has it.
ATTENTIONS = ("eager", "sdpa")


class RowLayerMixin:
    """
    Before an encoder layer of BERT's form. The weights, their names and gradient checkpointing are the layer's own, and
    so is the result; two things are computed in another way:

    - The last layer (`first_token_only`) has keys and values of all tokens, but query, output and feed-forward of the
      first one: nothing else of it is ever read (METHOD.md, point 9). About a sixth of a six-layer encoder is saved.
    - Rows that come end to end (`cu_seqlens`) attend through `torch.nn.attention.varlen`: no place is padded.
    """

    first_token_only = False

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *args,
        cu_seqlens: Tensor | None = None,
        max_length: int | None = None,
        **kwargs,
    ) -> Tensor:
        """
        Args:
            hidden_states (`Tensor[num_rows, length, hidden_size]`, or `Tensor[1, num_tokens, hidden_size]` end to end)
            attention_mask (`Tensor`, *optional*): What the attention takes, `(num_rows, 1, 1 or length, length)`.
            cu_seqlens (`IntTensor[num_rows + 1]`, *optional*): Where each row begins, and the end; of rows end to end.
            max_length (`int`, *optional*): No row is longer; with `cu_seqlens`.

        Returns:
            As `hidden_states`; with `first_token_only` `Tensor[num_rows, 1, hidden_size]`, end to end
            `Tensor[1, num_rows, hidden_size]`.
        """
        if cu_seqlens is not None:
            return self._end_to_end(hidden_states, cu_seqlens, max_length)
        if self.first_token_only and self.attention.self.config._attn_implementation in ATTENTIONS:
            return self._first_token(hidden_states, attention_mask)
        states = super().forward(hidden_states, attention_mask, *args, **kwargs)
        return states[:, :1] if self.first_token_only else states

    def _heads(self, query: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query of one, key and value of the other, `(..., num_heads, head_size)`."""
        attention = self.attention.self
        projected = attention.query(query), attention.key(other), attention.value(other)
        query, key, value = (states.unflatten(-1, (-1, attention.attention_head_size)) for states in projected)
        return query, key, value

    def _first_token(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        attention, first = self.attention.self, hidden_states[:, :1]
        query, key, value = (states.transpose(1, 2) for states in self._heads(first, hidden_states))
        implementation = attention.config._attn_implementation
        attended, _ = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)(
            attention,
            query,
            key,
            value,
            None if attention_mask is None else attention_mask[:, :, :1],
            dropout=attention.dropout.p if self.training else 0.0,
            scaling=attention.scaling,
        )
        return self.feed_forward_chunk(self.attention.output(attended.flatten(2), first))

    def _end_to_end(self, hidden_states: Tensor, cu_seqlens: Tensor, max_length: int) -> Tensor:
        states, own, longest = hidden_states[0], cu_seqlens, max_length
        queries = states
        if self.first_token_only:
            queries, longest = states[cu_seqlens[:-1].long()], 1
            own = torch.arange(len(cu_seqlens), dtype=torch.int32, device=states.device)
        query, key, value = self._heads(queries, states)
        # (num_queries, num_heads, head_size); torch 2.10 knows one scale alone, which is that of all these layers
        attended = varlen_attn(query, key, value, own, cu_seqlens, longest, max_length)
        return self.feed_forward_chunk(self.attention.output(attended.flatten(1)[None], queries[None]))


class RowBertLayer(RowLayerMixin, BertLayer):
    """BERT's."""


class RowCamembertLayer(RowLayerMixin, CamembertLayer):
    """CamemBERT's."""


class RowElectraLayer(RowLayerMixin, ElectraLayer):
    """ELECTRA's."""


class RowRobertaLayer(RowLayerMixin, RobertaLayer):
    """RoBERTa's."""


class RowXLMRobertaLayer(RowLayerMixin, XLMRobertaLayer):
    """XLM-RoBERTa's."""


ROW_LAYERS = {
    BertLayer: RowBertLayer,
    CamembertLayer: RowCamembertLayer,
    ElectraLayer: RowElectraLayer,
    RobertaLayer: RowRobertaLayer,
    XLMRobertaLayer: RowXLMRobertaLayer,
}


def install_row_layers(layers: nn.ModuleList) -> bool:
    """
    Make the layers of an encoder, of which only the first token of each row is read, compute as [`RowLayerMixin`] says;
    layers of another form stay as they are.

    Args:
        layers (`nn.ModuleList`): All layers of the encoder, the last one last.

    Returns:
        `bool`: Whether they are of BERT's form.
    """
    if not len(layers) or not all(type(layer) in ROW_LAYERS for layer in layers):
        return False
    for layer in layers:
        layer.__class__ = ROW_LAYERS[type(layer)]
    layers[-1].first_token_only = True
    return True


# --- encoders of another form, through the attention interface

# As "sdpa", and for rows that come end to end `torch.nn.attention.varlen`. A name of its own, given once: to switch the
# name for one call would not be safe beside other threads, nor for layers that a checkpoint computes again.
SDPA_OR_VARLEN = "sdpa_or_varlen"
# Encoders that take `position_ids`, hand every further argument down to the attention interface, scale by the root of
# the head's size, and have no bias that depends on how far two tokens of the batch are apart; each of them is tested.
TAKE_THE_INTERFACE = (
    "distilbert", "ernie", "gte", "jina_embeddings_v3", "modernbert", "nomic_bert", "roberta-prelayernorm",
    "xlm-roberta-xl",
)  # fmt: skip
VARLEN_HAS_WINDOWS = "window_size" in signature(varlen_attn).parameters  # not in torch 2.10


def sdpa_or_varlen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seqlens: Tensor | None = None,
    max_length: int | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """
    An attention function of the transformers library.

    Args:
        query, key, value (`Tensor[num_rows, num_heads, length, head_size]`): Rows end to end: `num_rows` is 1.
        attention_mask (`Tensor`, *optional*): As for "sdpa"; not looked at for rows end to end.
        cu_seqlens, max_length: As in [`RowLayerMixin`].

    Returns:
        `Tensor[num_rows, length, num_heads, head_size]`, and `None` for the weights.
    """
    if cu_seqlens is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    window = kwargs.get("sliding_window")  # tokens that one sees to either side, itself counted
    window = {} if window is None or window >= max_length else {"window_size": (window - 1, window - 1)}
    attended = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, max_length, max_length, **window)
    return attended[None], None


AttentionInterface.register(SDPA_OR_VARLEN, sdpa_or_varlen)
AttentionMaskInterface.register(SDPA_OR_VARLEN, sdpa_mask)


def install_attention(encoder: PreTrainedModel) -> None:
    """
    Let an encoder of another form than BERT's, which has "sdpa" and takes the attention interface, take rows end to end
    too: `cu_seqlens` and `max_length` among its arguments, as [`RowLayerMixin`] has them.

    Args:
        encoder ([`PreTrainedModel`]): As it was made; another encoder stays as it is.
    """
    config = encoder.config
    if config.model_type in TAKE_THE_INTERFACE and config._attn_implementation == "sdpa":
        config._attn_implementation = SDPA_OR_VARLEN


def attends_end_to_end(encoder: PreTrainedModel, max_length: int) -> bool:
    """Whether [`sdpa_or_varlen`] is the attention of the encoder, and takes rows of up to `max_length` tokens."""
    window = getattr(encoder.config, "sliding_window", None)
    fits = VARLEN_HAS_WINDOWS or window is None or window >= max_length
    return fits and encoder.config._attn_implementation == SDPA_OR_VARLEN
