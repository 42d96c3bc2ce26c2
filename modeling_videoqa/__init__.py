"""A small, exact model that answers multiple-choice questions about subtitled video and shows where the answer is."""

from transformers import AutoConfig, AutoModel, AutoModelForMultipleChoice

from .configuration_videoqa import VideoQAConfig
from .modeling_videoqa import VideoQAForMultipleChoice, VideoQAModel, VideoQAOutput, VideoQAPreTrainedModel

__version__ = "0.1.0"
__all__ = ["VideoQAConfig", "VideoQAForMultipleChoice", "VideoQAModel", "VideoQAOutput", "VideoQAPreTrainedModel"]

AutoConfig.register(VideoQAConfig.model_type, VideoQAConfig)
AutoModel.register(VideoQAConfig, VideoQAModel)
AutoModelForMultipleChoice.register(VideoQAConfig, VideoQAForMultipleChoice)
