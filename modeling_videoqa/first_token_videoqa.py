"""The last layer of a text encoder for its first token alone: nothing else of it is ever read (METHOD.md, point 9)."""

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertLayer, eager_attention_forward
from transformers.models.electra.modeling_electra import ElectraLayer
from transformers.models.roberta.modeling_roberta import RobertaLayer
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaLayer

# Those whose masks can be cut to one query; with any other the whole layer is computed.
ATTENTIONS = ("eager", "sdpa")


class FirstTokenMixin:
    """
    Before an encoder layer of BERT's form: keys and values of all tokens, but query, output and feed-forward of the
    first one, which is what a plain layer computes for it. About a sixth of a six-layer encoder is saved.

    The weights, their names and gradient checkpointing are the layer's own.
    """

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args, **kwargs) -> Tensor:
        """
        Args:
            hidden_states (`Tensor[num_rows, length, hidden_size]`)
            attention_mask (`Tensor`, *optional*): What the attention takes, `(num_rows, 1, 1 or length, length)`.

        Returns:
            `Tensor[num_rows, 1, hidden_size]`
        """
        attention = self.attention.self
        implementation = attention.config._attn_implementation
        if implementation not in ATTENTIONS:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)[:, :1]
        first = hidden_states[:, :1]
        query, key, value = (
            projection(states).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
            for projection, states in (
                (attention.query, first), (attention.key, hidden_states), (attention.value, hidden_states),
            )
        )  # fmt: skip
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


class FirstTokenBertLayer(FirstTokenMixin, BertLayer):
    """BERT's."""


class FirstTokenElectraLayer(FirstTokenMixin, ElectraLayer):
    """ELECTRA's."""


class FirstTokenRobertaLayer(FirstTokenMixin, RobertaLayer):
    """RoBERTa's."""


class FirstTokenXLMRobertaLayer(FirstTokenMixin, XLMRobertaLayer):
    """XLM-RoBERTa's."""


FIRST_TOKEN_LAYERS = {
    BertLayer: FirstTokenBertLayer,
    ElectraLayer: FirstTokenElectraLayer,
    RobertaLayer: FirstTokenRobertaLayer,
    XLMRobertaLayer: FirstTokenXLMRobertaLayer,
}


def compute_first_token_only(layer: nn.Module) -> None:
    """
    Make an encoder's last layer compute its first token alone; a layer of another form stays as it is.

    Args:
        layer (`nn.Module`): The last layer of an encoder of which only the first token is read.
    """
    layer.__class__ = FIRST_TOKEN_LAYERS.get(type(layer), type(layer))
