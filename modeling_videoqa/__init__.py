"""A small, exact model that answers multiple-choice questions about subtitled video and shows where the answer is."""

from transformers import AutoConfig
from transformers import AutoModel
from transformers import AutoModelForMultipleChoice

from .configuration_videoqa import VideoQAConfig
from .modeling_videoqa import VideoQAForMultipleChoice
from .modeling_videoqa import VideoQAModel
from .modeling_videoqa import VideoQAOutput
from .modeling_videoqa import VideoQAPreTrainedModel

__version__ = "0.1.0"
__all__ = ["VideoQAConfig", "VideoQAForMultipleChoice", "VideoQAModel", "VideoQAOutput", "VideoQAPreTrainedModel"]

AutoConfig.register(VideoQAConfig.model_type, VideoQAConfig)
AutoModel.register(VideoQAConfig, VideoQAModel)
AutoModelForMultipleChoice.register(VideoQAConfig, VideoQAForMultipleChoice)
